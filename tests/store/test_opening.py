"""A SQLite or a disk that cannot keep a state is named before anything is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from state.errors import StateError
from state.sqlite import connection
from state.sqlite.connection import keep_log, open_database


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
