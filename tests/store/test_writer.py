"""Steps of the store: what shares a commit, what may wait for one, and what is known once it is told."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from state.deliveries import Registration
from state.errors import StateError, Unavailable
from state.lock import StateLock
from state.notices import Notice
from state.operational import notice_event
from state.polls import Recorded
from state.postgres.step_runner import StepRunner
from state.records import NewEvent
from state.sqlite.connection import transaction
from state.sqlite.runner import Inline
from state.sqlite.store import Store, open_reader
from state.sqlite.writer import Writer
from tests.support.disk import small_disk


@pytest.fixture
async def write() -> AsyncIterator[Writer]:
    with Writer() as write:
        yield write


@pytest.fixture
async def store(write: Writer, tmp_path: Path) -> AsyncIterator[Store]:
    store = await write(Store.open, tmp_path / "poller.db", now=0.0)
    write.share_commits(store.group)
    yield store
    await write(store.close)


@pytest.fixture
def told(store: Store, tmp_path: Path) -> Iterator[Callable[[], int]]:
    """How many events another process sees."""
    with open_reader(tmp_path / "poller.db") as reader:
        yield reader.log.last_seq


def event(version: int) -> NewEvent:
    return notice_event(Notice(kind="test", subject="tests/one", summary="x", detail={}, time=0.0), version)


def logged(store: Store, version: int) -> Recorded:
    return Recorded(notices=store.log.append([event(version)]))


def silent(store: Store, version: int) -> Recorded:
    """A step that writes something, of which nobody is told."""
    logged(store, version)
    return Recorded(is_silent=True)


def failing(store: Store, version: int) -> Recorded:
    with transaction(store.db):
        logged(store, version)
        raise KeyError(version)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def test_what_tells_anything_is_committed_before_it_is_answered(
    write: Writer, store: Store, told: Callable[[], int]
) -> None:
    await write(logged, store, 1)
    assert told() == 1
    outcome = await write.unhurried(logged, store, 2)
    assert (outcome.notices, told()) == ([2], 2)


async def test_what_is_silent_is_committed_with_the_next_step(
    write: Writer, store: Store, told: Callable[[], int]
) -> None:
    await write.unhurried(silent, store, 1)
    await write.unhurried(silent, store, 2)
    assert told() == 0
    await write(int)
    assert told() == 2


async def test_what_is_silent_is_committed_in_a_moment_by_itself(
    write: Writer, store: Store, told: Callable[[], int]
) -> None:
    await write.unhurried(silent, store, 1)
    await until(lambda: told() == 1)


async def test_so_many_silent_steps_are_committed_at_the_latest(
    write: Writer, store: Store, told: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("state.sqlite.step_queue.MOMENT", 3600.0)
    monkeypatch.setattr("state.sqlite.commits.TOGETHER", 3)
    for version in range(1, 6):
        await write.unhurried(silent, store, version)
    assert told() == 3
    await write(int)


async def test_a_step_that_fails_is_undone_alone(write: Writer, store: Store, told: Callable[[], int]) -> None:
    await write.unhurried(silent, store, 1)
    answers = await asyncio.gather(
        write(logged, store, 2), write(failing, store, 3), write(logged, store, 4), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [Recorded, KeyError, Recorded]
    assert [one.id for one in store.log.read()] == [event(version).id for version in (1, 2, 4)]
    assert told() == 3


async def test_a_step_that_fails_alone_is_undone(write: Writer, store: Store, told: Callable[[], int]) -> None:
    with pytest.raises(KeyError):
        await write.unhurried(failing, store, 1)
    await write(int)
    assert told() == 0


class Full:
    """A disk that is full when what was written is to be committed."""

    def __init__(self, store: Store) -> None:
        self.begin = store.group.begin
        self._store = store

    def commit(self) -> None:
        assert self._store.db.conn is not None
        self._store.db.conn.execute("ROLLBACK")
        self._store.db.has_begun = False
        self._store.group.commit()
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error


async def test_a_session_whose_answered_steps_were_lost_writes_nothing_more(
    write: Writer, store: Store, told: Callable[[], int]
) -> None:
    """What its holder has in memory is not in the state: only reading the state again helps."""
    session = write.session()
    await session.unhurried(silent, store, 1)
    write.share_commits(Full(store))
    with pytest.raises(Unavailable, match="full"):
        await write(logged, store, 2)
    write.share_commits(store.group)  # there is room again
    await write.probe(store.probe)
    for step in (session(logged, store, 3), session.unhurried(silent, store, 4)):
        with pytest.raises(Unavailable, match="read again"):
            await step
    await write(logged, store, 5)
    await write.session()(logged, store, 6)
    assert [one.id for one in store.log.read()] == [event(version).id for version in (5, 6)]
    assert told() == 2


async def test_nothing_is_tried_while_the_state_cannot_be_written_until_a_probe_succeeds(
    store: Store, write: Writer, told: Callable[[], int]
) -> None:
    await write(set_room, store, 0)
    with pytest.raises(Unavailable, match="full"):
        await write(large, store, 1)
    assert write.outage is not None
    assert await write.until_outage() is write.outage
    before = told()
    store.db.execute(f"PRAGMA max_page_count = {2**30}")  # there is room, and nobody knows yet
    with pytest.raises(Unavailable):
        await write(large, store, 20)
    await write.probe(store.probe)
    assert write.outage is None
    await write(large, store, 20)
    assert told() == before + 1


def set_room(store: Store, pages: int) -> None:
    (used,) = store.db.execute("PRAGMA page_count").fetchone()
    store.db.execute(f"PRAGMA max_page_count = {used + pages}")


async def test_steps_that_shared_a_commit_which_the_disk_refused_are_all_told_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, Writer() as write:
        store = await write(Store.open, disk.folder / "poller.db", now=0.0)
        write.share_commits(store.group)
        await write(logged, store, 1)
        disk.fill()
        answers = await asyncio.gather(*(write(large, store, n) for n in range(2, 9)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        with pytest.raises(Unavailable):
            await write.probe(store.probe)
        disk.free()
        await write.probe(store.probe)
        await asyncio.gather(*(write(large, store, n) for n in range(2, 9)))
        assert [one.id for one in store.log.read()] == [event(version).id for version in range(1, 9)]
        await write(store.close)


def large(store: Store, version: int) -> None:
    """A step that needs more room than a page or two."""
    with transaction(store.db) as conn:
        logged(store, version)
        conn.execute("INSERT INTO learned VALUES (?, zeroblob(100000))", [str(version)])  # type: ignore[attr-defined]


async def test_a_lock_of_another_program_is_an_outage_and_damage_is_not(
    write: Writer, store: Store, tmp_path: Path
) -> None:
    store.db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "poller.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked") as caught:
        await write(logged, store, 1)
    assert caught.value.hint == "end the program that holds its lock"
    other.execute("ROLLBACK")
    other.close()
    await write.probe(store.probe)

    def damaged() -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StateError, match="damaged") as found:
        await write(damaged)
    assert not isinstance(found.value, Unavailable)
    assert write.outage is None


async def test_a_step_goes_on_though_nobody_waits_for_it(write: Writer, store: Store, told: Callable[[], int]) -> None:
    task = asyncio.create_task(write(logged, store, 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await write(int)
    assert told() == 1


def unavailable(_: Store, __: int) -> None:
    raise Unavailable("no disk")


@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "postgres"])
async def test_a_step_that_fails_unheard_is_reported_unless_the_outage_says_so(
    write: Writer, store: Store, *, shared: bool
) -> None:
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))
    runner = StepRunner(1)
    for step in (failing, unavailable):
        begun, cancelled = threading.Event(), threading.Event()

        def slowly(step: Callable[..., object], begun: threading.Event, cancelled: threading.Event) -> object:
            begun.set()
            cancelled.wait(60)
            return step(store, 1)

        work = (runner.run if shared else write)(partial(slowly, step, begun, cancelled))
        task = asyncio.create_task(work)
        await until(begun.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        cancelled.set()
        if not shared:
            await write.probe(int)
    await runner.close(int)
    await until(lambda: bool(heard))
    assert [type(one) for one in heard] == [KeyError]
    assert not shared or runner.outage is not None


async def test_no_commit_waits_on_a_runner_of_the_caller(tmp_path: Path) -> None:
    with Writer(Inline()) as write:
        store = await write(Store.open, tmp_path / "poller.db", now=0.0)
        write.share_commits(store.group)
        await write.unhurried(silent, store, 1)
        with open_reader(tmp_path / "poller.db") as reader:
            assert reader.log.last_seq() == 1
        await write(store.close)


async def test_a_delivery_step_that_cannot_be_written_begins_the_outage_as_a_poll_does(
    write: Writer, store: Store, tmp_path: Path
) -> None:
    """A source that is asked once an hour would not find out for an hour."""
    await write(store.deliveries.register, [Registration(name="crm", start="now")], now=0.0)
    store.db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "poller.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Unavailable, match="locked") as failed:
            await write(store.deliveries.pause, "crm")
        assert failed.value.hint == "end the program that holds its lock"
        assert write.outage is failed.value
    finally:
        other.close()
    await write.probe(store.probe)
    await write(store.deliveries.pause, "crm")


async def test_a_full_disk_is_told_with_the_file_that_could_not_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        lock = StateLock(disk.folder / "poller.db")
        with pytest.raises(Unavailable, match=r"poller\.db\.lock cannot be written: No space left"), lock.held():
            pass
        disk.free()
        with lock.held():
            pass
