"""Pauses that a server asks for: how long its budget waits, and what is reported."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from poller.budget.budget import Budget
from poller.clock import Clock
from poller.polling.notices import budget_throttled
from state.notices import Notice

log = structlog.get_logger("poller")

LONG: Final = 120.0  # seconds; longer pauses are reported, whatever the answer's status was


class Episode(msgspec.Struct, frozen=True):
    """A reported time in which the server wants no calls. Times are Unix seconds."""

    since: float
    is_long: bool  # a long pause was reported


class Pauses:
    """The pauses of one budget. An episode lasts from the first report until a call succeeds and no pause is left.

    Two things are reported, each once per episode: a refused call (429), and a pause longer than `LONG`, even if it
    came with a successful answer whose headers say that nothing remains or when to come back.
    """

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self._budget = budget
        self._clock = clock
        self._episode: Episode | None = None
        self._unreported: Notice | None = None  # of a refused call that was repeated

    def until(self) -> float | None:
        """Wall time before which the server wants no call; None if calls are welcome."""
        return self._wall(self._budget.throttled_until(self._clock.steady()))

    def refused(self, reason: str) -> Notice | None:
        """The notice of a call that was answered with 429, if it is to be reported."""
        return self._told(reason) if self._episode is None else self.long_one()

    def repeats(self, reason: str) -> None:
        """A refused call is repeated: it is reported with the next answer of a unit."""
        self._unreported = self.refused(reason) or self._unreported

    def unreported(self) -> Notice | None:
        """The notice of a refused call that was repeated, or of a long pause, which was not reported yet."""
        notice, self._unreported = self._unreported, None
        return notice or self.long_one()

    def long_one(self) -> Notice | None:
        """The notice of a long pause that was not reported yet."""
        until = self._named()
        if until is None or until - self._clock.now() <= LONG:
            return None
        return (
            None
            if self._episode is not None and self._episode.is_long
            else self._told(self._budget.word or "its server asked for it")
        )

    def went_well(self) -> None:
        """A call succeeded: if no pause is left, the episode is over."""
        if self._episode is not None and self.until() is None:
            self.over()

    def over(self) -> None:
        """End the episode: it is over, or was ended on command."""
        if self._episode is not None:
            log.info("budget.goes_on", budget=self._budget.name, throttled_since=self._episode.since)
        self._episode = None

    def dump(self) -> bytes:
        """The current episode, for `recall` after a restart or reload."""
        return msgspec.json.encode(self._episode)

    def recall(self, saved: bytes) -> None:
        """Restore a reported episode. Raises ValueError if `raw` is not a dump."""
        try:
            self._episode = msgspec.json.decode(saved, type=Episode | None)
        except msgspec.DecodeError as error:
            raise ValueError(f"not an episode: {error}") from error

    def _told(self, reason: str) -> Notice:
        now, before = self._clock.now(), self._episode
        until, named = self.until() or now, self._named() or now
        self._episode = Episode(since=now if before is None else before.since, is_long=named - now > LONG)
        return budget_throttled(self._budget.name, now=now, until=until, reason=reason)

    def _named(self) -> float | None:
        return self._wall(self._budget.named_until(self._clock.steady()))

    def _wall(self, steady: float | None) -> float | None:
        return None if steady is None else self._clock.now() + steady - self._clock.steady()
