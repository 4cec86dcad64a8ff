"""Local files are this user's alone: no link is followed, nobody else reads them or holds their lock."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from plugins.jsonl import LineFile
from state.errors import Held, StateError
from state.lock import StateLock
from tests.support.command_line import Run, Shop

OTHER = 12345  # a user id that nobody here has
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def polled(poller: Run, shop: Shop, tmp_path: Path) -> Path:
    """A state, made with an umask that hides nothing."""
    shop.configure(tmp_path)
    before = os.umask(0)
    try:
        assert poller("once").status == 0
        shop.items[0]["name"] = "Quince"
        assert poller("once").status == 0
        yield tmp_path / "poller.db"
    finally:
        os.umask(before)


def test_the_state_its_lock_and_what_is_written_are_for_this_user_alone(polled: Path, poller: Run) -> None:
    assert poller("backup", "copy.db").status == 0

    made = {path.name: mode_of(path) for path in polled.parent.iterdir() if path.name != "poller.toml"}
    assert set(made) >= {"poller.db", "poller.db.lock", "out.jsonl", "copy.db"}
    assert set(made.values()) == {0o600}


def test_the_write_ahead_log_is_as_private_as_the_state(tmp_path: Path, polled: Path) -> None:
    from state.sqlite.store import Store

    store = Store.open(polled, now=0.0)
    try:
        assert {path.name: mode_of(path) for path in tmp_path.glob("poller.db-*")} == {
            "poller.db-wal": 0o600,
            "poller.db-shm": 0o600,
        }
    finally:
        store.close()


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "poller.db.lock").symlink_to(tmp_path / "mine")
    lock = StateLock(tmp_path / "poller.db")

    with pytest.raises(StateError, match="is a link"), lock.held():
        pass
    with pytest.raises(StateError, match="is a link"):
        lock.holder()
    assert (tmp_path / "mine").read_text() == "precious"


@as_root
def test_a_lock_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "poller.db.lock"
    path.touch()
    os.chown(path, OTHER, OTHER)

    with pytest.raises(StateError, match="does not belong to this user"), StateLock(tmp_path / "poller.db").held():
        pass


def test_a_lock_of_an_earlier_version_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "poller.db.lock"
    path.touch(0o644)
    path.chmod(0o644)
    lock = StateLock(tmp_path / "poller.db")

    with lock.held():
        assert mode_of(path) == 0o600
        assert lock.holder() == os.getpid()
        with pytest.raises(Held, match=str(os.getpid())), lock.held():
            pass


@pytest.mark.parametrize("name", ["copy.db", "copy.db.part"])
def test_a_backup_follows_no_link(poller: Run, polled: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / name).symlink_to(tmp_path / "mine")

    ran = poller("backup", "kept/copy.db")

    assert ran.status == (1 if name == "copy.db" else 0)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_backup_creates_nothing_behind_a_link_that_leads_nowhere(poller: Run, polled: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.db").symlink_to(tmp_path / "nowhere")

    assert poller("backup", "copy.db").status == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was synced, in order."""
    found: list[Path] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_a_folder_that_is_made_for_the_state_stays_where_the_power_goes(tmp_path: Path, synced: list[Path]) -> None:
    with StateLock(tmp_path / "var" / "poller" / "poller.db").held():
        assert synced == [tmp_path, tmp_path / "var"]
    synced.clear()
    with StateLock(tmp_path / "var" / "poller" / "poller.db").held():
        assert synced == []


def test_a_folder_that_is_made_for_a_file_of_events_stays_where_the_power_goes(
    tmp_path: Path, synced: list[Path]
) -> None:
    LineFile(tmp_path / "var" / "events" / "events.jsonl", None).close()
    assert synced == [tmp_path, tmp_path / "var", tmp_path / "var" / "events"]
