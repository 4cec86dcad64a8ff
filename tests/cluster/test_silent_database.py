"""A database that was lost without a word: a proxy keeps the connections open, and answers all that TCP asks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from state.errors import StateError
from state.postgres.connection import Connection, connect
from state.postgres.listening import Listening
from tests.cluster.test_database_faults import cut, edit_all, goes_on, polling
from tests.support.living import until
from tests.support.relay import Relay, relaying
from tests.support.stores import PostgresBackend

SILENCE = 0.3  # seconds


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "silence", SILENCE)


def through(relay: Relay, backend: PostgresBackend) -> str:
    return f"postgresql://postgres@127.0.0.1:{relay.port}/{plain(backend).rpartition('/')[2]}"


def plain(backend: PostgresBackend) -> str:
    return backend.url.partition("?")[0]


async def test_an_answer_that_does_not_come_is_given_up_with_the_connection(backend: PostgresBackend) -> None:
    with relaying(backend.server.folder) as relay:
        conn = await asyncio.to_thread(connect, through(relay, backend))
        relay.mute()
        with pytest.raises(psycopg.OperationalError, match="no answer within"):
            await asyncio.to_thread(conn.value, "SELECT 1")
        assert conn.closed


def test_books_that_are_read_while_connections_are_lost_are_read_again_or_refused(backend: PostgresBackend) -> None:
    name = plain(backend).rpartition("/")[2]
    backend.open()
    reader = backend.look()
    with psycopg.connect(backend.server.url(), autocommit=True) as conn:
        assert reader.deliveries.ledger() == []
        conn.execute(cut(backend.url).encode())
        assert reader.deliveries.ledger() == []
        conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        conn.execute(cut(backend.url).encode())
        with pytest.raises(StateError):
            reader.deliveries.ledger()
        conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


@pytest.mark.parametrize("options", ["", "?options=-c%20statement_timeout%3D20s"])
async def test_what_is_allowed_to_take_long_is_waited_for(backend: PostgresBackend, options: str) -> None:
    def ask() -> object:
        with connect(plain(backend) + options) as conn:
            if not options:
                with conn.transaction():
                    conn.lift_limits()
                    conn.run("SELECT pg_sleep($1)", [2 * SILENCE])
                with conn.transaction(), pytest.raises(psycopg.OperationalError):
                    conn.run("SELECT pg_sleep($1)", [4 * SILENCE])
                return conn.closed
            conn.run("SELECT pg_sleep($1)", [2 * SILENCE])
            return conn.silence

    assert await asyncio.to_thread(ask) == (25.0 if options else True)


async def test_who_listens_does_so_again_and_hears_what_may_have_been_missed(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("state.postgres.listening.LOOK_EVERY", 0.01)
    monkeypatch.setattr("state.postgres.listening.AGAIN_AFTER", 0.01)
    heard: list[str] = []
    with relaying(backend.server.folder) as relay:
        listening = Listening(through(relay, backend))
        listening.begin(asyncio.get_running_loop(), heard.append)
        try:
            await until("the first words", lambda: len(heard) == 3)
            relay.mute()
            await until("the same again", lambda: len(heard) == 6)
        finally:
            await asyncio.to_thread(listening.end)


@pytest.mark.slow
async def test_a_worker_whose_database_falls_silent_goes_on(tmp_path: Path, backend: PostgresBackend) -> None:
    with relaying(backend.server.folder) as relay:
        async with polling(tmp_path, through(relay, backend)) as (upstream, daemon):
            relay.mute()
            await until("the outage", lambda: daemon.app.write.outage)
            await goes_on(upstream, daemon, edit_all(upstream, 1))
