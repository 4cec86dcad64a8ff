"""A state whose files were deleted or replaced under an open process is not written, and can be rescued."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from state.errors import Unavailable
from state.lock import StateLock
from state.sqlite.store import Store, open_reader
from tests.support.bench import make_event


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", ".lock"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_nothing_is_written_once_a_file_is_another_one(tmp_path: Path, ending: str, how: str) -> None:
    path = tmp_path / "poller.db"
    with StateLock(path).held():
        store = Store.open(path, now=0.0)
        store.log.append([make_event(1)])
        victim = path.with_name(path.name + ending)
        kept = victim.rename(tmp_path / "kept")
        if how == "replaced":
            victim.write_bytes(b"")
        for attempt in (store.probe, lambda: store.log.append([make_event(2)])):
            with pytest.raises(Unavailable, match=rf"{victim} was {how}") as refused:
                attempt()
            assert "rescued" in (refused.value.hint or "")
        kept.replace(victim)
        store.probe()
        store.log.append([make_event(2)])
        store.close()
    with open_reader(path) as reader:
        assert reader.log.last_seq() == 2


def test_a_deleted_state_is_rescued_from_the_open_files_of_its_process(tmp_path: Path) -> None:
    path, rescued = tmp_path / "poller.db", tmp_path / "rescued"
    store = Store.open(path, now=0.0)
    store.log.append([make_event(number) for number in range(1, 30)])
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink()
    rescued.mkdir()
    for fd in Path("/proc/self/fd").iterdir():  # the commands of docs/how-to/backup.md
        name = os.readlink(fd) if fd.is_symlink() else ""
        if name.startswith(str(path)) and "-shm" not in name:
            (rescued / Path(name.removesuffix(" (deleted)")).name).write_bytes(fd.read_bytes())
    store.close()
    assert sorted(one.name for one in rescued.iterdir()) == ["poller.db", "poller.db-wal"]
    with sqlite3.connect(rescued / "poller.db") as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert conn.execute("SELECT count(*) FROM events").fetchone() == (29,)
