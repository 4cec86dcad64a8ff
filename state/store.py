"""The steps of the data's way. Each is one transaction: values in, values out; no callable, no clock, no connection.

Raised: StateError; Conflict (the base has changed: read and decide again); LeaseLost (another worker owns it: drop
what is held).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from state.commands import Posted, Result
from state.deliveries import (
    AttemptRow,
    ClaimRequest,
    Delivery,
    DeliveryQuery,
    Dispatched,
    Expiring,
    Feed,
    Registration,
    Settled,
    Settlement,
    SubscriptionLedger,
    SubscriptionState,
)
from state.leases import Lease, Shares, Worker, WorkerState
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
from state.records import Event, EventQuery, NewEvent
from state.status import (
    Activity,
    MeasuredDelay,
    Restored,
    Retrying,
    SeenChange,
    SeenDelay,
    UnitClaims,
    UnitProgress,
    UnitRow,
)
from state.tables import TablePage


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

    def enrol(self, worker: WorkerState, *, ttl: float) -> None:
        """Let the others see this worker for `ttl` seconds, and each `renew` that many more."""
        ...

    def leave(self, worker: Worker) -> None:
        """Let the others see at once that this worker is gone; what it still owns is free."""
        ...

    def shares(self) -> Shares:
        """Who runs on the state, and who owns what."""
        ...


class LeaseReader(Protocol):
    """Who runs on a state, to be looked at."""

    def shares(self) -> Shares:
        """Who runs on the state, and who owns what."""
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

    def anchor(self) -> str | None:
        """The clock's anchor as saved with the latest call; None where none is kept."""
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
        """Write it, all or nothing. Raises LeaseLost, and Conflict where the endpoint has moved from its base or an
        object that is recorded as a new one (`PollRecord.are_new`) is known.
        """
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

    def listed(self, endpoint: int) -> Snapshot | None:
        """An object that its list shows; None: there is none."""
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


class NameStore(Protocol):
    """Other names for what is kept, and forgetting it: while nothing is polled or delivered of it."""

    def rename_subscription(self, old: str, new: str) -> None:
        """Let what is kept of one subscription be that of another name, under which nothing was queued yet.

        Raises StateError where `old` is not known, or `new` has deliveries of its own.
        """
        ...

    def rename_source(self, old: str, new: str, *, with_budget: bool) -> None:
        """Let what is kept of one source be that of another name, under which nothing was recorded yet.

        With it goes its budget of the same name, where it has one: calls are counted on.
        Raises StateError where `old` is not known, or `new` has events of its own.
        """
        ...

    def forget_subscription(self, name: str, *, limit: int) -> bool:
        """Forget at most `limit` deliveries of a removed subscription, and with the last ones the subscription.

        Returns whether it is forgotten. Raises StateError where it is not known, or not removed.
        """
        ...

    def forget_source(self, name: str, *, limit: int, now: float) -> bool:
        """Forget the content of at most `limit` objects of a source, and with the last ones its endpoints.

        Of objects that events are about, the id and the version are kept: no event id is ever given twice.
        Returns whether it is forgotten. Raises StateError where it is not known.
        """
        ...

    def sources(self) -> list[str]:
        """Every source of which something is kept."""
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


class LogReader(Protocol):
    """The event log, to be looked at."""

    @property
    def id(self) -> str:
        """Which log this is: a number of another log means nothing here."""
        ...

    def read(
        self, *, after: int = 0, limit: int = 1000, type_glob: str | None = None, source: str | None = None
    ) -> list[Event]:
        """At most `limit` events after number `after`, in order. `source` is a source's name."""
        ...

    def find(
        self, query: EventQuery, *, limit: int, newest: bool = False, most_bytes: int | None = None
    ) -> list[Event]:
        """At most `limit` events in order, the first ones or the newest ones; fewer once they have `most_bytes`."""
        ...

    def types(self, *, limit: int = 20) -> list[str]:
        """Some of the types that are in the log."""
        ...

    def event(self, seq: int) -> Event | None:
        """The event with that number, or None (never given, or purged)."""
        ...

    def history(self, source: str, subject: str, *, limit: int = 100) -> list[Event]:
        """The latest events of one object, oldest first."""
        ...

    def first_seq(self) -> int:
        """The number of the oldest event kept; 0 when there is none."""
        ...

    def last_seq(self) -> int:
        """The highest number ever given; 0 before the first event."""
        ...

    def latest_time(self) -> float | None:
        """Of the events kept, the latest time; None when there is none."""
        ...

    def seq_at(self, time: float) -> int:
        """The number after which to read for the events recorded from `time` on."""
        ...


class EventLog(LogReader, Protocol):
    """The event log, to be written as well."""

    def append(self, events: Iterable[NewEvent]) -> list[int]:
        """Append in a transaction of its own, and return the numbers given. An id already there is not repeated."""
        ...

    def begin_anew_if_cut(self, known: int) -> int | None:
        """Where the log ends before number `known`, which was in it: give it a new id, and return its last number."""
        ...


class PollReader(Protocol):
    """Endpoints and objects, to be looked at."""

    def endpoints(self) -> list[dict[str, Any]]:
        """One row per endpoint: source, endpoint, units, objects, last_sweep, suspects, held, failing, error, ..."""
        ...

    def units(self, source: str, endpoint: str, *, limit: int = 1000) -> list[UnitProgress]:
        """The units of one endpoint: failing ones first, then in the order in which they were met."""
        ...

    def claims(self, member: str, *, limit: int = 1000) -> list[UnitClaims]:
        """The units whose claims may have this member, in the order in which they were met."""
        ...

    def object(self, source: str, endpoint: str, object_id: str) -> Snapshot | None:
        """The snapshot of one object, or None when it was never seen."""
        ...


class DeliveryReader(Protocol):
    """Subscriptions and deliveries, to be looked at."""

    def subscriptions(self) -> list[SubscriptionState]:
        """Every subscription by name, removed ones included."""
        ...

    def deliveries(
        self,
        *,
        states: Iterable[str] = (),
        subscription: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Delivery]:
        """At most `limit` deliveries, the latest first; `before` is the last id of the page before."""
        ...

    def find(self, query: DeliveryQuery, *, limit: int) -> list[Delivery]:
        """At most `limit` deliveries, the latest first."""
        ...

    def delivery(self, id_: int) -> Delivery | None:
        """One delivery, or None where there is none of that id."""
        ...

    def unknown(self, ids: Sequence[int]) -> list[int]:
        """Which of these numbers no delivery has."""
        ...

    def attempts(self, id_: int) -> list[AttemptRow]:
        """Every attempt of a delivery, or of the digest it left with, the first one first."""
        ...

    def ledger(self) -> list[SubscriptionLedger]:
        """The books of every subscription, proven from the tables."""
        ...


class StatusReader(Protocol):
    """Sums for a status."""

    def calls(self, budget: str, *, since: float) -> list[tuple[float, float | None]]:
        """(sent, answered) of the calls that a window beginning at `since` still counts; both are steady seconds."""
        ...

    def throttled_until(self, budget: str) -> float | None:
        """Until when its server wanted no call, as noted last, in steady seconds; it may be over."""
        ...

    def anchor(self) -> str | None:
        """The clock's anchor as saved with the latest call; None where none is kept."""
        ...

    def units(self) -> list[UnitRow]:
        """Every unit, in the order in which they were met."""
        ...

    def learned(self, key: str) -> bytes | None:
        """What a planner saved last under `key`."""
        ...

    def measured_delays(self, *, since: float) -> list[MeasuredDelay]:
        """Of each endpoint with events since then, within the latest 10,000 events of the log."""
        ...

    def seen_changes(self) -> list[SeenChange]:
        """Every change in the log of which it is known when it had not happened yet, in order."""
        ...

    def seen_delays(self, *, after: int, limit: int) -> list[SeenDelay]:
        """The delays of at most `limit` events of sources after a number of the log, in order."""
        ...

    def activity(self, *, since: float, width: float) -> list[Activity]:
        """Events of each endpoint by spans of `width` seconds, within the latest 10,000 events of the log."""
        ...

    def unit_activity(self, source: str, endpoint: str, *, since: float, width: float) -> list[Activity]:
        """Events of each unit of an endpoint by spans of `width` seconds, within the latest 10,000 of the log."""
        ...

    def oldest_waiting(self) -> dict[str, float]:
        """By subscription, since when the oldest event that it was not given waits: queued, or not read yet."""
        ...

    def retrying(self) -> list[Retrying]:
        """Of each subscription, the deliveries that have failed and wait for another attempt."""
        ...

    def delivery_counts(self) -> list[tuple[str, str, int]]:
        """(subscription, state, deliveries) of those that are kept."""
        ...


class TableReader(Protocol):
    """The open tables: events, changes, objects, deliveries and polls."""

    def page(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """At most `limit` rows of a table after a place. Raises PollerError for what is not a place."""
        ...


class Reader(Protocol):
    """Everything that only looks at a state, beside whoever runs on it. Every method raises StateError alone."""

    @property
    def log(self) -> LogReader: ...
    @property
    def polls(self) -> PollReader: ...
    @property
    def leases(self) -> LeaseReader: ...
    @property
    def deliveries(self) -> DeliveryReader: ...
    @property
    def sums(self) -> StatusReader: ...
    @property
    def tables(self) -> TableReader: ...

    def damage(self) -> str | None:
        """What is wrong with what is kept, reading all of it; None where it is whole, or cannot be told."""
        ...

    def restored(self) -> Restored | None:
        """From what copy this state began; None where it did not, or is a copy that nobody has used yet."""
        ...

    def close(self) -> None:
        """Give back what it has opened."""
        ...


class PostedCommands(Protocol):
    """Commands posted for whoever runs on the state, and what came of them."""

    def post(self, name: str, args: Mapping[str, Any], *, now: float) -> int:
        """Leave a command and return its id."""
        ...

    def pending(self) -> list[Posted]:
        """What waits, in the order in which it was posted."""
        ...

    def take(self, id_: int, *, now: float) -> bool:
        """Begin with a command; False when it was withdrawn or taken meanwhile."""
        ...

    def finish(self, id_: int, outcome: Result, *, now: float) -> None:
        """Write what came of it, and forget what is older than a day."""
        ...

    def result(self, id_: int) -> Result | None:
        """What came of it; None while it is not finished."""
        ...

    def withdraw(self, id_: int) -> bool:
        """Take back a command that nobody has begun with; False when somebody has."""
        ...


class AllDeliveries(DeliverySteps, CommandStore, Protocol):
    """Every step that delivery and its commands take."""


class Store(PollingStore, Protocol):
    """One open state: every step that is taken on it."""

    @property
    def log(self) -> EventLog: ...
    @property
    def deliveries(self) -> AllDeliveries: ...
    @property
    def poll_reader(self) -> PollReader: ...
    @property
    def delivery_reader(self) -> DeliveryReader: ...
    @property
    def commands(self) -> PostedCommands: ...
    @property
    def names(self) -> NameStore: ...
    @property
    def is_shared(self) -> bool:
        """Whether other workers may run on it at the same time."""
        ...

    def wall(self) -> float:
        """Unix seconds of the clock that all who run on the state go by."""
        ...

    def probe(self) -> None:
        """Write something for a trial. Raises what keeps the state from being written."""
        ...

    def close(self) -> None:
        """Give back what it has opened."""
        ...
