"""A SQLite or a disk that cannot keep a state is named before anything is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from state.errors import StateError, Unavailable
from state.sqlite import connection
from state.sqlite.connection import Group, keep_log, open_database, probe, read_meta, transaction, write_meta
from tests.support.faulty_sqlite import faulty_sqlite


def test_an_sqlite_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OLDEST", (9, 12, 0))
    path = tmp_path / "poller.db"

    with pytest.raises(StateError, match=rf"has SQLite {sqlite3.sqlite_version}; Poller needs 9\.12\.0 or newer"):
        open_database(path)
    assert not path.exists()


def test_a_place_without_a_write_ahead_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "poller.db"
    uri = f"file:{path}?vfs=unix-dotfile"  # which has no shared memory, as some file systems

    with (
        closing(sqlite3.connect(uri, uri=True)) as conn,
        pytest.raises(StateError, match=f"{path}: SQLite cannot keep a write-ahead log there .*'delete'"),
    ):
        keep_log(conn, path)


@pytest.mark.parametrize("error", ["database is locked", "disk I/O error"])  # SQLite rolls back for one of them alone
def test_nothing_of_a_transaction_whose_commit_fails_is_committed_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    with faulty_sqlite(monkeypatch) as faults, closing(open_database(tmp_path / "poller.db")) as state:
        faults.armed = ("COMMIT", error)
        with pytest.raises(sqlite3.OperationalError, match=error), transaction(state) as conn:
            write_meta(conn, "lost", "1")
        probe(state)

        assert read_meta(state, "lost") is None


def test_steps_that_sqlite_has_rolled_back_with_a_later_one_are_not_taken_for_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_sqlite(monkeypatch) as faults, closing(open_database(tmp_path / "poller.db")) as state:
        group = Group(state)
        group.begin()
        with transaction(state) as conn:
            write_meta(conn, "lost", "1")
        faults.armed = (next(reversed(faults.statements)), "disk I/O error")
        with pytest.raises(sqlite3.OperationalError), transaction(state) as conn:
            write_meta(conn, "lost", "2")
        with pytest.raises(Unavailable, match="rolled back"), transaction(state) as conn:
            write_meta(conn, "lost", "3")
        with pytest.raises(Unavailable, match="rolled back"):
            group.commit()

        assert read_meta(state, "lost") is None
