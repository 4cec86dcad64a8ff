"""Detection of sources that are due but not polled, whatever the cause. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from poller.polling.notices import goes_on, stands_still
from state.notices import Notice

STALL: Final = 300.0  # seconds


class StallWatch:
    """Watches that a source which is due is polled."""

    def __init__(self, source: str, *, limit: float = STALL) -> None:
        self.source = source
        self.limit = limit  # seconds
        self._last_poll: float | None = None
        self._waiting_since: float | None = None
        self._stalled_since: float | None = None

    def dump(self) -> bytes:
        """The current alarm, for `recall` after a restart or reload."""
        return msgspec.json.encode(self._stalled_since)

    def recall(self, saved: bytes) -> None:
        """Restore an alarm that was reported; its end will be reported. Raises ValueError if `raw` is not a dump."""
        self._stalled_since = msgspec.json.decode(saved, type=float | None)

    def check(self, now: float, *, due_since: float | None, last_poll: float | None) -> Notice | None:
        """Report once that nothing was polled for longer than the limit although something was due, and once that it is
        over.

        `due_since`: since when a unit of this source is due (see `due_since`), or None. `last_poll`: when a poll last
        began, successful or not. Both are Unix seconds. Call this at least once a minute.
        """
        polled, self._last_poll = last_poll != self._last_poll, last_poll
        if due_since is not None and due_since > now:
            due_since = None
        if polled or due_since is None:
            self._waiting_since = None
        if polled and self._stalled_since is not None:
            began, self._stalled_since = self._stalled_since, None
            return goes_on(self.source, since=began, now=now)
        if due_since is None:
            return None
        began = due_since if last_poll is None else max(due_since, last_poll)
        # The earliest time counts, because a caller may compute "due since" again at each check.
        self._waiting_since = min(now, began if self._waiting_since is None else min(began, self._waiting_since))
        if self._stalled_since is not None or now - self._waiting_since < self.limit:
            return None
        self._stalled_since = self._waiting_since
        return stands_still(self.source, since=self._stalled_since, now=now, last_poll=last_poll)


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """Position of one source's units in the planner of their budget. Times are Unix seconds."""

    is_free: bool  # the budget allows a call now
    is_first: bool  # the planner would poll a unit of this source next
    due: float | None  # when the first unit of this source is due; None: all are in flight, or there is none
    latest: float  # when the budget last began a poll of any source, or was opened


def due_since(turns: Turns, now: float, *, limit: float = STALL) -> float | None:
    """Since when a unit of a source should have been polled.

    While others of the same budget are polled, only the unit that the planner would poll next counts, because the rest
    is rightly deferred. If nothing of the budget was polled for that long, everything that is due counts.
    """
    if not turns.is_free or turns.due is None or turns.due > now:
        return None
    if now - turns.latest >= limit:
        return max(turns.latest, turns.due)
    return now if turns.is_first else None
