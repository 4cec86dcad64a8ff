"""The file of the state: long readers hinder no writer, the log is given back, and how large pages are."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from state.sqlite.connection import LARGEST_WAL, PAGE, open_database, transaction


def test_a_long_reader_lets_the_wal_grow_only_while_it_reads(tmp_path: Path) -> None:
    path, wal = tmp_path / "poller.db", tmp_path / "poller.db-wal"
    db = open_database(path)
    with transaction(db) as conn:
        conn.execute("CREATE TABLE bytes (n BLOB)")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM bytes").fetchone()

    for _ in range(5):
        with transaction(db) as conn:
            conn.execute("INSERT INTO bytes VALUES (zeroblob(?))", [LARGEST_WAL // 4])
    assert wal.stat().st_size > LARGEST_WAL
    reader.execute("COMMIT")
    for _ in range(2):  # the first one is checkpointed, the second one begins the file again
        with transaction(db) as conn:
            conn.execute("INSERT INTO bytes VALUES (zeroblob(?))", [LARGEST_WAL // 3])

    assert wal.stat().st_size <= LARGEST_WAL
    assert reader.execute("SELECT count(*) FROM bytes").fetchone() == (7,)
    reader.close()
    db.close()


def test_a_new_state_has_larger_pages_and_an_existing_one_keeps_its_own(tmp_path: Path) -> None:
    existing = tmp_path / "existing.db"
    with contextlib.closing(sqlite3.connect(existing)) as conn:
        conn.execute("PRAGMA page_size = 4096")
        conn.execute("CREATE TABLE bytes (n BLOB)")

    found = {}
    for path in (existing, tmp_path / "new.db"):
        for _ in range(2):
            db = open_database(path)
            (found[path.stem],) = db.execute("PRAGMA page_size").fetchone()
            db.close()

    assert found == {"existing": 4096, "new": PAGE}
