"""The tables and their migrations.

They are those of SQLite, with two differences: the log's numbers come from a counter that is locked until the commit,
so that they rise in the order of commits; and times are float8 of Unix seconds by the database's own clock.

Locks are taken in one order in every step: the lease, the endpoint, units by id, objects, the subscription (which
stands for its lanes and deliveries), the log's counter last.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Final

from state.errors import Held, Outdated, StateError
from state.move import refusal
from state.place import DatabaseUrl
from state.postgres.connection import Connection, Database, transaction
from state.postgres.partitions import divide

_LOCK: Final = 0x506F6C6C6572  # of the advisory lock under which the schema is changed
MOVE_LOCK: Final = _LOCK + 1  # of the lock that a move holds until its end

FIRST: Final = """
CREATE TABLE meta (key text COLLATE "C" PRIMARY KEY, value text NOT NULL);

CREATE TABLE workers (
    name text COLLATE "C" PRIMARY KEY,
    until float8 NOT NULL,                      -- it is alive, and its leases are its own, until then
    since float8 NOT NULL,
    version text NOT NULL DEFAULT '',
    digest text NOT NULL DEFAULT '',            -- of its configuration
    listen text NOT NULL DEFAULT '',
    lacks text[] NOT NULL DEFAULT '{}'          -- leases that it cannot take
) WITH (fillfactor = 10);
CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    worker text NOT NULL,                       -- '': nobody's
    epoch bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX leases_worker ON leases (worker);

CREATE TABLE calls (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    budget text COLLATE "C" NOT NULL,
    sent_at float8 NOT NULL,
    answered_at float8
) WITH (fillfactor = 80);
CREATE INDEX calls_budget ON calls (budget, id);

CREATE TABLE learned (key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL);

CREATE TABLE log (one boolean PRIMARY KEY DEFAULT true CHECK (one), last bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO log VALUES (true, 0);
CREATE TABLE events (
    seq bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    source text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    time float8 NOT NULL,
    observed_after float8,
    data bytea NOT NULL
);
CREATE INDEX events_subject ON events (subject, seq);
CREATE INDEX events_time ON events (time);
CREATE TABLE versions (subject text COLLATE "C" PRIMARY KEY, version bigint NOT NULL);

CREATE TABLE endpoints (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    shape text NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    objects bigint NOT NULL DEFAULT 0,
    sweep bigint NOT NULL DEFAULT 1,
    sweep_began float8 NOT NULL,
    sweep_order bigint NOT NULL DEFAULT 1,
    last_sweep float8,
    last_sweep_began float8,
    steady_began float8,
    calm_began float8,
    baseline_before float8,
    tail_asked_at float8,
    since_at float8,
    held bytea,
    accepted bytea,
    uncertain bytea,
    UNIQUE (source, name)
) WITH (fillfactor = 50);
CREATE TABLE units (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint bigint NOT NULL REFERENCES endpoints (id),
    key text COLLATE "C" NOT NULL,
    position bytea NOT NULL,
    asked_at float8,
    answered_at float8,
    asked_order bigint NOT NULL DEFAULT 0,
    digest bytea,
    members bytea,
    shown bigint NOT NULL DEFAULT 0,
    validators bytea,
    next bytea,
    calls bigint NOT NULL DEFAULT 1,
    failures bigint NOT NULL DEFAULT 0,
    retry_at float8,
    error text,
    claims bytea,
    UNIQUE (endpoint, key)
) WITH (fillfactor = 70);
CREATE TABLE objects (
    endpoint bigint NOT NULL,
    object text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    body bytea NOT NULL,
    unit bigint,
    seen_at float8 NOT NULL,
    seen_sweep bigint NOT NULL DEFAULT 0,
    presence smallint NOT NULL DEFAULT 0,
    missing_at float8,
    missing_sweep bigint,
    checks bigint NOT NULL DEFAULT 0,
    unlisted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (endpoint, object)
) WITH (fillfactor = 80);
CREATE INDEX objects_loose ON objects (endpoint, presence, seen_at) WHERE unit IS NULL;

CREATE TABLE subscriptions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    state text NOT NULL,                        -- active, paused, disabled, removed
    reason text NOT NULL DEFAULT '',
    cursor bigint NOT NULL,                     -- read up to this number
    digest boolean NOT NULL DEFAULT false,      -- everything waits in one lane
    pending bigint NOT NULL DEFAULT 0,
    purged_upto bigint NOT NULL DEFAULT 0,      -- up to here the books are these sums, after it the rows
    purged_delivered bigint NOT NULL DEFAULT 0,
    purged_dead bigint NOT NULL DEFAULT 0,
    purged_not_matching bigint NOT NULL DEFAULT 0,
    dropped bigint NOT NULL DEFAULT 0,
    filter_errors bigint NOT NULL DEFAULT 0,
    filter_error text,
    failures bigint NOT NULL DEFAULT 0,
    open_until float8,
    probe_wait float8 NOT NULL DEFAULT 0,
    last_error text,
    dead_reported boolean NOT NULL DEFAULT false
) WITH (fillfactor = 20);
CREATE TABLE replays (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription bigint NOT NULL,
    cursor bigint NOT NULL,
    until bigint NOT NULL
);
CREATE TABLE deliveries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription bigint NOT NULL,
    seq bigint NOT NULL,
    origin text NOT NULL,                       -- log, replay, redelivery, ping
    lane text COLLATE "C" NOT NULL,
    state text NOT NULL,                        -- pending, delivered, dead
    attempts bigint NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    refusals bigint NOT NULL DEFAULT 0,
    digest bigint,                              -- the first delivery of the digest it left with
    queued_at float8 NOT NULL,
    due float8 NOT NULL,
    finished_at float8,
    status text                                 -- of the latest attempt
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX deliveries_log ON deliveries (subscription, seq) WHERE origin = 'log';
CREATE INDEX deliveries_seq ON deliveries (seq);
CREATE INDEX deliveries_pending ON deliveries (subscription, lane, id) WHERE state = 'pending';
CREATE INDEX deliveries_dead ON deliveries (subscription, id) WHERE state = 'dead';
CREATE TABLE lanes (
    subscription bigint NOT NULL,
    lane text COLLATE "C" NOT NULL,
    due float8 NOT NULL,
    first_seq bigint NOT NULL DEFAULT 0,        -- of lanes due at once the oldest is first
    not_before float8 NOT NULL DEFAULT 0,       -- the receiver's own word
    epoch bigint NOT NULL DEFAULT 0,            -- of the lease under which it is claimed; 0: it is free
    PRIMARY KEY (subscription, lane)
) WITH (fillfactor = 50);
CREATE INDEX lanes_due ON lanes (subscription, due, first_seq);
CREATE TABLE attempts (
    delivery bigint NOT NULL,
    number bigint NOT NULL,
    at float8 NOT NULL,
    latency float8 NOT NULL,
    status text NOT NULL,
    text text NOT NULL,
    reference text,
    PRIMARY KEY (delivery, number)
);
CREATE TABLE last_references (
    subscription bigint NOT NULL,
    lane text COLLATE "C" NOT NULL,
    reference text NOT NULL,
    at float8 NOT NULL,
    PRIMARY KEY (subscription, lane)
);
CREATE TABLE passed_over (
    subscription bigint NOT NULL,
    block bigint NOT NULL,
    bits bytea NOT NULL,
    PRIMARY KEY (subscription, block)
);

CREATE TABLE commands (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    args bytea NOT NULL,
    posted_at float8 NOT NULL,
    taken_at float8,                            -- it is being done: never done twice
    finished_at float8,
    result bytea,
    error bytea
);
CREATE INDEX commands_pending ON commands (id) WHERE taken_at IS NULL;
"""

# Each is named, applied once, and never edited: a later change is another migration. While workers of two versions run
# at the same time, the older one must find everything that it uses: a column is dropped a version after its last use.
MIGRATIONS: Final = (
    ("first", FIRST),
    ("denied", "ALTER TABLE objects ADD COLUMN denied_at float8"),
    # The log is divided into partitions once every worker that runs is of a version that sets this.
    ("partitions", "ALTER TABLE workers ADD COLUMN knows_partitions boolean NOT NULL DEFAULT false"),
    # A subscription that had no lanes when statistics were made would be expected to have none, and all of its lanes
    # would be read to find one. Without statistics each is expected to have some.
    ("lanes", "ALTER TABLE lanes ALTER COLUMN subscription SET STATISTICS 0"),
)


def migrate(db: Database) -> None:
    """Migrate the tables to this version. Raises StateError if a later version has changed them."""
    conn = db.conn
    with conn.transaction():
        conn.run("SET LOCAL lock_timeout = 0")  # whoever migrates a large state is waited for
        conn.lift_limits()
        conn.run("SELECT pg_advisory_xact_lock($1)", [_LOCK])
        if not _applied(conn):
            conn.run(
                "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
            )
        for name, statements in _missing(conn):
            conn.execute(statements)  # several at once
            conn.run("INSERT INTO migrations (name) VALUES ($1)", [name])
        conn.run("INSERT INTO meta VALUES ('log_id', $1) ON CONFLICT DO NOTHING", [secrets.token_hex(8)])
    with contextlib.suppress(Held):  # the next purge tries again
        divide(db)


def refuse_moved(db: Database) -> None:
    """Raise StateError if the state was moved elsewhere, or is being moved."""
    shown = str(DatabaseUrl(db.url))
    if error := refusal(dict(db.run("SELECT key, value FROM meta").fetchall()), shown):
        raise error
    with transaction(db) as conn:
        if not conn.value("SELECT pg_try_advisory_xact_lock_shared($1)", [MOVE_LOCK]):
            raise Held(f"{shown}: `poller migrate` uses this database", hint="wait for it")


def is_begun(db: Database) -> bool:
    """Whether the database has a state."""
    return bool(_applied(db.conn))


def check(db: Database) -> None:
    """Raise StateError if the tables are not those of this version."""
    missing = _missing(db.conn)
    if missing:
        raise Outdated(
            "the database is not a state of this version of Poller",
            hint="poller once, or poller run, brings an earlier one up to date",
        )


def _missing(conn: Connection) -> list[tuple[str, str]]:
    applied = _applied(conn)
    if unknown := applied - {name for name, _ in MIGRATIONS}:
        raise StateError(
            f"the database was written by a later version of Poller ({', '.join(sorted(unknown))})",
            hint="install that version, or restore a backup made before it",
        )
    return [(name, statements) for name, statements in MIGRATIONS if name not in applied]


def _applied(conn: Connection) -> set[str]:
    if conn.value("SELECT to_regclass('migrations')::text") is None:
        return set()
    return {name for (name,) in conn.run("SELECT name FROM migrations")}
