"""The tables of subscriptions and deliveries.

A lane is one row per subscription and object. It says when the object's oldest pending delivery is due, and under which
epoch of the subscription's lease it is claimed; claiming reads lanes only, so deliveries that queue after a retry cost
nothing. A lane exists as long as something is pending in it. Redelivered and replayed events have separate lanes and
are outside the order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from state.sqlite import not_matching as passed_over
from state.sqlite.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

delivery_migrations = Migrations("deliveries")


SUBSCRIPTIONS = """
CREATE TABLE subscriptions (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,                    -- active, paused, disabled, removed
    reason TEXT NOT NULL DEFAULT '',
    started INTEGER NOT NULL,               -- its books begin behind this number
    cursor INTEGER NOT NULL,                -- read up to this number
    digest INTEGER NOT NULL DEFAULT 0,      -- everything waits in one lane
    pending INTEGER NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 0,        -- events read since it started
    purged_upto INTEGER NOT NULL DEFAULT 0, -- up to here the books are these sums, behind it the rows
    purged_delivered INTEGER NOT NULL DEFAULT 0,
    purged_dead INTEGER NOT NULL DEFAULT 0,
    purged_not_matching INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    filter_errors INTEGER NOT NULL DEFAULT 0,
    filter_error TEXT,
    failures INTEGER NOT NULL DEFAULT 0,
    open_until REAL,
    probe_wait REAL NOT NULL DEFAULT 0,
    last_error TEXT,
    notices INTEGER NOT NULL DEFAULT 0      -- the version of its latest operational event
);
CREATE TABLE replays (
    id INTEGER PRIMARY KEY,
    subscription INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    until INTEGER NOT NULL
);
"""

DELIVERIES = """
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    origin TEXT NOT NULL,                   -- log, replay, redelivery, ping
    lane TEXT NOT NULL,
    state TEXT NOT NULL,                    -- pending, delivered, dead
    attempts INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,       -- of the retry schedule
    refusals INTEGER NOT NULL DEFAULT 0,
    digest INTEGER,                         -- the first delivery of the digest it left with
    queued_at REAL NOT NULL,
    finished_at REAL,
    status TEXT                             -- of the latest attempt
);
CREATE UNIQUE INDEX deliveries_log ON deliveries (subscription, seq) WHERE origin = 'log';
CREATE INDEX deliveries_seq ON deliveries (seq);
CREATE INDEX deliveries_pending ON deliveries (subscription, lane, id) WHERE state = 'pending';
CREATE INDEX deliveries_dead ON deliveries (subscription, id) WHERE state = 'dead';
CREATE TABLE lanes (
    subscription INTEGER NOT NULL,
    lane TEXT NOT NULL,
    due REAL NOT NULL,
    place INTEGER NOT NULL DEFAULT 0,       -- the event that it began with: of lanes due at once the oldest is first
    floor REAL NOT NULL DEFAULT 0,          -- the receiver's own word: not before
    lease_until REAL,
    PRIMARY KEY (subscription, lane)
) WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (subscription, due, place) WHERE lease_until IS NULL;
"""

ATTEMPTS = """
CREATE TABLE attempts (
    delivery INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    latency REAL NOT NULL,
    status TEXT NOT NULL,
    text TEXT NOT NULL,
    reference TEXT,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;
CREATE TABLE last_references (
    subscription INTEGER NOT NULL,
    lane TEXT NOT NULL,
    reference TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (subscription, lane)
) WITHOUT ROWID;
"""


@delivery_migrations()
def create_deliveries(db: Database) -> None:
    db.executescript(SUBSCRIPTIONS + DELIVERIES + ATTEMPTS)
    passed_over.create(db)


@delivery_migrations()
def bound_named_waits(db: Database) -> None:
    """Receivers could ask for any wait, even an endless one, which `poller deliveries` could not show."""
    latest = "(julianday('now') - 2440587.5) * 86400 + 86400"
    db.executescript(
        f"UPDATE lanes SET due = {latest} WHERE due = floor AND due > {latest};"
        f"UPDATE lanes SET floor = {latest} WHERE floor > {latest};"
        "UPDATE lanes SET due = 0 WHERE due > 1e11;"
    )


@delivery_migrations()
def name_columns(db: Database) -> None:
    """Give columns the names of the fields that are read from them."""
    db.executescript(
        "ALTER TABLE lanes RENAME COLUMN floor TO not_before;"
        "ALTER TABLE lanes RENAME COLUMN place TO first_seq;"
        "ALTER TABLE deliveries RENAME COLUMN tries TO retries;"
    )


@delivery_migrations()
def report_dead_letters(db: Database) -> None:
    db.executescript("ALTER TABLE subscriptions ADD COLUMN dead_reported INTEGER NOT NULL DEFAULT 0;")


@delivery_migrations()
def claim_lanes_by_epoch(db: Database) -> None:
    """Claim lanes under an epoch instead of until a time; a lane of an older epoch is free."""
    db.executescript(
        """
        CREATE TABLE claimed_lanes (
            subscription INTEGER NOT NULL,
            lane TEXT NOT NULL,
            due REAL NOT NULL,
            first_seq INTEGER NOT NULL DEFAULT 0,   -- of lanes due at once the oldest is first
            not_before REAL NOT NULL DEFAULT 0,     -- the receiver's own word
            epoch INTEGER NOT NULL DEFAULT 0,       -- of the lease under which it is claimed; 0: it is free
            PRIMARY KEY (subscription, lane)
        ) WITHOUT ROWID;
        INSERT INTO claimed_lanes SELECT subscription, lane, due, first_seq, not_before, 0 FROM lanes;
        DROP TABLE lanes;
        ALTER TABLE claimed_lanes RENAME TO lanes;
        CREATE INDEX lanes_due ON lanes (subscription, due, first_seq);
        ALTER TABLE deliveries ADD COLUMN due REAL NOT NULL DEFAULT 0;  -- by itself, as computed when it was queued
        UPDATE deliveries SET due = coalesce((SELECT l.due FROM lanes l WHERE l.subscription = deliveries.subscription
            AND l.lane = deliveries.lane), queued_at) WHERE state = 'pending';
        """
    )


@delivery_migrations()
def drop_what_nothing_reads(db: Database) -> None:
    for column in ("seen", "started"):
        db.executescript(f"ALTER TABLE subscriptions DROP COLUMN {column};")


@delivery_migrations()
def index_what_is_outside_the_order(db: Database) -> None:
    """Indexes deliveries outside the order, because they are counted by indexes; that of the log has all others."""
    db.executescript("CREATE INDEX deliveries_apart ON deliveries (subscription) WHERE origin != 'log';")


@delivery_migrations()
def drop_the_index_that_no_statement_uses(db: Database) -> None:
    """Drop an index that every redelivery, replay and ping had to write, and that no statement reads any more."""
    db.executescript("DROP INDEX deliveries_apart;")
