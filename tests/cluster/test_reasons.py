"""Why a database cannot be used: the latest reason, with what to do."""

from __future__ import annotations

from functools import partial

import psycopg
import pytest

from state.errors import StateError, Unavailable
from state.postgres import step_runner
from state.postgres.connection import _read_url
from state.postgres.failures import PASSING, translated
from state.postgres.step_runner import StepRunner


async def test_an_outage_has_the_reason_of_the_latest_probe() -> None:
    runner = StepRunner()

    def lost() -> None:
        raise psycopg.errors.AdminShutdown("terminating connection")

    def refused() -> None:
        raise psycopg.OperationalError("password authentication failed")

    with pytest.raises(Unavailable, match="terminating"):
        await runner.run_urgently(lost)
    with pytest.raises(Unavailable, match="password"):
        await runner.probe(refused)
    assert "password" in str(runner.outage)
    await runner.close(lambda: None)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FATAL:  sorry, too many clients already", "53300"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "53300"),
        ('FATAL:  too many connections for role "poller"', "53300"),
        ('FATAL:  password authentication failed for user "poller"', "08"),
    ],
)
def test_a_connection_that_is_refused_names_what_to_do(text: str, hint: str) -> None:
    error = translated(psycopg.OperationalError(text))

    assert isinstance(error, Unavailable)
    assert error.hint == PASSING[hint]


def test_a_database_that_must_be_vacuumed_first_is_waited_for() -> None:
    text = "database is not accepting commands\nHINT:  Execute a database-wide VACUUM in that database."
    error = translated(psycopg.errors.ProgramLimitExceeded(text))

    assert isinstance(error, Unavailable)
    assert "VACUUM" in str(error)


def test_a_search_path_without_a_schema_is_named() -> None:
    error = translated(psycopg.errors.InvalidSchemaName("no schema has been selected to create in"))

    assert isinstance(error, StateError)
    assert "search_path" in str(error.hint)


@pytest.mark.parametrize("error", [psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure])
def test_a_step_that_another_one_was_in_the_way_of_is_done_again_a_few_times(error: type[psycopg.Error]) -> None:
    tries: list[int] = []

    def step(until: int) -> None:
        tries.append(until)
        if len(tries) < until:
            raise error("another one was in the way")

    step_runner._tried(partial(step, step_runner.TRIES))
    assert len(tries) == step_runner.TRIES
    with pytest.raises(Unavailable):
        step_runner._tried(partial(step, 3 * step_runner.TRIES))


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresql://me:p@ss@host/name", "in its user and password"),
        ("postgresql://me:100%@host/name", "in its user and password"),
        ("postgresql://me:word@host/name?schema=public", "leave out parameters after the ?"),
    ],
)
def test_a_url_that_cannot_be_read_says_why_and_repeats_nothing(url: str, hint: str) -> None:
    with pytest.raises(StateError, match="cannot be read") as raised:
        _read_url(url)

    assert raised.value.hint is not None
    assert raised.value.hint.startswith(hint)
    assert "host" not in f"{raised.value} {raised.value.hint}"
