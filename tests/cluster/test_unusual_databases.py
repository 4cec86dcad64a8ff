"""Databases, roles and poolers that are set otherwise than a new PostgreSQL."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import psycopg
import pytest

from poller.changes.page import LONGEST_ID
from state.errors import StateError
from state.open import open_side
from state.place import DatabaseUrl
from state.postgres.connection import connect
from state.postgres.schema import _LOCK
from state.postgres.store import Reader, Store
from tests.support.pooler import pooling
from tests.support.stores import PostgresBackend

TEXT = "\u017elu\u0165 \u20ac \U0001f600"


def sql(backend: PostgresBackend, *statements: str) -> None:
    with psycopg.connect(backend.server.url(), autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@pytest.fixture
def role(backend: PostgresBackend) -> Iterator[str]:
    """A role that may do everything."""
    sql(backend, "CREATE ROLE unusual LOGIN SUPERUSER")
    yield "unusual"
    sql(backend, "DROP ROLE unusual")


def url_of(backend: PostgresBackend, role: str) -> str:
    return backend.url.partition("?")[0].replace("postgres@", f"{role}@")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_store_every_text_is_refused(backend: PostgresBackend, encoding: str) -> None:
    name = f"encoded_{encoding}".lower()
    sql(backend, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0 STRATEGY wal_log")
    try:
        for opened in (Store.open, Reader.open):
            with pytest.raises(StateError, match=f"has the encoding {encoding}"):
                opened(backend.server.url(name))
    finally:
        backend.server.drop(backend.server.url(name))


SET = {
    "client_encoding": "latin1",
    "default_transaction_isolation": "serializable",
    "idle_session_timeout": "100",
    "transaction_timeout": "100",
    "statement_timeout": "20s",
    "standard_conforming_strings": "off",
    "timezone": "Asia/Kolkata",
    "datestyle": "German",
    "extra_float_digits": "-5",
    "array_nulls": "off",
}


def test_what_a_role_has_set_changes_nothing(backend: PostgresBackend, role: str) -> None:
    sql(backend, *(f"ALTER ROLE {role} SET {name} = '{value}'" for name, value in SET.items()))
    store = Store.open(url_of(backend, role))
    try:
        store.db.run("INSERT INTO meta VALUES ($1, $2)", [TEXT, TEXT])
        shown = {name: store.db.value(f"SHOW {name}") for name in SET}
        pid = store.db.value("SELECT pg_backend_pid()")
        store.db.run("SELECT pg_sleep(0.3)")
        with psycopg.connect(backend.url) as other:
            other.execute("SELECT pg_sleep(0.3)")

        assert shown["statement_timeout"] == "30s"
        assert shown["default_transaction_isolation"] == "read committed"
        assert store.db.value("SELECT value FROM meta WHERE key = $1", [TEXT]) == TEXT
        assert store.db.value("SELECT pg_backend_pid()") == pid
        assert store.db.value("SELECT unnest($1::bigint[])", [[None]]) is None
        assert store.db.value("SELECT 0.1::float8 + 0.2::float8") == 0.1 + 0.2
    finally:
        store.close()


def test_settings_in_the_url_have_priority(backend: PostgresBackend) -> None:
    url = backend.url.partition("?")[0]
    conn = connect(f"{url}?options=-c%20lock_timeout%3D7s%20--statement-timeout%3D9s%20-cTimeZone%3DAsia/Tokyo")
    try:
        assert conn.value("SHOW lock_timeout") == "7s"
        assert conn.value("SHOW statement_timeout") == "9s"
        assert conn.value("SHOW timezone") == "Asia/Tokyo"
        assert conn.value("SHOW idle_in_transaction_session_timeout") == "2s"
    finally:
        conn.close()


@pytest.mark.parametrize("sessions", [1, 3, 4])
def test_a_pooler_of_transactions_is_refused_before_it_shares_any_setting(
    backend: PostgresBackend, sessions: int
) -> None:
    with pooling(backend.server.folder, sessions) as address:
        url = f"postgresql://postgres@{address}/{backend.url.partition('?')[0].rpartition('/')[2]}"
        for opened in (Store.open, Reader.open):
            with pytest.raises(StateError, match="a pooler gives one session of the database to several connections"):
                opened(url)
        with pytest.raises(StateError, match="a pooler"), open_side(DatabaseUrl(url)):
            raise AssertionError
        with psycopg.connect(url, autocommit=True) as other:
            assert other.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)


def test_the_longest_id_has_room_in_every_index(backend: PostgresBackend) -> None:
    name = "endpoint" * 30 + "/" + secrets.token_urlsafe(LONGEST_ID)[:LONGEST_ID]
    with connect(backend.url) as conn:
        conn.run("INSERT INTO subscriptions (name, state, cursor) VALUES ('crm', 'active', 0)")
        conn.run("INSERT INTO versions VALUES ($1, 1)", [name])
        conn.run(
            "INSERT INTO lanes (subscription, lane, due) SELECT id, $1, 0 FROM subscriptions", [f"/sources/{name}"]
        )


def test_a_worker_that_starts_waits_for_the_one_that_migrates(backend: PostgresBackend) -> None:
    url = backend.url.replace("?options=", "?options=-c%20lock_timeout%3D50%20-c%20statement_timeout%3D50%20")
    opened: list[Store] = []
    starting = threading.Thread(target=lambda: opened.append(Store.open(url)))
    with psycopg.connect(backend.url) as migrating:
        migrating.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        starting.start()
        starting.join(0.5)
        assert starting.is_alive()
    starting.join(30)

    assert len(opened) == 1
    opened[0].close()
