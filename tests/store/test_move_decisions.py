"""What a move decides, with both sides in memory: where it goes on after a kill, what it refuses, what it compares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from state.deliveries import SubscriptionLedger
from state.errors import StateError
from state.move import (
    BACKUP,
    MOVED,
    MOVING,
    TABLES,
    Key,
    Mark,
    Result,
    Row,
    Table,
    _table,
    encoded_mark,
    mark_of,
    move,
    refusal,
)

HERE, THERE = "poller.db", "postgresql://db.example/poller"
BOOKS = SubscriptionLedger(
    subscription="crm",
    events=2,
    delivered=1,
    pending=0,
    dead=0,
    not_matching=1,
    dropped=0,
    unread=0,
    missing=(),
    stray=(),
)


class Killed(Exception):
    """The process ends here."""


@dataclass
class Memory:
    """A side of a move in memory, which ends its process at one of its changes."""

    rows: dict[str, dict[Key, Row]] = field(default_factory=lambda: {table.name: {} for table in TABLES})
    kept: dict[str, str] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    books: list[SubscriptionLedger] = field(default_factory=list)
    clock: float = 1000.0
    changes_left: float = math.inf
    written: list[tuple[str, Key]] = field(default_factory=list)

    def _changes(self) -> None:
        if self.changes_left <= 0:
            raise Killed
        self.changes_left -= 1

    def read(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        of_table = self.rows[table.name]
        return [of_table[key] for key in sorted(of_table) if after is None or key > tuple(after)][:limit]

    def write(self, table: Table, rows: Sequence[Row], mark: Mark) -> None:
        self._changes()
        self.rows[table.name] |= {table.key_of(row): row for row in rows}
        self.written += [(table.name, table.key_of(row)) for row in rows]
        self.kept[MOVING] = encoded_mark(mark)

    def count(self, table: Table) -> int:
        return len(self.rows[table.name])

    def numbers(self) -> dict[str, int]:
        return dict(self.given)

    def complete(self, numbers: Mapping[str, int], meta: Mapping[str, str]) -> None:
        self._changes()
        self.given |= numbers
        self.kept |= meta

    def meta(self) -> dict[str, str]:
        return dict(self.kept)

    def write_meta(self, key: str, value: str | None) -> None:
        self._changes()
        if value is None:
            del self.kept[key]
        else:
            self.kept[key] = value

    def clear(self, mark: Mark) -> None:
        self._changes()
        self.rows = {table.name: {} for table in TABLES}
        self.kept[MOVING] = encoded_mark(mark)

    def ledger(self) -> list[SubscriptionLedger]:
        return list(self.books)

    def now(self) -> float:
        return self.clock


SAMPLES: Mapping[str, Any] = {"int": 7, "float": 7.5, "text": "a\0b", "blob": b"\0", "bool": True, "steady": 40.0}


def row(table: Table, number: int) -> Row:
    """A row whose key has that number, and of whose other columns every second is empty."""
    return tuple(
        (f"{number:03}" if kind == "text" else number) if name in table.key else SAMPLES[kind] if place % 2 else None
        for place, (name, kind) in enumerate(table.columns)
    )


def a_source(rows: int = 3) -> Memory:
    source = Memory(kept={"log_id": "log", "clock": "ours", "throttled api": "50.0", "configuration x": "1"})
    source.books = [BOOKS]
    source.given = {table.name: 90 for table in TABLES if table.serial}
    for table in TABLES:
        source.rows[table.name] = {table.key_of(one): one for one in (row(table, n) for n in range(rows))}
    return source


def moved(source: Memory, target: Memory, *, id_: str = "move 1", batch: int = 2, steady: float = 100.0) -> Result:
    return move(source, target, id_=id_, to=THERE, steady=steady, batch=batch)


def test_everything_is_on_the_other_side_afterwards():
    source, target = a_source(), Memory(clock=1003.0, books=[BOOKS])
    result = moved(source, target)

    for table in TABLES:
        assert [*target.rows[table.name]] == [*source.rows[table.name]]
        for new, old in zip(target.rows[table.name].values(), source.rows[table.name].values(), strict=True):
            for (name, kind), now, before in zip(table.columns, new, old, strict=True):
                expected = before
                if before is not None and kind == "steady":
                    expected = before + 903.0  # the target's steady time is its wall time
                assert now == ("a\ufffdb" if before == "a\0b" else expected), (table.name, name)
    assert target.given == source.given
    assert target.kept == {"log_id": "log", "throttled api": "953.0"}  # what belongs to one side alone is left there
    assert result == Result(rows={table.name: 3 for table in TABLES}, books=[BOOKS])
    assert result.unbalanced == []
    assert msgspec.json.decode(source.kept[MOVED]) == {"id": "move 1", "to": THERE, "at": 1000.0}


def test_progress_counts_every_row_once():
    seen: list[tuple[str, int]] = []
    move(
        a_source(),
        Memory(books=[BOOKS]),
        id_="1",
        to=THERE,
        steady=0.0,
        batch=2,
        progress=lambda *one: seen.append(one),
    )

    assert seen == [(table.name, rows) for table in TABLES for rows in (2, 1)]


def test_books_that_do_not_balance_are_moved_and_named():
    source, target = a_source(), Memory()
    source.books = target.books = [BOOKS, structs.replace(BOOKS, subscription="mail", events=9)]

    assert moved(source, target).unbalanced == ["mail"]


@settings(max_examples=100, deadline=None)
@given(
    kills=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), max_size=4),
    batch=st.integers(1, 5),
    rows=st.integers(0, 4),
)
def test_a_move_that_is_killed_anywhere_is_finished_by_the_next_one(
    kills: list[tuple[int, int]], batch: int, rows: int
):
    source, target = a_source(rows), Memory(books=[BOOKS])
    for number, (left, of_source) in enumerate(kills):
        target.changes_left, source.changes_left = left, of_source
        try:
            moved(source, target, id_=f"move {number}", batch=batch, steady=100.0 + number)
        except Killed:
            assert refusal(target.meta(), HERE) is not None or not target.kept
        else:
            break
    target.changes_left = source.changes_left = math.inf
    if MOVING in target.kept or not target.kept:
        moved(source, target, id_="last", batch=batch, steady=500.0)

    assert MOVING not in target.kept
    assert {name: [*of] for name, of in target.rows.items()} == {name: [*of] for name, of in source.rows.items()}
    assert target.written == [(name, key) for name, of in source.rows.items() for key in of]  # each row once
    shifts = {one[2] - 40.0 for one in target.rows["calls"].values() if one[2] is not None}
    shifts |= {float(target.kept["throttled api"]) - 50.0}
    assert len(shifts | {one[3] - 40.0 for one in target.rows["calls"].values() if one[3] is not None}) == 1
    with pytest.raises(StateError, match="moved to"):
        moved(source, Memory())


def killed(source: Memory, target: Memory, *, after: int = 5, **how: Any) -> None:
    target.changes_left = after
    with pytest.raises(Killed):
        moved(source, target, **how)
    target.changes_left = math.inf


def test_a_killed_move_goes_on_with_the_shift_and_the_name_that_it_began_with():
    source, target = a_source(), Memory(books=[BOOKS])
    killed(source, target, after=9, steady=100.0)
    result = moved(source, target, id_="move 2", steady=250.0)

    assert not result.began_anew
    assert float(target.kept["throttled api"]) == 950.0
    assert msgspec.json.decode(source.kept[MOVED])["id"] == "move 1"


@pytest.mark.parametrize("how", ["a row more", "a row less", "a lease", "a number"])
def test_a_source_that_was_used_since_is_copied_from_the_beginning(how: str):
    source, target = a_source(), Memory(books=[BOOKS])
    killed(source, target)
    if how == "a row more":
        source.rows["events"][(9,)] = row(next(one for one in TABLES if one.name == "events"), 9)
    elif how == "a row less":
        source.rows["learned"].popitem()
    elif how == "a lease":
        key, (name, _) = next(iter(source.rows["leases"].items()))
        source.rows["leases"][key] = (name, 8)
    else:
        source.given["events"] = 91
    target.rows["learned"][("stray",)] = ("stray", b"")
    killed(source, target, after=1, id_="move 2")
    mark = mark_of(target.kept)
    assert mark is not None
    assert (mark.id, mark.table, target.rows["learned"]) == ("move 2", "", {})
    killed(source, target, after=0, id_="move 3")
    target.kept[MOVING] = encoded_mark(structs.replace(mark, is_stale=True))
    result = moved(source, target, id_="move 2")

    assert result.began_anew
    assert ("stray",) not in target.rows["learned"]
    assert msgspec.json.decode(source.kept[MOVED])["id"] == "move 2"


class Forgetful(Memory):
    """A side that writes another thing than it was given."""

    lost: str = ""

    def write(self, table: Table, rows: Sequence[Row], mark: Mark) -> None:
        super().write(table, rows, mark)
        if table.name == self.lost == "events":
            self.rows["events"].popitem()
        elif table.name == self.lost:
            key = table.key_of(rows[0])
            self.rows[table.name][key] = (*rows[0][:-1], 999)


@pytest.mark.parametrize(
    ("lost", "words"),
    [("events", "events has 2 of 3 rows after the copy"), ("leases", "leases has another content after the copy")],
)
def test_a_copy_that_differs_is_found_and_the_next_attempt_begins_anew(lost: str, words: str):
    source, target = a_source(), Forgetful(books=[BOOKS])
    target.lost = lost
    with pytest.raises(StateError, match=words):
        moved(source, target, batch=5)
    mark = mark_of(target.kept)
    assert mark is not None
    assert mark.is_stale
    assert MOVED not in source.kept

    target.lost = ""
    assert moved(source, target, id_="move 2").began_anew


def test_a_copy_of_a_row_too_many_is_found():
    class Padded(Memory):
        def count(self, table: Table) -> int:
            return super().count(table) + (table.name == "events" and bool(self.rows["events"]))

    with pytest.raises(StateError, match="events has another content"):
        moved(a_source(), Padded(books=[BOOKS]))


def test_books_that_differ_afterwards_are_found():
    with pytest.raises(StateError, match="the books of the two sides differ") as found:
        moved(a_source(), Memory(books=[structs.replace(BOOKS, dead=1)]))
    assert found.value.hint is not None
    assert "begins anew" in found.value.hint


def test_a_source_that_is_used_while_it_is_copied_is_found():
    class Busy(Memory):
        def complete(self, numbers: Mapping[str, int], meta: Mapping[str, str]) -> None:
            super().complete(numbers, meta)
            source.given["events"] += 1

    source = a_source()
    with pytest.raises(StateError, match="the source was used while it was copied"):
        moved(source, Busy(books=[BOOKS]))


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (1005.0, None),
        (995.0, None),
        (1006.0, "the clock of the target is 6 s ahead of that of the source"),
        (994.0, "the clock of the target is 6 s behind that of the source"),
    ],
)
def test_clocks_that_differ_by_more_than_five_seconds_are_refused(clock: float, words: str | None):
    source, target = a_source(), Memory(clock=clock, books=[BOOKS])
    if words is None:
        moved(source, target)
        return
    with pytest.raises(StateError, match=words) as refused:
        moved(source, target)
    assert refused.value.hint == "set both clocks (NTP), then move"
    assert not target.kept


def test_a_target_with_anything_in_it_is_refused_by_its_tables():
    target = a_source()
    target.kept = {}
    target.rows = {name: of if name in ("calls", "lanes") else {} for name, of in target.rows.items()}

    with pytest.raises(StateError, match="it has rows in calls, lanes") as refused:
        moved(a_source(), target)
    assert refused.value.hint == "name a new file or an empty database"


def test_an_unfinished_move_of_another_state_is_left_alone():
    source, target = a_source(), Memory()
    killed(source, target)
    other = a_source()
    other.kept["log_id"] = "another log"
    before = replace(target).rows

    with pytest.raises(StateError, match=r"unfinished move of another state \(log log\)") as refused:
        moved(other, target)
    assert refused.value.hint == "finish that one, or name a new file or an empty database"
    assert target.rows == before


def test_a_state_without_a_log_has_nothing_of_another_one():
    source, target = a_source(0), Memory(books=[BOOKS])
    source.kept = {}
    killed(source, target, after=1)

    result = moved(source, target)
    assert (result.rows["events"], result.began_anew) == (0, False)


def test_a_source_that_was_moved_elsewhere_is_refused_also_for_a_target_that_waits_for_another_move():
    source, target = a_source(), Memory(books=[BOOKS])
    moved(source, Memory(books=[BOOKS]))
    target.kept[MOVING] = encoded_mark(Mark(id="another", log="log", fingerprint="", shift=0.0))

    with pytest.raises(StateError, match="the source: this state was moved to"):
        moved(source, target)
    target.kept[MOVING] = encoded_mark(Mark(id="move 1", log="log", fingerprint="", shift=0.0))
    moved(source, target, id_="move 3")  # this very move was killed before its last step


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({}, None),
        ({MOVED: '{"id":"1","to":"there","at":1.0}'}, "poller.db: this state was moved to there"),
        ({MOVED: '{"id":"1","to":"there","at":1.0}', BACKUP: "1"}, None),  # a copy of it is a state by itself
        ({MOVING: "{}"}, "poller.db: a state is being moved here, and that is not complete"),
        ({MOVING: "{}", BACKUP: "1"}, "poller.db: a state is being moved here, and that is not complete"),
    ],
)
def test_a_state_is_used_where_it_is_whole_and_nowhere_else(meta: dict[str, str], words: str | None):
    found = refusal(meta, HERE)

    assert (None if found is None else str(found)) == words
    assert found is None or found.hint


def test_a_mark_is_read_as_it_was_kept():
    mark = Mark(id="1", log="log", fingerprint="f", shift=1.5, table="lanes", after=(1, "a"), is_stale=True)

    assert mark_of({}) is None
    found = mark_of({MOVING: encoded_mark(mark)})
    assert found is not None
    assert structs.replace(found, after=tuple(found.after)) == mark


def test_a_table_is_read_from_its_columns_and_their_kinds():
    assert _table("lines", "order id", "order:text id price:float", serial=True) == Table(
        name="lines",
        key=("order", "id"),
        columns=(("order", "text"), ("id", "int"), ("price", "float")),
        serial=True,
    )
    assert not _table("lines", "id", "id").serial
