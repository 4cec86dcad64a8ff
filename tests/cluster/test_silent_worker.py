"""A worker that was stopped within a transaction holds no locks: the database ends the transaction."""

from __future__ import annotations

import time

import psycopg
import pytest

from state.postgres.connection import transaction
from state.postgres.store import Store
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
