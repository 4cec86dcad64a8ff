"""A state moved into PostgreSQL and back: what a real daemon has made is there afterwards, and it continues with it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest

from poller.cli import invoke
from poller.operations.move import move_state
from state.errors import Held, StateError
from state.leases import LOCAL, Worker, WorkerState
from state.lock import StateLock
from state.move import TABLES, Side, Table, move
from state.open import open_commands, open_reader, open_side
from state.place import DatabaseUrl, Place
from state.postgres.store import Store as PostgresStore
from state.sqlite.store import Store as SqliteStore
from tests.support.command_line import Run
from tests.support.living import World, living, swept, until, world
from tests.support.stores import PostgresBackend

CONFIG = """
[poller]
state = "{state}"
listen = ""
[budgets.api]
limits = ["1000/s", "1000000/day"]
concurrency = 2
[sources.api]
plugin = "rest"
base_url = "{url}"
[sources.api.endpoints.things]
path = "/things"
item_path = "/things/{{id}}"
absent_for = "0s"
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{url}/hook"
allow_private = true
types = ["*", "poller.*"]
retry = ["50ms", "50ms", "50ms", "50ms", "50ms", "50ms"]
[[subscriptions]]
name = "dead"
plugin = "http"
url = "{url}/nowhere"
allow_private = true
retry = []
[[subscriptions]]
name = "waiting"
plugin = "http"
url = "{url}/nowhere"
allow_private = true
retry = ["1d"]
[[subscriptions]]
name = "paused"
plugin = "jsonl"
path = "paused.jsonl"
[[subscriptions]]
name = "digest"
plugin = "jsonl"
path = "digest.jsonl"
types = ["*.deleted", "*.created"]
digest = "1d"
"""


def configured(folder: Path, state: Place, there: World) -> Path:
    path = folder / "poller.toml"
    path.write_text(CONFIG.format(state=state.url if isinstance(state, DatabaseUrl) else state, url=there.url))
    return path


async def live(config: Path, there: World, edits: list[tuple[int, int]]) -> None:
    """A daemon runs until every edit was recorded and delivered to the one receiver that answers."""
    async with living(config) as daemon:
        await until("the first sweep", lambda: swept(daemon))
        for number, size in edits:
            there.edit(number, size)
            await until("the edit is delivered", lambda number=number, size=size: size in there.sizes(number))


async def make_history(folder: Path, there: World) -> Path:
    """A state that has something of everything."""
    state = folder / "poller.db"
    config = configured(folder, state, there)
    there.refusals = 3
    async with living(config) as daemon:
        await until("the first sweep", lambda: swept(daemon))
        await daemon.app.write(daemon.app.store.deliveries.pause, "paused")
        for round_ in range(1, 6):
            for number in range(1, 7):
                there.edit(number, round_ * 100 + number)
            there.things.pop(20 - round_)
            there.things[100 + round_] = {"id": 100 + round_, "size": 0}
            await until("a round", lambda n=round_: all(n * 100 + one in there.sizes(one) for one in range(1, 7)))
        there.status = 429  # the server wants to be left alone: that is kept, too
        await until("a pause", lambda: daemon.app.engine.loops["api"].pauses.until() is not None)
        await until("dead letters", lambda: _dead(state) > 0)
        await daemon.app.write(daemon.app.store.deliveries.replay, "hook", after=2)
        old = await daemon.app.write(daemon.app.store.deliveries.expiring, 4, before=time.time())
        assert old is not None
        await daemon.app.write(daemon.app.store.deliveries.purge, old, before=time.time(), notices=[])
    there.status = 200
    with closing(sqlite3.connect(state)) as conn:  # what a crash leaves: a call that nobody answered
        conn.execute("INSERT INTO calls (budget, sent_at) VALUES ('api', (SELECT max(sent_at) FROM calls))")
        # A mail's id, which no receiver here gives; and a command that nobody has done yet.
        # A replay that has not been read on to its end: the daemon may have been quicker.
        conn.execute("INSERT INTO replays (subscription, cursor, until) VALUES (1, 2, 5)")
        conn.execute("INSERT INTO last_references VALUES (1, '/sources/api things/1', ?, 1.0)", ["a\0b"])
        conn.commit()
    with open_commands(state) as commands:
        commands.post("resume", {"budget": "api"}, now=time.time())
    return state


def _dead(state: Path) -> int:
    with closing(sqlite3.connect(state)) as conn:
        return int(conn.execute("SELECT count(*) FROM deliveries WHERE state = 'dead'").fetchone()[0])


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a state that a daemon has made."""
    folder = tmp_path_factory.mktemp("history")

    async def run() -> None:
        async with world() as there:
            await make_history(folder, there)

    asyncio.run(run())
    return folder


@pytest.fixture
def file(history: Path, tmp_path: Path) -> Path:
    """That state, to be moved."""
    return Path(shutil.copy2(history / "poller.db", tmp_path / "poller.db"))


@contextmanager
def database() -> Iterator[DatabaseUrl]:
    """An empty database."""
    server = PostgresBackend.started()
    url = server.database()
    try:
        yield DatabaseUrl(url)
    finally:
        server.drop(url)


def rows_of(place: Place) -> dict[str, list[Any]]:
    """Every row of every table. Steady times are left out, for they are another clock's; PostgreSQL keeps no NUL."""
    with open_side(place) as side:
        return {table.name: [_cleaned(row) for row in _rows(side, table)] for table in TABLES}


def _cleaned(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)


def _rows(side: Side, table: Table) -> list[Any]:
    kept = [place for place, (_, kind) in enumerate(table.columns) if kind != "steady"]
    rows = side.read(table, None, 1_000_000)
    return [tuple(row[place] for place in kept) for row in rows]


def rest_of(place: Place) -> tuple[Any, ...]:
    """What is kept beside the tables: the log's id, the numbers given, the books."""
    with open_side(place) as side:
        numbers = {name: side.numbers()[name] for name in ("events", "units", "deliveries", "commands")}
        return side.meta()["log_id"], numbers, side.ledger()


def test_what_a_daemon_has_made_is_the_same_in_postgresql_and_again_in_a_file(file: Path, tmp_path: Path) -> None:
    before, rest = rows_of(file), rest_of(file)
    assert all(before.values()), "the history has too little in it"

    with database() as url:
        result = move_state(file, url, batch=7)
        there, rest_there = rows_of(url), rest_of(url)
        move_state(url, tmp_path / "back.db", batch=7)

    assert there == before
    assert rest_there == rest
    assert rows_of(tmp_path / "back.db") == before
    assert rest_of(tmp_path / "back.db") == rest
    assert result.rows == {name: len(rows) for name, rows in before.items()}
    assert result.unbalanced == []


def test_a_budget_remembers_what_it_has_spent_and_until_when_it_was_asked_to_wait(file: Path) -> None:
    with closing(sqlite3.connect(file)) as conn:
        sent, until_ = (
            float(conn.execute("SELECT max(sent_at) FROM calls").fetchone()[0]),
            float(conn.execute("SELECT value FROM meta WHERE key = 'throttled api'").fetchone()[0]),
        )

    with database() as url:
        move_state(file, url)
        with closing(psycopg.connect(url.url)) as conn2:
            moved = conn2.execute("SELECT max(sent_at) FROM calls").fetchone()
            word = conn2.execute("SELECT value FROM meta WHERE key = 'throttled api'").fetchone()
            now = conn2.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert moved is not None
    assert word is not None
    assert now is not None
    assert float(word[0]) - moved[0] == pytest.approx(until_ - sent)  # both by one clock
    assert 0 < now[0] - moved[0] < 600  # and that is the database's


@pytest.mark.slow
async def test_a_daemon_continues_on_the_other_side_and_back(tmp_path: Path) -> None:
    with database() as url:
        async with world() as there:
            state = await make_history(tmp_path, there)
            await asyncio.to_thread(move_state, state, url)
            await live(configured(tmp_path, url, there), there, [(1, 1001), (2, 1002), (1, 1003)])
            await asyncio.to_thread(move_state, url, tmp_path / "back.db")
            await live(configured(tmp_path, tmp_path / "back.db", there), there, [(1, 1004), (2, 1005)])

            first: dict[str, dict[str, Any]] = {}
            for event in there.told:
                first.setdefault(event["id"], event)
            for subject in ("things/1", "things/2"):
                versions = [one["data"]["version"] for one in first.values() if one["subject"] == subject]
                assert versions == list(range(1, len(versions) + 1)), "an event is missing, twice, or out of order"
            assert there.sizes(1)[-2:] == [1003, 1004]
    with open_reader(tmp_path / "back.db") as reader:
        assert [one.subscription for one in reader.deliveries.ledger() if not one.balanced] == []


class Dies(Exception):
    """As a kill."""


def interrupted(source: Place, target: Place, batches: int) -> None:
    """A move that ends after so many batches."""

    def count(*_: object) -> None:
        nonlocal batches
        batches -= 1
        if batches < 0:
            raise Dies

    with pytest.raises(Dies):
        move_state(source, target, batch=20, progress=count)


def killing(source: Place, target: Place, batches: int) -> subprocess.Popen[bytes]:
    """A move that is killed after so many batches."""
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from poller.operations.move import move_state, place_of\n"
        f"left = [{batches}]\n"
        "def count(*_):\n    left[0] -= 1\n    if left[0] < 0: os.kill(os.getpid(), 9)\n"
        "move_state(place_of(sys.argv[1]), place_of(sys.argv[2]), batch=20, progress=count)"
    )
    words = [one.url if isinstance(one, DatabaseUrl) else str(one) for one in (source, target)]
    return subprocess.Popen([sys.executable, "-c", code, *words], env=os.environ)


def test_a_move_that_was_interrupted_continues(file: Path) -> None:
    expected = rows_of(file)
    with database() as url:
        interrupted(file, url, 0)
        interrupted(file, url, 9)
        assert "is being moved here" in str(refused(url))
        assert refused(file) is None, "the source cannot be used any more"
        assert not move_state(file, url, batch=20).began_anew
        assert rows_of(url) == expected


@pytest.mark.slow
@pytest.mark.parametrize("way", ["there", "back"])
def test_a_move_that_was_killed_continues(way: str, file: Path, tmp_path: Path) -> None:
    expected = rows_of(file)
    random = Random(15)
    with database() as url:
        source, target = (file, url) if way == "there" else (url, tmp_path / "back.db")
        if way == "back":
            move_state(file, url)
        for batches in (0, 1, 9):
            assert killing(source, target, batches).wait(60) == -signal.SIGKILL
            assert refused(target) is not None, "a part of a state was opened"
            assert refused(source) is None, "the source cannot be used any more"
        process = killing(source, target, 10_000)  # and somewhere, be it between two statements
        time.sleep(random.uniform(0.6, 1.0))
        process.kill()
        process.wait()

        if refused(source) is None or mark_is_left(target):
            move_state(source, target, batch=20)

        assert rows_of(target) == expected
        assert "was moved to" in str(refused(source))
        assert refused(target) is None


def mark_is_left(place: Place) -> bool:
    with open_side(place) as side:
        return "move" in side.meta()


def refused(place: Place) -> StateError | None:
    """Why nobody can run on a state."""
    try:
        if isinstance(place, DatabaseUrl):
            PostgresStore.open(place.url).close()
        else:
            SqliteStore.open(place, now=time.time()).close()
    except StateError as error:
        return error
    return None


class Mortal:
    """One side of a move that dies before or after a certain change of it."""

    def __init__(self, side: Side, dies_at: float) -> None:
        self._side = side
        self._left = dies_at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._side, name)
        if name not in ("write", "clear", "complete", "write_meta"):
            return found

        def change(*args: Any) -> None:
            self._left -= 0.5
            if self._left == 0:
                raise Dies(f"before {name}")
            found(*args)
            self._left -= 0.5
            if self._left == 0:
                raise Dies(f"after {name}")

        return change


@pytest.mark.slow
def test_a_move_that_dies_before_or_after_any_of_its_last_changes_is_finished_by_the_next_one(
    file: Path, tmp_path: Path
) -> None:
    """The last changes are: `complete`, the mark on the source, the mark off the target."""
    pristine = file.read_bytes()
    expected = rows_of(file)
    for side, at in (("target", 0.5), ("target", 1.0), ("source", 0.5), ("source", 1.0), ("target", 1.5)):
        with database() as url:
            for left in file.parent.glob(f"{file.name}-*"):
                left.unlink()
            file.write_bytes(pristine)
            _die(file, url, side, at)
            assert refused(url) is not None
            move_state(file, url)
            assert rows_of(url) == expected
            assert refused(file) is not None


def _die(source: Path, target: DatabaseUrl, where: str, at: float) -> None:
    with open_side(source) as one, open_side(target) as other:
        tables = sum(1 for table in TABLES if one.count(table))
        begun = {"target": 1 + tables, "source": 0}[where]  # `clear`, and a batch for each table
        dying = Mortal(other if where == "target" else one, begun + at)
        sides = {"source": one, "target": other, where: dying}
        with pytest.raises(Dies):
            move(sides["source"], sides["target"], id_="1", to=str(target), steady=one.now(), batch=1_000_000)


def test_a_source_that_was_used_after_a_killed_move_is_copied_from_the_beginning(file: Path) -> None:
    with database() as url:
        interrupted(file, url, 12)
        store = SqliteStore.open(file, now=time.time())
        [lease] = store.leases.take(LOCAL, ["subscription/hook"], most=1, ttl=60.0)
        store.leases.give_up([lease])
        store.deliveries.pause("hook")
        store.close()

        result = move_state(file, url)

        assert result.began_anew
        assert rows_of(url) == rows_of(file)


def test_a_difference_is_found_and_the_next_attempt_begins_anew(file: Path) -> None:
    with database() as url:
        interrupted(file, url, 12)
        with closing(psycopg.connect(url.url)) as conn:
            conn.execute("UPDATE endpoints SET objects = objects + 1")
            conn.commit()

        with pytest.raises(StateError, match="endpoints has another content"):
            move_state(file, url)
        assert refused(file) is None
        move_state(file, url)

        assert rows_of(url) == rows_of(file)


def test_a_side_that_is_in_use_or_not_empty_is_refused(file: Path, tmp_path: Path) -> None:
    with database() as url:
        with StateLock(file).held(), pytest.raises(Held, match="a running poller"):
            move_state(file, url)
        store = PostgresStore.open(url.url)
        enrolled = WorkerState(name=Worker("one"), version="", digest="", listen="")
        store.leases.enrol(enrolled, ttl=60.0)
        with pytest.raises(Held, match=r"workers run on it \(one\)"):
            move_state(file, url)
        store.leases.leave(Worker("one"))
        store.learned.save({"x": b"1"})
        store.close()
        with pytest.raises(StateError, match="the target is not empty: it has rows in learned"):
            move_state(file, url)
        with pytest.raises(StateError, match="is not empty"):
            move_state(url, file)
    with pytest.raises(StateError, match="one side is a file"):
        move_state(file, tmp_path / "other.db")
    assert refused(file) is None


def test_an_unfinished_move_of_another_state_is_left_alone(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    SqliteStore.open(other, now=0.0).close()
    with database() as url:
        interrupted(file, url, 3)

        with pytest.raises(StateError, match="an unfinished move of another state"):
            move_state(other, url)

        move_state(file, url)


def test_no_worker_starts_while_a_state_is_moved(file: Path) -> None:
    with database() as url, open_side(url):
        error = refused(url)
        with pytest.raises(Held, match="another `poller migrate`"):
            move_state(file, url)
    assert "`poller migrate` uses this database" in str(error)


def test_a_moved_state_can_be_taken_up_again_as_a_copy(file: Path, tmp_path: Path, poller: Run) -> None:
    with database() as url:
        move_state(file, url)
    os.rename(file, tmp_path / "moved.db")
    (tmp_path / "poller.toml").write_text('[poller]\nstate = "poller.db"\nlisten = ""\n')

    assert poller("restore", tmp_path / "moved.db").status == 0
    assert refused(file) is None


def test_clocks_that_differ_are_refused(file: Path) -> None:
    with database() as url, open_side(file) as one, open_side(url) as other:

        class Ahead(Mortal):
            def now(self) -> float:
                return time.time() + 60.0

        with pytest.raises(StateError, match="60 s ahead of that of the source"):
            move(one, Ahead(other, 0.0), id_="1", to="x", steady=one.now())


def test_the_command_says_what_it_did_and_what_to_do(file: Path, poller: Run) -> None:
    with database() as url:
        done = poller("migrate", file, url.url)
        again = poller("migrate", file, url.url)

    assert done.status == 0, done.err
    assert "Every row was compared; the books of 5 subscriptions are the same on both sides." in done.out
    assert "in poller.toml" in done.out
    assert again.status == 1
    assert "was moved to postgresql://" in again.err


def test_every_table_and_every_column_is_moved(tmp_path: Path) -> None:
    """A table or column that is added later must be named in `state.move`, or left out here with its reason."""
    left_out = {("objects", "id"), ("leases", "worker"), ("leases", "until")}  # of a row's place; of whoever ran
    ours = {(table.name, column) for table in TABLES for column in table.names}
    SqliteStore.open(tmp_path / "poller.db", now=0.0).close()
    with closing(sqlite3.connect(tmp_path / "poller.db")) as conn:
        in_file = set(
            conn.execute(
                "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"
            )
        )
    with database() as url:
        PostgresStore.open(url.url).close()
        with closing(psycopg.connect(url.url)) as pg:
            query = (
                "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
                "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') "
                "AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped"
            )
            in_database = set(pg.execute(query))
    apart = ("meta", "migrations", "_sqlite_migrations", "sqlite_sequence", "workers", "log")
    assert {one for one in in_file if one[0] not in apart} - left_out == ours
    assert {one for one in in_database if one[0] not in apart} - left_out == ours


def test_records_of_a_move_are_values() -> None:
    assert all(isinstance(table, msgspec.Struct) for table in TABLES)
    assert invoke(["migrate", "--help"]) == 0
