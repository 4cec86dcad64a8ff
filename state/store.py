"""Protocols of a store: its steps, and its readers. Each step is one transaction that takes and returns values: no
callable, no clock, no connection.

Steps raise StateError; Conflict if the base has changed (read and decide again); LeaseLost if another worker owns the
budget or subscription (drop everything held of it).
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
    """Leases: which worker owns which budget or subscription. Times are those of the store."""

    def take(self, worker: Worker, wanted: Sequence[str], *, most: int, ttl: float) -> list[Lease]:
        """Take at most `most` of the wanted leases: free or expired ones, and own ones from before a restart."""
        ...

    def renew(self, worker: Worker, *, ttl: float) -> list[Lease]:
        """Renew every lease that this worker still holds for another `ttl` seconds, and return them."""
        ...

    def give_up(self, leases: Sequence[Lease]) -> None:
        """Let other workers take these leases at once. A lease that another worker has taken remains theirs."""
        ...

    def enrol(self, worker: WorkerState, *, ttl: float) -> None:
        """Make this worker visible to the others for `ttl` seconds; each `renew` extends that."""
        ...

    def leave(self, worker: Worker) -> None:
        """Show the other workers at once that this worker is gone; everything that it still owns is free."""
        ...

    def shares(self) -> Shares:
        """The workers of the state, and what each owns."""
        ...


class LeaseReader(Protocol):
    """Reads the workers of a state."""

    def shares(self) -> Shares:
        """The workers of the state, and what each owns."""
        ...


class CallStore(Protocol):
    """The calls of budgets. Times are steady seconds."""

    def restore(self, budget: str, *, since: float, now: float) -> Sequence[tuple[float, float]]:
        """(sent, answered) of the calls answered after `since`; calls that a crash left unanswered count from `now`."""
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
        """Write one call down durably, with the answers and unchanged units so far.

        Raises LeaseLost: then the call must not be sent.
        """
        ...

    def answered(self, answers: Iterable[tuple[int, float]]) -> None:
        """Note when calls were answered: (id, steady time)."""
        ...

    def throttle(self, budget: str, until: float) -> None:
        """Store until when the server wants no call."""
        ...

    def throttled_until(self, budget: str) -> float | None:
        """The stored end of the server's pause; None if it has asked for none."""
        ...

    def forget(self, budget: str, *, before: float) -> None:
        """Delete calls that were answered before that time."""
        ...

    def anchor(self) -> str | None:
        """The clock's anchor as saved with the latest call; None if none is stored."""
        ...


class PollStore(Protocol):
    """Endpoints, units and objects: what the decision on a poll needs, and what is recorded of the poll."""

    def open(self, spec: EndpointSpec, *, now: float) -> Opened:
        """The endpoint and its units, created if they are new. If its shape has changed, a new baseline begins."""
        ...

    def reopen(self, endpoint: int) -> Opened:
        """The endpoint and its units as currently stored."""
        ...

    def known(self, endpoint: int, wanted: Sequence[Wanted]) -> list[Known]:
        """What is known of the objects of each unit, and of the requested objects."""
        ...

    def snapshots(self, endpoint: int, ids: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots of these objects, as far as they exist."""
        ...

    def record(self, lease: Lease, recording: Recording) -> Recorded:
        """Write a recording, all or nothing.

        Raises LeaseLost, and Conflict if the endpoint has changed since `recording.base` or an object that is recorded
        as new (`PollRecord.are_new`) is known.
        """
        ...

    def touch(self, times: Iterable[UnitTimes]) -> None:
        """Record which units showed exactly what they showed before, and when."""
        ...

    def suspects(self, endpoint: int, *, limit: int = 1000) -> list[Suspect]:
        """Objects whose deletion is to be confirmed, longest missing first."""
        ...

    def suspect_count(self, endpoint: int) -> int:
        """The number of objects whose deletion is to be confirmed."""
        ...

    def listed(self, endpoint: int) -> Snapshot | None:
        """An object that its list shows; None if there is none."""
        ...

    def parents(self, endpoint: int) -> list[str]:
        """The ids of the objects that exist, in order."""
        ...

    def parent(self, source: str, endpoint: str, object_id: str) -> bytes | None:
        """The last known state of an existing object, as JSON."""
        ...


class DeliveryStore(Protocol):
    """The steps of deliveries, from the log to the sinks."""

    def register(self, registrations: Sequence[Registration], *, now: float) -> None:
        """Register the subscriptions. New ones begin at their `start`; those not named are kept as removed.

        Deliveries due later than is possible, because the clock was wrong, become due at once.
        """
        ...

    def feeds(self, leases: Sequence[Lease], *, now: float) -> list[Feed]:
        """The positions from which active ones of these subscriptions can read on, if they have room."""
        ...

    def read(self, after: int, limit: int) -> list[Event]:
        """The events after number `after`, in order."""
        ...

    def dispatch(self, lease: Lease, dispatched: Sequence[Dispatched], *, now: float) -> None:
        """Queue what matched and move the cursors. Raises Conflict if a cursor has moved meanwhile."""
        ...

    def settle(self, lease: Lease, batch: Settlement, claim: ClaimRequest | None = None) -> Settled:
        """Write the results of claims, and claim others."""
        ...


class CommandStore(Protocol):
    """The steps that commands take on deliveries."""

    def redeliver(self, ids: Iterable[int], *, now: float) -> int:
        """Queue deliveries again and return how many; unknown ids are skipped."""
        ...

    def replay(self, name: str, *, after: int) -> int:
        """Deliver again what the subscription has read after number `after`; returns the last of these numbers."""
        ...

    def ping(self, name: str, notice: Notice, *, now: float) -> int:
        """Record a test event, queue it for this subscription only, and return the delivery's id."""
        ...

    def pause(self, name: str) -> None:
        """Stop delivering to a subscription until it is resumed."""
        ...

    def resume(self, name: str) -> None:
        """Deliver at once what waits for a paused, disabled or failing subscription."""
        ...


class NoticeStore(Protocol):
    """Notices: what the program reports about itself."""

    def tell(self, notices: Sequence[Notice], *, kept: Mapping[str, bytes] | None = None) -> list[int]:
        """Append the notices to the log, each with the next version of its subject, and return their numbers.

        `kept` is stored with them, by key: what a restart must know about them.
        """
        ...


class NameStore(Protocol):
    """Renames and deletes stored data of subscriptions and sources while they are neither polled nor delivered."""

    def rename_subscription(self, old: str, new: str) -> None:
        """Rename a subscription with its stored data; nothing may have been queued under the new name yet.

        Raises StateError if `old` is not known, or `new` has deliveries of its own.
        """
        ...

    def rename_source(self, old: str, new: str, *, with_budget: bool) -> None:
        """Rename a source with its stored data; nothing may have been recorded under the new name yet.

        A budget of the same name is renamed too, with the calls that it counts.
        Raises StateError if `old` is not known, or `new` has events of its own.
        """
        ...

    def forget_subscription(self, name: str, *, limit: int) -> bool:
        """Delete at most `limit` deliveries of a removed subscription, and with the last ones the subscription.

        Returns whether the subscription is deleted. Raises StateError if it is not known, or not removed.
        """
        ...

    def forget_source(self, name: str, *, limit: int, now: float) -> bool:
        """Delete the content of at most `limit` objects of a source, and with the last ones its endpoints.

        The ids and versions of objects with events are kept, so that no event id is ever used twice.
        Returns whether the source is deleted. Raises StateError if it is not known.
        """
        ...

    def sources(self) -> list[str]:
        """Every source that has stored data."""
        ...


class LearnedStore(Protocol):
    """Values that planners, health and others have learned, by key."""

    def save(self, values: Mapping[str, bytes]) -> None:
        """Store these values."""
        ...

    def load(self, key: str) -> bytes | None:
        """The value stored under `key`, or None."""
        ...

    def load_all(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values stored under these keys, as far as there are any."""
        ...


class PollingStore(Protocol):
    """What polling stores, each part with its own steps."""

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
    """Deletion of the oldest events."""

    def prepare(self, before: float) -> None:
        """Prepare the tables for a log whose events before that time are deleted.

        Raises Held if another transaction uses the log for long: the next purge tries again.
        """
        ...

    def expiring(self, upto: int, *, before: float, limit: int = 2000) -> Expiring | None:
        """The oldest events (at most `limit`) up to number `upto` of the log, and which subscriptions did not get them;
        None if there are none. Those of `before` that time need not wait until more can be deleted together."""
        ...

    def purge(self, expiring: Expiring, *, before: float, notices: Sequence[Notice]) -> int:
        """Delete these events and return how many; `notices` report undelivered ones.

        Raises Conflict if deliveries of them changed meanwhile, and Held if another transaction uses the log for long.
        """
        ...


class DeliverySteps(DeliveryStore, Maintenance, Protocol):
    """Every step that delivery takes."""


class LogReader(Protocol):
    """Reads the event log."""

    @property
    def id(self) -> str:
        """The id of this log: a number of another log means nothing here."""
        ...

    def read(
        self, *, after: int = 0, limit: int = 1000, type_glob: str | None = None, source: str | None = None
    ) -> list[Event]:
        """At most `limit` events after number `after`, in order. `source` is a source's name."""
        ...

    def find(
        self, query: EventQuery, *, limit: int, newest: bool = False, most_bytes: int | None = None
    ) -> list[Event]:
        """At most `limit` events in order, the first ones or the newest ones; fewer if they reach `most_bytes`."""
        ...

    def types(self, *, limit: int = 20) -> list[str]:
        """Some of the types in the log."""
        ...

    def event(self, seq: int) -> Event | None:
        """The event with that number, or None (never assigned, or purged)."""
        ...

    def history(self, source: str, subject: str, *, limit: int = 100) -> list[Event]:
        """The latest events of one object, oldest first."""
        ...

    def first_seq(self) -> int:
        """The number of the oldest stored event; 0 if there is none."""
        ...

    def last_seq(self) -> int:
        """The highest number ever assigned; 0 before the first event."""
        ...

    def newest_time(self) -> float | None:
        """The time of the newest event, whatever later time an older one has; None if there are none."""
        ...

    def seq_at(self, time: float) -> int:
        """The number after which to read for the events recorded from `time` on."""
        ...


class EventLog(LogReader, Protocol):
    """Reads and writes the event log."""

    def append(self, events: Iterable[NewEvent]) -> list[int]:
        """Append in a separate transaction, and return the numbers. An id that exists already is not repeated."""
        ...

    def begin_anew_if_cut(self, known: int) -> int | None:
        """Give the log a new id if it ends before number `known`, which was in it, and return its last number."""
        ...


class PollReader(Protocol):
    """Reads endpoints and objects."""

    def endpoints(self) -> list[dict[str, Any]]:
        """One row per endpoint: source, endpoint, units, objects, last_sweep, suspects, held, failing, error, ..."""
        ...

    def units(self, source: str, endpoint: str, *, limit: int = 1000) -> list[UnitProgress]:
        """The units of one endpoint: failing ones first, then in the order in which they were created."""
        ...

    def claims(self, member: str, *, limit: int = 1000) -> list[UnitClaims]:
        """The units whose claims may have this member, in the order in which they were created."""
        ...

    def object(self, source: str, endpoint: str, object_id: str) -> Snapshot | None:
        """The snapshot of one object, or None if it was never seen."""
        ...


class DeliveryReader(Protocol):
    """Reads subscriptions and deliveries."""

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
        """The delivery with this id, or None."""
        ...

    def unknown(self, ids: Sequence[int]) -> list[int]:
        """Those of the numbers that no delivery has."""
        ...

    def attempts(self, id_: int) -> list[AttemptRow]:
        """Every attempt of a delivery, or of the digest that it was sent with, the first one first."""
        ...

    def ledger(self) -> list[SubscriptionLedger]:
        """The books of every subscription, computed from the tables."""
        ...


class StatusReader(Protocol):
    """Reads the figures of a status."""

    def calls(self, budget: str, *, since: float) -> list[tuple[float, float | None]]:
        """(sent, answered) of the calls that a window beginning at `since` still counts; both are steady seconds."""
        ...

    def throttled_until(self, budget: str) -> float | None:
        """The stored end of the server's pause, in steady seconds; it may be over."""
        ...

    def anchor(self) -> str | None:
        """The clock's anchor as saved with the latest call; None if none is stored."""
        ...

    def units(self) -> list[UnitRow]:
        """Every unit, in the order in which they were created."""
        ...

    def learned(self, key: str) -> bytes | None:
        """The value that a planner last saved under `key`."""
        ...

    def measured_delays(self, *, since: float) -> list[MeasuredDelay]:
        """Measured delays of each endpoint with events since then, among the latest 10,000 events of the log."""
        ...

    def seen_changes(self) -> list[SeenChange]:
        """Every change in the log with a known `observed_after`, in order."""
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
        """By subscription, since when the oldest undelivered event waits, whether queued or not read yet."""
        ...

    def retrying(self) -> list[Retrying]:
        """Of each subscription, the deliveries that have failed and wait for another attempt."""
        ...


class TableReader(Protocol):
    """The open tables: events, changes, objects, deliveries and polls."""

    def page(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """At most `limit` rows of a table after a position. Raises PollerError for an invalid position."""
        ...


class Reader(Protocol):
    """Everything that only reads a state, also beside a daemon or workers. Every method raises only StateError."""

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
        """What is wrong with the stored data, which is read completely; None if it is intact, or cannot be checked."""
        ...

    def restored(self) -> Restored | None:
        """The copy from which this state began; None if it began from none, or is a copy that was never used."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


class PostedCommands(Protocol):
    """Commands posted for the daemon or workers of the state, and their results."""

    def post(self, name: str, args: Mapping[str, Any], *, now: float) -> int:
        """Post a command and return its id."""
        ...

    def pending(self) -> list[Posted]:
        """The waiting commands, in order of posting."""
        ...

    def take(self, id_: int, *, now: float) -> bool:
        """Take a command; False if it was withdrawn or taken meanwhile."""
        ...

    def finish(self, id_: int, outcome: Result, *, now: float) -> None:
        """Write its result, and delete commands older than a day."""
        ...

    def result(self, id_: int) -> Result | None:
        """Its result; None while it is not finished."""
        ...

    def withdraw(self, id_: int) -> bool:
        """Withdraw a command that was not taken yet; False if it was."""
        ...


class AllDeliveries(DeliverySteps, CommandStore, Protocol):
    """Every step that delivery and its commands take."""


class Store(PollingStore, Protocol):
    """One open state, with all of its steps."""

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
        """Unix seconds of the clock that all workers of the state use."""
        ...

    def probe(self) -> None:
        """Write something, and delete it again. Raises the error that prevents writing the state."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...
