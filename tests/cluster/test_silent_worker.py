"""A worker that was stopped within a transaction holds no locks: the database ends the transaction."""

from __future__ import annotations

import time

import psycopg
import pytest

from state.postgres.connection import SETTINGS, connect, transaction
from state.postgres.store import Store
from tests.support.loopback import free_port
from tests.support.postgres import running_server
from tests.support.stores import PostgresBackend


def test_a_worker_that_is_silent_within_a_step_holds_no_lock_for_long(backend: PostgresBackend) -> None:
    store = Store.open(backend.url.partition("?")[0])  # with the time limit that workers have

    def silent() -> None:
        with transaction(store.db) as conn:
            conn.run("SELECT last FROM log FOR UPDATE")
            conn.value("SELECT 1")
            with psycopg.connect(backend.url) as other:
                other.execute("SET lock_timeout = '20s'")
                began = time.monotonic()
                other.execute("SELECT last FROM log FOR UPDATE")
                waited.append(time.monotonic() - began)

    waited: list[float] = []
    with pytest.raises(psycopg.Error) as raised:
        silent()
    assert waited, raised.value
    assert 1.0 < waited[0] < 15.0
    store.close()


@pytest.mark.slow
def test_a_worker_that_was_stopped_while_it_received_a_long_answer_holds_no_lock_for_good() -> None:
    """The server is sending, so neither the time limit of statements nor that of idle transactions applies."""
    assert 2000 <= int(SETTINGS["tcp_user_timeout"]) < 10_000
    with running_server(port=free_port()) as server:
        url = server.database()
        Store.open(url).close()
        conn = connect(f"{url}?options=-c%20tcp_user_timeout%3D500")
        with psycopg.connect(url, autocommit=True) as other:
            conn.execute("BEGIN")
            conn.execute("SELECT last FROM log FOR UPDATE")
            conn.pgconn.send_query(b"SELECT repeat('x', 1000000) FROM generate_series(1, 60)")
            other.execute("SET lock_timeout = '30s'")
            other.execute("SELECT last FROM log FOR UPDATE")
        conn.close()
