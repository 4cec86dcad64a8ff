"""The steps of the data's way. Each is one transaction: values in, values out; no callable, no clock, no connection.

Raised: StateError; Conflict (the base has changed: read and decide again); LeaseLost (another worker owns it: drop
what is held).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from state.deliveries import ClaimRequest, Dispatched, Expiring, Feed, Registration, Settled, Settlement
from state.leases import Lease, Worker
from state.notices import Notice
from state.polls import (
    EndpointSpec,
    Known,
    Opened,
    Recorded,
    Recording,
    Snapshot,
    Suspect,
    UnitTimes,
    Wanted,
)
from state.records import Event


class Leases(Protocol):
    """Who owns a budget or a subscription. Times are those of the store."""

    def take(self, worker: Worker, wanted: Sequence[str], *, most: int, ttl: float) -> list[Lease]:
        """At most `most` of the wanted leases that are free, expired, or this worker's own from before a restart."""
        ...

    def renew(self, worker: Worker, *, ttl: float) -> list[Lease]:
        """Every lease that this worker still holds, for `ttl` seconds more."""
        ...

    def give_up(self, leases: Sequence[Lease]) -> None:
        """Let others take them at once. A lease that is already another's stays theirs."""
        ...


class CallStore(Protocol):
    """The calls of budgets. Times are steady seconds."""

    def restore(self, budget: str, *, since: float, now: float) -> Sequence[tuple[float, float]]:
        """(sent, answered) of the calls answered after `since`; those that a crash left unanswered count from `now`."""
        ...

    def spend(
        self,
        lease: Lease,
        at: float,
        *,
        answers: Iterable[tuple[int, float]] = (),
        unchanged: Iterable[UnitTimes] = (),
        anchor: str = "",
    ) -> int:
        """Write one call down, durably, with what is known by then of others. Raises LeaseLost: it must not leave."""
        ...

    def answered(self, answers: Iterable[tuple[int, float]]) -> None:
        """Note when calls were answered: (id, steady time)."""
        ...

    def throttle(self, budget: str, until: float) -> None:
        """Keep until when the server wants no call."""
        ...

    def throttled_until(self, budget: str) -> float | None:
        """Until when the server wants no call; None: it has not said so."""
        ...

    def forget(self, budget: str, *, before: float) -> None:
        """Forget calls that were answered before that time."""
        ...


class PollStore(Protocol):
    """Endpoints, units and objects: what a poll is decided on, and what is recorded of it."""

    def open(self, spec: EndpointSpec, *, now: float) -> Opened:
        """The endpoint and its units, made where they are new. Where its shape has changed a new baseline begins."""
        ...

    def reopen(self, endpoint: int) -> Opened:
        """The endpoint and its units as they are kept now."""
        ...

    def known(self, endpoint: int, wanted: Sequence[Wanted]) -> list[Known]:
        """What is known of the objects of each unit, and of those that are asked for."""
        ...

    def snapshots(self, endpoint: int, ids: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots of those objects that are known."""
        ...

    def record(self, lease: Lease, recording: Recording) -> Recorded:
        """Write it, all or nothing. Raises LeaseLost, and Conflict where the endpoint has moved from its base."""
        ...

    def touch(self, times: Iterable[UnitTimes]) -> None:
        """Note which units showed just what they showed before, and when."""
        ...

    def suspects(self, endpoint: int, *, limit: int = 1000) -> list[Suspect]:
        """Objects that wait for their deletion to be confirmed, longest missing first."""
        ...

    def suspect_count(self, endpoint: int) -> int:
        """How many objects wait for their deletion to be confirmed."""
        ...

    def parents(self, endpoint: int) -> list[str]:
        """Ids of the objects that are there, in order."""
        ...

    def parent(self, source: str, endpoint: str, object_id: str) -> bytes | None:
        """The last known state of an object that is there, as JSON."""
        ...


class DeliveryStore(Protocol):
    """The steps of the way from the log to the sinks."""

    def register(self, registrations: Sequence[Registration], *, now: float) -> None:
        """Make the subscriptions known. New ones begin at their `start`; those not named are kept as removed.

        What waits until later than can be meant (the clock was wrong) is due at once.
        """
        ...

    def feeds(self, leases: Sequence[Lease]) -> list[Feed]:
        """Where the active ones of these subscriptions have room and something to read."""
        ...

    def read(self, after: int, limit: int) -> list[Event]:
        """The events after number `after`, in order."""
        ...

    def dispatch(self, lease: Lease, dispatched: Sequence[Dispatched], *, now: float) -> None:
        """Queue what matched and move the cursors. Raises Conflict if a cursor has moved meanwhile."""
        ...

    def settle(self, lease: Lease, batch: Settlement, claim: ClaimRequest | None = None) -> Settled:
        """Write what has come of claims, and take others."""
        ...


class CommandStore(Protocol):
    """What commands change in deliveries."""

    def redeliver(self, ids: Iterable[int], *, now: float) -> int:
        """Queue deliveries again and return how many; ids that do not exist are passed over."""
        ...

    def replay(self, name: str, *, after: int) -> int:
        """Deliver again what the subscription has read after number `after`; the last number of that."""
        ...

    def ping(self, name: str, notice: Notice, *, now: float) -> int:
        """Record a test event, queue it for this subscription alone, and return the delivery's id."""
        ...

    def pause(self, name: str) -> None:
        """Give a subscription nothing more until it is resumed."""
        ...

    def resume(self, name: str) -> None:
        """Give a paused, disabled or failing subscription what waits, at once."""
        ...


class NoticeStore(Protocol):
    """What the program says of itself."""

    def tell(self, notices: Sequence[Notice], *, kept: Mapping[str, bytes] | None = None) -> list[int]:
        """Append the notices to the log, each with the next version of its subject; the numbers given.

        With them is `kept`, by key, what a restart must know of them.
        """
        ...


class LearnedStore(Protocol):
    """What planners, health and others learned, by key."""

    def save(self, values: Mapping[str, bytes]) -> None:
        """Keep these values."""
        ...

    def load(self, key: str) -> bytes | None:
        """A value that was kept, or None."""
        ...


class PollingStore(Protocol):
    """What polling keeps, each part with steps of its own."""

    @property
    def calls(self) -> CallStore: ...
    @property
    def polls(self) -> PollStore: ...
    @property
    def learned(self) -> LearnedStore: ...
    @property
    def notices(self) -> NoticeStore: ...
    @property
    def leases(self) -> Leases: ...

    def rewind(self, *, now: float, by: float = 0.0) -> float:
        """Move times that a wrong clock has written, and return by how many seconds."""
        ...


class Maintenance(Protocol):
    """Forgetting the oldest events."""

    def expiring(self, before: float, *, limit: int = 2000) -> Expiring | None:
        """The oldest events from before that time (at most `limit`), and who was not given them; None if none is."""
        ...

    def purge(self, expiring: Expiring, *, before: float, notices: Sequence[Notice]) -> int:
        """Forget these events and return how many they were; `notices` report who was not given them.

        Raises Conflict if somebody was given, or not given, some of them meanwhile.
        """
        ...


class DeliverySteps(DeliveryStore, Maintenance, Protocol):
    """Every step that delivery takes."""
