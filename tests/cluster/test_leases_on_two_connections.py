"""A worker says on one connection that it lives while it takes its first leases on another."""

from __future__ import annotations

import threading
import time

import psycopg

from state.leases import Worker, WorkerState
from state.postgres.connection import transaction
from tests.support.stores import PostgresBackend

ANA = Worker("ana")


def waiting(conn: psycopg.Connection[tuple[object, ...]]) -> int:
    """How many connections to this database wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(str(row[0]))


def test_the_first_leases_of_a_worker_are_kept_while_it_reports_itself(backend: PostgresBackend) -> None:
    taking, reporting = backend.open(), backend.open()
    state = WorkerState(name=ANA, version="1", digest="", listen="")
    report = threading.Thread(target=reporting.leases.enrol, args=[state], kwargs={"ttl": 60.0})
    lock = threading.Thread(target=locked_for_a_moment, args=[backend.url])
    with psycopg.connect(backend.url, autocommit=True) as conn, transaction(taking.db):
        [lease] = taking.leases.take(ANA, ["budget/a"], most=1, ttl=60.0)
        for number, thread in enumerate([lock, report], start=1):
            thread.start()
            until = time.monotonic() + 30
            while waiting(conn) < number and time.monotonic() < until:
                conn.execute("SELECT pg_sleep(0.01)")
    for thread in (lock, report):
        thread.join(30)

    assert [(one.name, one.epoch) for one in taking.leases.renew(ANA, ttl=60.0)] == [(lease.name, lease.epoch)]


def locked_for_a_moment(url: str) -> None:
    """Whoever writes leases after this has begun to wait waits until those before have ended."""
    with psycopg.connect(url) as conn:
        conn.execute("LOCK TABLE leases IN SHARE MODE")
