"""A restart forgets nothing, memory stays flat, and no unit is forgotten."""

import random

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.planner.planner import Planner, Unit

NOON = 1_790_000_000.0
DAY = 86_400.0

steps = st.lists(
    st.tuples(
        st.sampled_from(["poll", "fail", "excite", "add", "remove", "release", "pace"]),
        st.integers(0, 9),
        st.integers(0, 50),
        st.floats(0.1, 30_000),
    ),
    max_size=40,
)


def named(number):
    return Unit(f"source-{number % 2}", "pages", str(number))


def replay(planner, history, now=NOON):
    for action, number, count, gap in history:
        now += gap
        unit = named(number)
        if action == "poll" and (chosen := planner.choose(now)) is not None:
            planner.started(chosen)
            planner.observe(chosen, now + 0.5, count)
        elif action == "fail":
            planner.defer(unit, now + count * 100.0)
        elif action == "excite":
            planner.excite(unit, count)
        elif action == "add":
            planner.add(unit, now=now)
        elif action == "remove":
            planner.remove(unit)
        elif action == "release":
            planner.started(unit)
            planner.released(unit)
        elif action == "pace":
            planner.pace(now, 1000 + count, 86_400.0)
    return now


def known(saved):
    """The units of a dump, in its order."""
    return [Unit(*identity) for identity in orjson.loads(saved)["units"]]


def choices(planner, now, number=15):
    found = []
    for _ in range(number):
        now += 100.0
        if (unit := planner.choose(now)) is not None:
            planner.started(unit)
            planner.observe(unit, now, 1)
        found.append(unit)
    return found


def test_what_the_others_learn_after_a_unit_is_gone_can_be_dumped():
    gone, kept = named(0), named(2)
    planner = Planner([gone, kept], now=NOON)
    for number, unit in enumerate([gone, kept, gone, kept]):
        planner.observe(unit, NOON + 10.0 * number, 3)
    planner.remove(gone)
    planner.observe(kept, NOON + 100.0, 3)

    assert known(planner.dump()) == [kept]


@settings(max_examples=40, deadline=None)
@given(steps)
def test_what_was_dumped_is_known_again(history):
    planner = Planner([named(number) for number in range(5)], now=NOON)
    now = replay(planner, history)
    saved = planner.dump()
    other = Planner(known(saved), now=now)
    other.load(saved)

    assert other.dump() == saved


@settings(max_examples=40, deadline=None)
@given(steps)
def test_the_same_seed_and_history_give_the_same_choices(history):
    first, second = (Planner([named(number) for number in range(5)], now=NOON, seed=3) for _ in range(2))
    now = replay(first, history)
    replay(second, history)

    assert first.dump() == second.dump()
    assert choices(first, now) == choices(second, now)


def test_a_restarted_planner_decides_as_the_old_one_would():
    history = random.Random(5)
    units = [named(number) for number in range(30)]
    planner, now = Planner(units, now=NOON), NOON
    for _ in range(3000):
        now += 30.0
        unit = planner.choose(now)
        planner.started(unit)
        planner.observe(unit, now, history.randrange(int(unit.key) + 1) // 10)
    restarted = Planner(units, now=now)
    restarted.load(planner.dump())

    assert choices(restarted, now) == choices(planner, now)


def test_units_that_are_gone_are_skipped_and_new_ones_are_new():
    planner = Planner([named(1), named(2)], now=NOON)
    for unit in planner.units:
        planner.observe(unit, NOON + 5, 0)
    other = Planner([named(2), named(3)], now=NOON + 10)
    other.load(planner.dump())

    assert other.choose(NOON + 20) == named(3)
    assert other.explain(named(2), NOON + 20).last_poll == NOON + 5
    assert named(1) not in other.units


def test_what_was_in_flight_may_be_chosen_after_a_restart():
    planner = Planner([named(1)], now=NOON)
    planner.started(named(1))
    other = Planner([named(1)], now=NOON + 10)
    other.load(planner.dump())

    assert other.choose(NOON + 10) == named(1)


def test_deferrals_survive_a_restart():
    planner = Planner([named(1)], now=NOON)
    planner.defer(named(1), NOON + 100)
    other = Planner([named(1)], now=NOON + 10)
    other.load(planner.dump())

    assert other.choose(NOON + 10) is None
    assert other.next_due(NOON + 10) == NOON + 100


def test_a_clock_that_was_set_moves_each_time_that_was_saved_and_nothing_else():
    units = [named(number) for number in range(4)]
    planner = Planner(units, now=NOON)
    for number in (5, 65, 4000):
        planner.observe(named(0), NOON + number, 2)
    planner.defer(named(1), NOON + 9000)
    planner.started(named(2))
    planner.pace(NOON + 4001, 1000, DAY)
    other = Planner(units, now=NOON)
    other.load(planner.dump(), moved=500.0)
    before, after = orjson.loads(planner.dump()), orjson.loads(other.dump())

    def later(values):
        return [None if at is None else at + 500.0 for at in values]

    columns, sources = before["columns"], before["sources"]
    assert columns["ready"] == [None, NOON + 9000, None, None]
    assert after["columns"] == {**columns, "last": later(columns["last"]), "ready": later(columns["ready"])}
    assert after["sources"] == {
        name: {**model, "refitted": model["refitted"] + 500.0} for name, model in sources.items()
    }
    calls, began, answered, swell, swelled = before["pace"]
    assert None not in (began, swelled)
    assert after["pace"] == [calls, began + 500.0, answered + 500.0, swell, swelled + 500.0]


def broken(**fields):
    planner = Planner([named(1)], now=NOON)
    planner.observe(named(1), NOON, 1)
    return orjson.dumps(orjson.loads(planner.dump()) | fields)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"version": 2}',
        broken(version="1"),
        broken(units=[[1, 2, 3]]),
        broken(units=[["a", "b"]]),
        broken(units=[["a", "b", 3]]),
        broken(units=[["a", 2, "c"]]),
        broken(units=7),
        broken(columns={}),
        broken(units=[]),
        broken(sources={"source-1": {}}),
        broken(sources={"source-1": None}),
        broken(pace=[1]),
        broken(pace=[None] * 5),
    ],
)
def test_garbage_is_refused_and_changes_nothing(garbage):
    planner = Planner([named(1)], now=NOON)
    planner.observe(named(1), NOON, 1)
    before = planner.dump()

    with pytest.raises(ValueError, match="not a saved planner"):
        planner.load(garbage)
    assert planner.dump() == before


@pytest.mark.parametrize(
    ("garbage", "why"),
    [
        (b'{"version": 2}', "version 2 is not supported, only 1"),
        (broken(units=[["a", 2, "c"]]), "'a', 2, 'c' do not name a unit"),
        (broken(units=[]), "last has 1 values for 0 units"),
        (
            broken(
                columns={name: [-1.0] for name in ["last", "changes", "seen", "exposure", "minutes", "hours", "ready"]}
            ),
            "changes must be numbers of at least 0",
        ),
    ],
)
def test_what_is_refused_is_refused_with_its_reason(garbage, why):
    with pytest.raises(ValueError, match=f"this is not a saved planner: {why}"):
        Planner([named(1)], now=NOON).load(garbage)


def test_what_an_earlier_program_has_learned_is_read():
    planner = Planner([named(1)], now=NOON)
    planner.observe(named(1), NOON, 0)
    planner.observe(named(1), NOON + 600.0, 7)
    saved = orjson.loads(planner.dump())
    del saved["columns"]["seen"]
    other = Planner([named(1)], now=NOON)
    other.load(orjson.dumps(saved))

    changes = saved["columns"]["changes"]
    assert orjson.loads(other.dump())["columns"] == {**saved["columns"], "seen": changes}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(garbage):
    with pytest.raises(ValueError, match="not a saved planner"):
        Planner([named(1)], now=NOON).load(garbage)


def test_two_weeks_of_coming_and_going_leave_memory_flat_and_forget_no_unit():
    chance = random.Random(6)
    units = {named(number): NOON for number in range(60)}
    planner, now, born = Planner(units, now=NOON), NOON, 60
    sizes, longest = set(), 0.0
    for step in range(int(14 * DAY / 60)):
        now += 60.0
        if step % 3 == 0:
            gone = chance.choice(list(units))
            planner.remove(gone)
            del units[gone]
            units[named(born)] = now
            planner.add(named(born), now=now)
            born += 1
        unit = planner.choose(now)
        planner.started(unit)
        longest = max(longest, now - units[unit])
        units[unit] = now
        planner.observe(unit, now, int(chance.random() < 0.2))
        sizes.add(planner.units.capacity)

    assert len(planner.units) == 60
    assert max(sizes) <= 128
    assert longest < 12 * 3600
    assert max(now - since for since in units.values()) < 12 * 3600


def bound(units, calls, changes, *, memory=30 * DAY):
    """The longest wait by docs/planner.md, seconds; `calls` and `changes` per second."""
    mean = changes / units
    least = 0.5 / (0.5 / mean + memory)
    # (sum sqrt l)^2 is most where all are alike: units * changes.
    most_gathered = units * changes / (2 * calls**2)
    return (2 * most_gathered / least) ** 0.5 / 0.3


@pytest.mark.slow
@pytest.mark.parametrize("busy", [1, 5, 50])
def test_every_unit_is_polled_again_within_the_bound_of_the_docs(busy):
    """However few units take all the changes, the others are asked, too."""
    units = [named(number) for number in range(100)]
    planner, now, last, longest = Planner(units, now=NOON), NOON, dict.fromkeys(units, NOON), 0.0
    for step in range(int(10 * DAY / 30)):
        now += 30.0
        unit = planner.choose(now)
        planner.started(unit)
        longest = max(longest, now - last[unit])
        last[unit] = now
        planner.observe(unit, now, int(int(unit.key) < busy and step % 2))
    longest = max(longest, *(now - at for at in last.values()))

    assert longest < bound(100, calls=1 / 30, changes=1 / 60)


def test_adding_and_removing_without_polling_holds_on_to_nothing():
    planner = Planner([named(0)], now=NOON)
    for number in range(1, 5000):
        planner.add(named(number), now=NOON)
        planner.remove(named(number))

    assert planner.units.capacity <= 32
    assert len(planner._ranking.first_polls) <= 64
    assert planner.choose(NOON) == named(0)


def test_a_used_slot_starts_anew():
    planner = Planner([named(1), named(2)], now=NOON)
    for step in range(1, 200):
        planner.observe(named(1), NOON + step * 60, 5)
        planner.observe(named(2), NOON + step * 60, 0)
    planner.remove(named(1))
    planner.add(named(4), now=NOON + 20_000)

    fresh = planner.explain(named(4), NOON + 20_000)
    assert fresh.last_poll is None
    assert fresh.unseen == 0
    assert np.isinf(fresh.score)
