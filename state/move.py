"""Moving a state from one store to another: every table, row by row, resumable after a kill at any point.

Rows are copied in the order of their keys. Each batch is one transaction of the target, together with the progress of
the move, so a move that was killed continues after the last batch. When everything is copied, both sides are read again
and compared, the source is marked as moved (nothing can run on it any more), and the target is opened for use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import structs

from state.deliveries import SubscriptionLedger
from state.errors import StateError
from state.leases import CONFIGURATION

Row = tuple[Any, ...]
Key = tuple[Any, ...]

MOVING: Final = "move"  # the key in `meta` of a target that is not complete yet: a `Mark`
MOVED: Final = "moved"  # the key in `meta` of a source that was moved: a `Moved`
BACKUP: Final = "backup"  # the key in `meta` of a copy that was never used: it is a separate state
THROTTLED: Final = "throttled "  # the beginning of keys in `meta` whose values are steady times
OWN_META: Final = frozenset({MOVING, MOVED, BACKUP, "clock", "probe"})  # keys that belong to one side only
BATCH: Final = 2000  # rows in one transaction of the target
APART: Final = 5.0  # seconds by which the clocks of the two sides may differ


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One table as both stores have it. Columns are `name:kind`; a kind is int, float, text, blob, bool or steady."""

    name: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    serial: bool = False  # the key is a number that is never used twice

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(name for name, _ in self.columns)

    def key_of(self, row: Row) -> Key:
        """The key of a row."""
        names = self.names
        return tuple(row[names.index(name)] for name in self.key)


def _table(name: str, key: str, columns: str, *, serial: bool = False) -> Table:
    pairs = tuple((column, kind or "int") for column, _, kind in (text.partition(":") for text in columns.split()))
    return Table(name=name, key=tuple(key.split()), columns=pairs, serial=serial)


TABLES: Final = (
    _table("learned", "key", "key:text value:blob"),
    _table("versions", "subject", "subject:text version"),
    _table("calls", "id", "id budget:text sent_at:steady answered_at:steady", serial=True),
    _table(
        "endpoints",
        "id",
        "id source:text name:text shape:text revision objects sweep sweep_began:float sweep_order last_sweep:float "
        "last_sweep_began:float steady_began:float calm_began:float baseline_before:float tail_asked_at:float "
        "since_at:float held:blob accepted:blob uncertain:blob",
        serial=True,
    ),
    _table(
        "units",
        "id",
        "id endpoint key:text position:blob asked_at:float answered_at:float asked_order digest:blob members:blob "
        "shown validators:blob next:blob calls failures retry_at:float error:text claims:blob",
        serial=True,
    ),
    _table(
        "objects",
        "endpoint object",
        "endpoint object:text version body:blob unit seen_at:float seen_sweep presence missing_at:float missing_sweep "
        "checks unlisted:bool denied_at:float",
    ),
    _table(
        "events",
        "seq",
        "seq id:text source:text type:text subject:text time:float observed_after:float data:blob",
        serial=True,
    ),
    _table(
        "subscriptions",
        "id",
        "id name:text state:text reason:text cursor digest:bool pending purged_upto purged_delivered purged_dead "
        "purged_not_matching dropped filter_errors filter_error:text failures open_until:float probe_wait:float "
        "last_error:text dead_reported:bool",
        serial=True,
    ),
    _table("replays", "id", "id subscription cursor until", serial=True),
    _table(
        "deliveries",
        "id",
        "id subscription seq origin:text lane:text state:text attempts retries refusals digest queued_at:float "
        "due:float finished_at:float status:text",
        serial=True,
    ),
    _table("lanes", "subscription lane", "subscription lane:text due:float first_seq not_before:float epoch"),
    _table(
        "attempts",
        "delivery number",
        "delivery number at:float latency:float status:text text:text reference:text",
    ),
    _table("last_references", "subscription lane", "subscription lane:text reference:text at:float"),
    _table("passed_over", "subscription block", "subscription block bits:blob"),
    _table(
        "commands",
        "id",
        "id name:text args:blob posted_at:float taken_at:float finished_at:float result:blob error:blob",
        serial=True,
    ),
    _table("leases", "name", "name:text epoch"),  # epochs only rise; after a move every lease is free
)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a move, stored in its target."""

    id: str  # of the move
    log: str  # the id of the source's log
    fingerprint: str  # of the source when the move began: one that was used since is copied from the beginning
    shift: float  # added to steady times
    table: str = ""  # the table that was copied last ...
    after: tuple[Any, ...] = ()  # ... up to this key
    is_stale: bool = False  # the two sides were found to differ: the next attempt copies from the beginning


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """The new place of a state, stored in the one that it was moved from."""

    id: str  # of the move
    to: str
    at: float  # Unix seconds


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a move: rows by table."""

    rows: Mapping[str, int]
    books: Sequence[SubscriptionLedger]
    began_anew: bool = False  # the source was used after an earlier attempt

    @property
    def unbalanced(self) -> list[str]:
        """The subscriptions whose books do not balance, equally on both sides."""
        return [one.subscription for one in self.books if not one.balanced]


class Side(Protocol):
    """One store in a move, locked so that no other process writes to it."""

    def read(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        """At most `limit` rows after a key, in the order of their keys; fewer if they are long."""
        ...

    def write(self, table: Table, rows: Sequence[Row], mark: Mark) -> None:
        """Write rows and the progress of the move, in one transaction."""
        ...

    def count(self, table: Table) -> int:
        """The number of rows of a table."""
        ...

    def numbers(self) -> dict[str, int]:
        """The highest number ever used, by table with a serial key, as far as it is known."""
        ...

    def complete(self, numbers: Mapping[str, int], meta: Mapping[str, str]) -> None:
        """Continue after these numbers, and store the source's `meta`."""
        ...

    def meta(self) -> dict[str, str]:
        """The values that are stored by key, beside the tables."""
        ...

    def write_meta(self, key: str, value: str | None) -> None:
        """Store a value, or delete it."""
        ...

    def clear(self, mark: Mark) -> None:
        """Delete every row of every table, and begin a move."""
        ...

    def ledger(self) -> list[SubscriptionLedger]:
        """The books of every subscription."""
        ...

    def now(self) -> float:
        """Unix seconds of its clock."""
        ...


def move(
    source: Side,
    target: Side,
    *,
    id_: str,
    to: str,
    steady: float,
    batch: int = BATCH,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> Result:
    """Copy a state, compare both sides, and hand over. Raises StateError; the source stays usable until both are equal.

    `steady` is the source's current steady time; `to` is the name of the target in messages. `progress` is called with
    the table and the number of rows that were just copied.
    """
    _refuse_apart(source, target)
    fresh = Mark(
        id=id_,
        log=source.meta().get("log_id", ""),
        fingerprint=_fingerprint(source),
        shift=target.now() - steady,
    )
    _refuse_moved(source, target)
    mark, began_anew = _begin(target, fresh)
    for table, rows in _rest(source, mark, batch):
        mark = structs.replace(mark, table=table.name, after=table.key_of(rows[-1]))
        target.write(table, rows, mark)
        progress(table.name, len(rows))
    target.complete(source.numbers(), _meta(source, mark.shift))
    result = _compared(source, target, mark)
    source.write_meta(MOVED, _encoded(Moved(id=mark.id, to=to, at=source.now())))
    target.write_meta(MOVING, None)
    return structs.replace(result, began_anew=began_anew)


def refusal(meta: Mapping[str, str], place: str) -> StateError | None:
    """Why a state cannot be used, if it cannot: it was moved elsewhere, or its move here is not complete."""
    if MOVED in meta and BACKUP not in meta:
        moved = msgspec.json.decode(meta[MOVED], type=Moved)
        return StateError(
            f"{place}: this state was moved to {moved.to}",
            hint=f'set state = "{moved.to}" in poller.toml; `poller migrate` moves it back, into an empty place',
        )
    if MOVING in meta:
        return StateError(
            f"{place}: a state is being moved here, and that is not complete",
            hint="run the same `poller migrate` again: it continues",
        )
    return None


def mark_of(meta: Mapping[str, str]) -> Mark | None:
    """The progress of a move into this store; None if there is none."""
    return msgspec.json.decode(meta[MOVING], type=Mark) if MOVING in meta else None


def encoded_mark(mark: Mark) -> str:
    """A mark in its stored form."""
    return _encoded(mark)


def _encoded(value: Mark | Moved) -> str:
    return msgspec.json.encode(value).decode()


def _refuse_apart(source: Side, target: Side) -> None:
    apart = target.now() - source.now()
    if abs(apart) > APART:
        way = "ahead of" if apart > 0 else "behind"
        raise StateError(
            f"the clock of the target is {abs(apart):.0f} s {way} that of the source: what is due would be due at "
            "another time",
            hint="set both clocks (NTP), then move",
        )


def _begin(target: Side, fresh: Mark) -> tuple[Mark, bool]:
    """Where to continue, and whether an earlier attempt was discarded. Raises StateError if the target is in use."""
    meta = target.meta()
    known = mark_of(meta)
    if known is None:
        used = [table.name for table in TABLES if target.count(table)]
        if used:
            raise StateError(
                f"the target is not empty: it has rows in {', '.join(used)}",
                hint="name a new file or an empty database",
            )
        target.clear(fresh)
        return fresh, False
    if known.log != fresh.log:
        raise StateError(
            f"the target holds an unfinished move of another state (log {known.log})",
            hint="finish that one, or name a new file or an empty database",
        )
    if known.is_stale or known.fingerprint != fresh.fingerprint:
        target.clear(fresh)
        return fresh, True
    return known, False


def _refuse_moved(source: Side, target: Side) -> None:
    """Raise StateError for a source that is moved already, unless this very move was killed before its last step."""
    meta, mark = source.meta(), mark_of(target.meta())
    moved = msgspec.json.decode(meta[MOVED], type=Moved) if MOVED in meta else None
    if (moved is None or mark is None or mark.id != moved.id) and (error := refusal(meta, "the source")):
        raise error


def _rest(source: Side, mark: Mark, batch: int) -> Iterator[tuple[Table, list[Row]]]:
    """The rows that are still to be copied, batch by batch."""
    names = [table.name for table in TABLES]
    first = names.index(mark.table) if mark.table else 0
    for table in TABLES[first:]:
        after = tuple(mark.after) if table.name == mark.table else None
        for rows in _batches(source, table, after, batch):
            yield table, [_moved(table, row, mark.shift) for row in rows]


def _batches(side: Side, table: Table, after: Key | None, batch: int) -> Iterator[list[Row]]:
    while rows := side.read(table, after, batch):
        yield rows
        after = table.key_of(rows[-1])


def _moved(table: Table, row: Row, shift: float) -> Row:
    """A row for the target: steady times are shifted, and texts have no NUL, which PostgreSQL cannot store."""
    return tuple(_value(value, kind, shift) for value, (_, kind) in zip(row, table.columns, strict=True))


def _value(value: Any, kind: str, shift: float) -> Any:
    if value is None:
        return None
    if kind == "steady":
        return value + shift
    return value.replace("\0", "\ufffd") if kind == "text" else value


def _meta(source: Side, shift: float) -> dict[str, str]:
    return {
        key: repr(float(value) + shift) if key.startswith(THROTTLED) else value
        for key, value in source.meta().items()
        if key not in OWN_META and not key.startswith(CONFIGURATION)
    }


def _fingerprint(side: Side) -> str:
    """A digest that changes whenever the state is used, because leases are then taken under higher epochs."""
    parts: list[Any] = [side.count(table) for table in TABLES]
    leases = next(table for table in TABLES if table.name == "leases")
    epochs = [row[1] for rows in _batches(side, leases, None, BATCH) for row in rows]
    return _digest([*parts, sum(epochs), sorted(side.numbers().items())])


def _digest(value: Any) -> str:
    return hashlib.blake2b(msgspec.msgpack.encode(value), digest_size=16).hexdigest()


class _Sum(msgspec.Struct):
    """Count and digest of the rows of a table, in the order of their keys."""

    rows: int = 0
    digest: Any = msgspec.field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, row: Row) -> None:
        self.rows += 1
        self.digest.update(msgspec.msgpack.encode(row))


def _summed(side: Side, table: Table, shift: float) -> tuple[int, bytes]:
    total = _Sum()
    for rows in _batches(side, table, None, BATCH):
        for row in rows:
            total.add(_moved(table, row, shift))
    return total.rows, total.digest.digest()


def _compared(source: Side, target: Side, mark: Mark) -> Result:
    """Read every row and the books of both sides again. Raises StateError if anything differs."""
    counts: dict[str, int] = {}
    for table in TABLES:
        counts[table.name], digest = _summed(source, table, mark.shift)
        copied = _summed(target, table, 0.0)
        if (counts[table.name], digest) != copied or target.count(table) != counts[table.name]:
            what = f"{copied[0]} of {counts[table.name]} rows" if copied[0] != counts[table.name] else "another content"
            raise _differs(target, mark, f"{table.name} has {what} after the copy")
    books = source.ledger()
    if books != target.ledger():
        raise _differs(target, mark, "the books of the two sides differ")
    if _fingerprint(source) != mark.fingerprint:
        raise _differs(target, mark, "the source was used while it was copied")
    return Result(rows=counts, books=books)


def _differs(target: Side, mark: Mark, what: str) -> StateError:
    target.write_meta(MOVING, _encoded(structs.replace(mark, is_stale=True)))
    return StateError(what, hint="stop whatever uses either side, and run the same command again: it begins anew")
