"""The objects of one source whose own URL is to be requested, in order of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec
from msgspec import structs

from poller.changes.endpoint_rules import DeletionRules
from poller.polling.results import PollResult
from state.polls import Presence, Snapshot, Suspect


class Queued(msgspec.Struct, frozen=True):
    """An object whose own URL is to be requested: a suspect, or one that is listed again after its deletion."""

    due: float  # earliest time, at which it has been missing for long enough
    suspect: Suspect


def asked_at(suspect: Suspect, rules: DeletionRules, *, now: float) -> float:
    """When a suspect's own URL is to be asked: after half of the time for which it must be missing, and again all of it
    later.

    One answer is no proof: a server that lags behind or is restarting may answer 404 for an existing object.
    """
    wait = rules.missing_time(has_own_url=True)
    if not rules.asks_twice:
        return _past(suspect.missing_at, now) + wait
    if suspect.denied_at is None:
        return _past(suspect.missing_at, now) + wait / 2
    return _past(suspect.denied_at, now) + wait


def is_proved(suspect: Suspect, rules: DeletionRules, *, asked: float) -> bool:
    """Whether a suspect is gone whose own URL, asked then, says so."""
    if not rules.asks_twice:
        return True
    return suspect.denied_at is not None and suspect.denied_at + rules.missing_time(has_own_url=True) <= asked


def _past(at: float, now: float) -> float:
    """A time, or now where it is still to come: it is of a clock that was wrong."""
    return min(at, now)


class SuspectQueue:
    """The objects whose own URL is to be requested: suspects, and objects listed again after their deletion."""

    def __init__(self) -> None:
        self.waiting: dict[str, deque[Queued]] = {}  # by endpoint, in order of time
        self.confirming: set[tuple[str, str]] = set()  # endpoint and id of running requests
        self._stale: set[str] = set()  # endpoints whose suspects must be read again

    def is_due(self, endpoint: str, now: float) -> bool:
        """Whether a suspect of the endpoint is due now."""
        waiting = self.waiting.get(endpoint)
        return waiting is not None and len(waiting) > 0 and waiting[0].due <= now

    def due_after(self, at: float) -> float | None:
        """When a suspect is next due after that time; None if there is none."""
        return min((queue[0].due for queue in self.waiting.values() if queue and queue[0].due > at), default=None)

    def next(self, endpoint: str, now: float) -> Suspect | None:
        """Take a suspect that is due; `finished` gives it back."""
        waiting = self.waiting.get(endpoint)
        while waiting and waiting[0].due <= now:
            suspect = waiting.popleft().suspect
            name = endpoint, suspect.snapshot.object_id
            if name not in self.confirming:
                self.confirming.add(name)
                return suspect
        return None

    def finished(self, endpoint: str, suspect: Suspect) -> None:
        """The request for a suspect has ended, or could not be made."""
        self.confirming.discard((endpoint, suspect.snapshot.object_id))
        if not self.waiting.get(endpoint):
            self._stale.add(endpoint)

    def forget(self, endpoint: str) -> None:
        """Read the suspects of an endpoint again later."""
        self.waiting.pop(endpoint, None)
        self._stale.add(endpoint)

    def is_to_be_read(self, endpoint: str, result: PollResult) -> bool:
        """Whether the suspects of an endpoint are to be read from the state after this poll."""
        if self.waiting.get(endpoint):
            return result.suspects.returned  # suspects that were shown again need no request
        return result.suspects.missing or result.swept or endpoint in self._stale

    def fill(self, endpoint: str, suspects: Iterable[Suspect], rules: DeletionRules, *, now: float) -> bool:
        """Queue the suspects of an endpoint, each due when its own URL is to be requested. False if there are none."""
        self._stale.discard(endpoint)
        queue = [one for one in self.waiting.get(endpoint, ()) if one.suspect.snapshot.presence is Presence.PRESENT]
        queue += [
            Queued(asked_at(suspect, rules, now=now), suspect)
            for suspect in suspects
            if (endpoint, suspect.snapshot.object_id) not in self.confirming
        ]
        if queue:
            self.waiting[endpoint] = deque(sorted(queue, key=attrgetter("due")))
        else:
            self.waiting.pop(endpoint, None)
        return bool(queue) or any(name == endpoint for name, _ in self.confirming)

    def again(self, endpoint: str, suspect: Suspect, due: float) -> None:
        """Ask for an object once more, then."""
        queue = [*self.waiting.get(endpoint, ()), Queued(due, suspect)]
        self.waiting[endpoint] = deque(sorted(queue, key=attrgetter("due")))

    def add_listed(self, endpoint: str, snapshots: Sequence[Snapshot], *, now: float) -> None:
        """Queue an object that is listed again: if its own URL still says 404, that URL proves nothing."""
        for snapshot in snapshots:
            listed = structs.replace(snapshot, presence=Presence.PRESENT)
            self.again(endpoint, Suspect(snapshot=listed, missing_at=now, missing_sweep=0, checks=0), now)
