"""A backup is the state of one moment, and what is made of it is a log of its own."""

import contextlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from state.sqlite.backup import copy_state, restored
from state.sqlite.store import Store, open_reader
from tests.support.command_line import Run, Shop
from tests.support.daemon import Daemon, running_daemon, wait_for
from tests.support.disk import small_disk


@pytest.fixture
def polled(poller: Run, shop: Shop, tmp_path: Path) -> Path:
    """A state with two objects and one event."""
    shop.configure(tmp_path)
    poller("once")
    shop.items[0]["name"] = "Quince"
    poller("once")
    return tmp_path / "poller.db"


def log_id(state: Path) -> str:
    with open_reader(state) as reader:
        return reader.log.id


def test_the_copy_holds_what_the_state_holds(poller: Run, polled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    told = poller("backup", copy, "--json").json

    assert told == {"path": str(copy), "bytes": copy.stat().st_size, "events": 1, "objects": 2}
    with open_reader(copy) as reader:
        assert [event.subject for event in reader.log.read()] == ["items/1"]


def test_a_folder_is_given_a_file_named_by_the_time(poller: Run, polled: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()

    assert poller("backup", "kept").status == 0
    (made,) = (tmp_path / "kept").iterdir()
    assert (made.name[:8], made.suffix) == ("poller-2", ".db")


def test_copies_of_one_second_are_numbered_in_the_order_of_their_names(
    poller: Run, polled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.cli.backup.time.time", lambda: 1_790_000_000.0)
    made = [Path(poller("backup", f"{tmp_path}/kept/", "--json").json["path"]).name for _ in range(3)]

    assert made[0] == "poller-20260921T141320Z.db"
    assert len(set(made)) == 3
    assert sorted(made) == made


def test_nothing_is_overwritten(poller: Run, polled: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    ran = poller("backup", there)

    assert (ran.status, there.read_text()) == (1, "mine")
    assert ran.err.startswith(f"Error: {there} already exists; name another file")


def cut(state: bytes) -> bytes:
    return state[:20_000]


def overwritten(state: bytes) -> bytes:
    return state[:40_000] + b"\xff" * (len(state) - 40_000)


def of_another_program(_: bytes) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE other (a)")
        return conn.serialize()


@pytest.mark.parametrize("damage", [cut, overwritten, of_another_program, lambda _: b"", lambda _: b"text"])
def test_a_damaged_backup_is_called_damaged_and_nothing_is_changed(
    poller: Run, polled: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    copy, before = tmp_path / "copy.db", polled.read_bytes()
    poller("backup", copy)
    copy.write_bytes(damage(copy.read_bytes()))
    (tmp_path / "to").mkdir()
    ran = poller("restore", copy)

    assert ran.status == 1
    assert ran.err.startswith(f"Error: {copy}: damaged, or not a state of Poller: ")
    assert ".part" not in ran.err
    assert polled.read_bytes() == before
    assert not [file.name for file in tmp_path.iterdir() if "restoring" in file.name]


def test_a_disk_without_room_for_a_copy_is_named_and_left_as_it_was(poller: Run, polled: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size="100k") as disk:
        ran = poller("backup", disk.folder / "copy.db")
        left = list(disk.folder.iterdir())

    assert ran.status == 1
    assert re.match(rf"Error: {disk.folder}: no room for a copy of \d+\.\d MB; 0\.\d MB are free; [^\n]*\n", ran.err)
    assert left == []


@pytest.mark.parametrize("to", ["none/copy.db", "poller.toml/copy.db"])
def test_a_place_that_cannot_be_written_is_told(poller: Run, polled: Path, to: str) -> None:
    ran = poller("backup", to)

    assert ran.status == 1
    assert ran.err.startswith(f"Error: {to}: cannot be written:")


def test_without_a_state_there_is_nothing_to_copy(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    ran = poller("backup", "copy.db")

    assert ran.status == 1
    assert "there is no state to copy yet" in ran.err


def test_a_copy_that_is_only_looked_at_stays_what_it_is(poller: Run, polled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    poller("backup", copy)

    assert log_id(copy) == log_id(polled)
    again = tmp_path / "again.db"
    copy_state(copy, again, now=5.0)
    with open_reader(again) as reader:
        assert restored(reader.db) is None


def test_a_restored_copy_is_a_log_of_its_own_from_its_first_opening_on(
    poller: Run, polled: Path, tmp_path: Path
) -> None:
    copy, original = tmp_path / "copy.db", log_id(polled)
    copy_state(polled, copy, now=1000.0)

    Store.open(copy, now=2000.0).close()
    first = log_id(copy)
    Store.open(copy, now=3000.0).close()

    assert first == log_id(copy) != original
    with open_reader(copy) as reader:
        origin = restored(reader.db)
    assert origin is not None
    assert (origin.log_id, origin.taken_at, origin.since) == (original, 1000.0, 2000.0)


def test_the_copy_is_readable_by_nobody_else(poller: Run, polled: Path, tmp_path: Path) -> None:
    poller("backup", "copy.db")

    assert polled.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


def test_a_copy_is_whole_while_somebody_writes(poller: Run, polled: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(polled, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM events")
    copied = copy_state(polled, tmp_path / "copy.db", now=0.0)
    writer.execute("ROLLBACK")
    writer.close()

    assert copied.events == 1


def cursor_of(daemon: Daemon) -> tuple[str, str]:
    """(URL of the daemon, the place behind its latest event as a stream gives it)."""
    url = wait_for("the URL", daemon.url)
    answer = httpx.get(f"{url}/api/v1/events", params={"after": 0}).json()
    return url, f"{answer['log_id']}-{answer['next']}"


def test_a_cursor_from_before_the_restoring_is_answered_410(
    poller: Run, shop: Shop, tmp_path: Path, polled: Path
) -> None:
    config = shop.configure(tmp_path, listen="127.0.0.1:0")
    with running_daemon(config) as daemon:
        _, cursor = cursor_of(daemon)
        assert poller("backup", "copy.db").status == 0
    for left in tmp_path.glob("poller.db*"):
        left.unlink()
    (tmp_path / "copy.db").rename(polled)

    with running_daemon(config) as daemon:
        url = wait_for("the URL", daemon.url)
        answer = httpx.get(f"{url}/api/v1/events", params={"after": cursor})
    assert answer.status_code == 410
    assert "another log" in answer.json()["detail"]
