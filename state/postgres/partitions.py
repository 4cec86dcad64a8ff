"""The log in partitions, so that retention drops old events together instead of deleting row by row.

`events` and finished deliveries are divided by numbers of the log, `attempts` by ids of deliveries. Pending deliveries
are in a separate table, so that a claim reads one table, however many partitions there are.

The last partition of each has no upper end: every row has a place, also if nobody has prepared another partition. An
event's id is unique within its partition. In the whole log it is unique because it contains the version of its object,
which the same transaction counts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import msgspec
import psycopg

from state.errors import Held
from state.postgres.connection import NOW, Connection, Database, transaction
from state.postgres.events import lock_log

DAY: Final = 86_400.0  # seconds
PARTS: Final = 14  # partitions that a retention is divided into, unless they would be shorter than a day
LEAST: Final = 100_000  # numbers in a partition, at least
MOST: Final = 100_000_000
LONGEST_WAIT: Final = "500ms"  # for the locks of a change of partitions, while which all others wait
LOCK: Final = 0x506F6C6C6572 + 2  # of the advisory lock under which partitions are changed

# The statements that create a partition which has no upper end yet; `{lower}` is its first number.
_EVENTS: Final = """
CREATE TABLE {name} PARTITION OF events FOR VALUES FROM ({lower}) TO (MAXVALUE);
ALTER TABLE {name} ADD PRIMARY KEY (seq), ADD UNIQUE (id);
CREATE INDEX ON {name} (subject, seq);
CREATE INDEX ON {name} (time);
"""
_FINISHED: Final = """
CREATE TABLE {name} PARTITION OF finished_deliveries FOR VALUES FROM ({lower}) TO (MAXVALUE);
ALTER TABLE {name} ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON {name} (subscription, seq) WHERE origin = 'log';
CREATE INDEX ON {name} (seq);
CREATE INDEX ON {name} (subscription, id) WHERE state = 'dead';
"""
_ATTEMPTS: Final = """
CREATE TABLE {name} PARTITION OF attempts FOR VALUES FROM ({lower}) TO (MAXVALUE);
ALTER TABLE {name} ADD PRIMARY KEY (delivery, number);
"""
FAMILIES: Final = {"events": _EVENTS, "finished_deliveries": _FINISHED, "attempts": _ATTEMPTS}

# Makes the present tables the first partitions. Only the deliveries are read: their pending rows are moved.
_DIVIDE: Final = """
ALTER TABLE events RENAME TO events_0;
CREATE TABLE events (LIKE events_0) PARTITION BY RANGE (seq);
ALTER TABLE events ATTACH PARTITION events_0 FOR VALUES FROM (MINVALUE) TO (MAXVALUE);

ALTER TABLE deliveries RENAME TO finished_deliveries_0;
CREATE TABLE deliveries (LIKE finished_deliveries_0 INCLUDING DEFAULTS) PARTITION BY LIST (state);
CREATE SEQUENCE deliveries_number OWNED BY deliveries.id;
SELECT setval('deliveries_number', pg_sequence_last_value(pg_get_serial_sequence('finished_deliveries_0', 'id')));
ALTER TABLE deliveries ALTER COLUMN id SET DEFAULT nextval('deliveries_number');
ALTER TABLE finished_deliveries_0 ALTER COLUMN id DROP IDENTITY;
DROP INDEX deliveries_pending;
CREATE TABLE pending_deliveries (LIKE finished_deliveries_0 INCLUDING DEFAULTS) WITH (fillfactor = 80);
WITH moved AS (DELETE FROM finished_deliveries_0 WHERE state = 'pending' RETURNING *)
INSERT INTO pending_deliveries SELECT * FROM moved;
ALTER TABLE pending_deliveries ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON pending_deliveries (subscription, seq) WHERE origin = 'log';
CREATE INDEX ON pending_deliveries (seq);
CREATE INDEX ON pending_deliveries (subscription, lane, id);
ALTER TABLE deliveries ATTACH PARTITION pending_deliveries FOR VALUES IN ('pending');
CREATE TABLE finished_deliveries PARTITION OF deliveries FOR VALUES IN ('delivered', 'dead') PARTITION BY RANGE (seq);
ALTER TABLE finished_deliveries ATTACH PARTITION finished_deliveries_0 FOR VALUES FROM (MINVALUE) TO (MAXVALUE);

ALTER TABLE attempts RENAME TO attempts_0;
CREATE TABLE attempts (LIKE attempts_0) PARTITION BY RANGE (delivery);
ALTER TABLE attempts ATTACH PARTITION attempts_0 FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
"""
_BOUNDS: Final = re.compile(r"FROM \('?(MINVALUE|-?\d+)'?\) TO \('?(MAXVALUE|-?\d+)'?\)")


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """One partition: its numbers from `lower` on, up to but without `upper`."""

    name: str
    lower: int | None  # None: there is none before it
    upper: int | None  # None: it has no end yet


def is_divided(db: Database | Connection) -> bool:
    """Whether the log is in partitions."""
    return bool(db.value("SELECT relkind = 'p' FROM pg_class WHERE oid = 'events'::regclass"))


def divide(db: Database) -> bool:
    """Divide the tables of an earlier version, unless a worker of it still runs; returns whether they are divided.

    Raises Held if other transactions use the tables for too long.
    """
    if is_divided(db):
        return True
    with _change(db) as conn:
        if not is_divided(conn) and not _earlier_workers(conn):
            lock_subscriptions(conn)
            _lock_tables(conn, "events, deliveries, attempts")
            conn.execute(_DIVIDE)
        return is_divided(conn)


def _earlier_workers(conn: Connection) -> bool:
    return bool(conn.value(f"SELECT EXISTS (SELECT 1 FROM workers WHERE until > {NOW} AND NOT knows_partitions)"))


def extend(db: Database, before: float) -> None:
    """Begin the next partition of each table whose last one is half full, for a retention that begins at `before`.

    Raises Held if other transactions use the tables for too long.
    """
    if not divide(db) or not _due(db, before):
        return
    with _change(db) as conn:
        lock_subscriptions(conn)
        _lock_tables(conn)
        for family, upper in _due(conn, before).items():  # another worker may have been faster
            cut(conn, family, upper)


def cut(conn: Connection, family: str, upper: int) -> None:
    """Let the last partition end before number `upper`, and begin another one there, in the caller's transaction."""
    last = partitions(conn, family)[-1]
    lower = "MINVALUE" if last.lower is None else last.lower
    conn.execute(f"ALTER TABLE {family} DETACH PARTITION {last.name}".encode())
    bounds = f"FOR VALUES FROM ({lower}) TO ({upper:d})"
    conn.execute(f"ALTER TABLE {family} ATTACH PARTITION {last.name} {bounds}".encode())
    conn.execute(FAMILIES[family].format(name=f"{family}_{upper:d}", lower=upper).encode())


def reset(conn: Connection) -> None:
    """Make one partition of each table, for an empty log that begins again with its first number."""
    if is_divided(conn):
        for family, statements in FAMILIES.items():
            names = [one.name for one in partitions(conn, family)]
            conn.run(f"DROP TABLE {', '.join(names)}")
            conn.execute(statements.format(name=f"{family}_0", lower="MINVALUE").encode())


def _due(db: Database | Connection, before: float) -> dict[str, int]:
    """For each table whose last partition will be needed soon: the first number of the one after it."""
    last, since, delivery = _latest(db, before)
    size = min(max(last - since, LEAST), MOST)
    deliveries = min(max(size * delivery // max(last, 1), LEAST), MOST)  # as many for each event as until now
    wanted = {"events": (last, size), "finished_deliveries": (last, size), "attempts": (delivery, deliveries)}
    due = {}
    for family, (number, count) in wanted.items():
        lower = partitions(db, family)[-1].lower
        if lower is None or number + count // 2 >= lower:
            due[family] = max(lower or 0, number + 1) + count
    return due


def _latest(db: Database | Connection, before: float) -> tuple[int, int, int]:
    """The latest number of the log, the one of a partition's time ago, and the latest id of a delivery."""
    row = db.row(
        f"SELECT last, coalesce((SELECT seq FROM events WHERE time >= {NOW} - greatest($1, ({NOW} - $2::float8) / $3) "
        "ORDER BY time LIMIT 1), last) FROM log",
        [DAY, before, PARTS],
    )
    assert row is not None
    return row[0], row[1], _given(db)


def _given(db: Database | Connection) -> int:
    """The latest id that a delivery was given; 0 if there was none."""
    return int(db.value("SELECT coalesce(pg_sequence_last_value('deliveries_number'), 0)"))


def patience(conn: Connection, before: float) -> float:
    """For how many seconds an event may be kept longer than a retention that begins at `before`."""
    retention = float(conn.value(f"SELECT {NOW}")) - before
    return max(DAY, retention / PARTS) if retention >= DAY else 0.0


def oldest(conn: Connection) -> Partition | None:
    """The first partition of the log, if nothing more is written into it."""
    if not is_divided(conn):
        return None
    first = partitions(conn, "events")[0]
    is_over = first.upper is not None and first.upper <= conn.value("SELECT last FROM log") + 1
    return first if is_over else None


def has_whole(conn: Connection, upto: int) -> bool:
    """Whether a whole partition ends before or with number `upto`."""
    return is_divided(conn) and bool(_ended(conn, "events", upto) or _ended(conn, "finished_deliveries", upto))


def drop(conn: Connection, upto: int) -> None:
    """Drop every partition that ends before or with number `upto`, in the caller's transaction.

    The caller has locked the subscriptions, and no pending delivery has a number up to there. Attempts are dropped when
    no delivery is left that they may be of.
    """
    conn.run(f"SET LOCAL lock_timeout = '{LONGEST_WAIT}'")
    _lock_tables(conn)
    for family in ("events", "finished_deliveries"):
        for one in _ended(conn, family, upto):
            conn.run(f"DROP TABLE {one.name}")
    given = _given(conn)
    for one in partitions(conn, "attempts"):
        if one.upper is None or one.upper > given + 1 or _has_deliveries(conn, one.upper):
            break
        conn.run(f"DROP TABLE {one.name}")


def _has_deliveries(conn: Connection, before: int) -> bool:
    return bool(conn.value("SELECT EXISTS (SELECT 1 FROM deliveries WHERE id < $1)", [before]))


def _ended(conn: Connection, family: str, upto: int) -> list[Partition]:
    return [one for one in partitions(conn, family) if one.upper is not None and one.upper <= upto + 1]


def partitions(db: Database | Connection, family: str) -> list[Partition]:
    """The partitions of a table, the first one first."""
    rows = db.run(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = $1::text::regclass",
        [family],
    )
    found = [_partition(name, bounds) for name, bounds in rows if bounds is not None]  # else it was dropped meanwhile
    return sorted(found, key=lambda one: (one.lower is not None, one.lower))


def _partition(name: str, bounds: str) -> Partition:
    match = _BOUNDS.search(bounds)
    assert match is not None, bounds
    lower, upper = match.groups()
    return Partition(
        name=name,
        lower=None if lower == "MINVALUE" else int(lower),
        upper=None if upper == "MAXVALUE" else int(upper),
    )


def wait_for_others(conn: Connection) -> None:
    """Wait until no other worker purges or changes partitions; until the commit none does.

    A purge reads tables before it locks subscriptions: two of them would wait for each other.
    """
    conn.run("SELECT pg_advisory_xact_lock($1)", [LOCK])


def lock_subscriptions(conn: Connection) -> None:
    """Lock every subscription, as steps do before they use their deliveries."""
    conn.run("SELECT id FROM subscriptions ORDER BY id FOR NO KEY UPDATE")


def _lock_tables(conn: Connection, tables: str = "ONLY events, ONLY finished_deliveries, ONLY attempts") -> None:
    """Lock the tables and then the log's counter: whoever locks the counter has locked the table of events before."""
    conn.run(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
    lock_log(conn)


@contextlib.contextmanager
def _change(db: Database) -> Iterator[Connection]:
    """One transaction that changes partitions. Raises Held if it would have to wait."""
    with held_if_busy(), transaction(db) as conn:
        conn.run(f"SET LOCAL lock_timeout = '{LONGEST_WAIT}'")
        conn.lift_limits()  # a partition that gets an end is read
        wait_for_others(conn)
        yield conn


@contextlib.contextmanager
def held_if_busy() -> Iterator[None]:
    """Raise Held, rather than an outage, if a lock is not obtained in time."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise Held("another transaction uses the log for long", hint="pg_stat_activity shows which") from error
