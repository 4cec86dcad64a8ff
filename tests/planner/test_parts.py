"""The parts of the planner, each by itself: against plain sums, numeric integrals and cases worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from poller.planner.explanation import Figures, explained
from poller.planner.learning import (
    DAY,
    FIRST_RATE,
    HOUR,
    HOURS,
    KERNEL_SPANS,
    PRIOR,
    WEEK,
    Rhythm,
    SourceModel,
)
from poller.planner.models import Models
from poller.planner.pacing import Pacing
from poller.planner.ranking import FirstPolls, Ranking, Scores
from poller.planner.rates import base_rates, expected, mean_rates
from poller.planner.units import Unit, Units

NOON = 1_790_000_000.0
EPS = 1e-9


def unit(key, *, source="acme", **fields):
    return Unit(source, "projects", str(key), **fields)


class Parts:
    """Units with their models, pacing and ranking, as a planner puts them together."""

    def __init__(self, *units, now=NOON):
        self.units = Units(len(units))
        self.table = self.units.table
        self.models = Models(self.units)
        self.pacing = Pacing(self.table, self.models, now=now)
        self.slots = {one: self.units.add(one, self.models.number(one.source, now)) for one in units}
        self.scores = Scores(self.table, self.models, seed=0)
        self.ranking = Ranking(self.units, self.scores, self.pacing)

    def set(self, one, *, last=NOON, **columns):
        """Give a unit statistics, as if it had been polled last at that time."""
        slot = self.slots[one]
        self.models.polled(slot, last)
        for name, value in {"seen": columns.get("changes", 0.0), **columns}.items():
            getattr(self.table, name)[slot] = value
        return slot


# Units


@settings(max_examples=40)
@example([(True, 1, None), (True, 2, 60.0), (False, 1, None)])
@example([(True, 1, 60.0), (True, 2, 60.0), (False, 1, 60.0)])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.none() | st.just(60.0)), max_size=120))
def test_units_are_those_that_were_added_and_not_removed_and_slots_are_used_again(steps):
    units, plain, most = Units(1), {}, 0
    for adds, key, limit in steps:
        one = unit(key, max_staleness=limit)
        if adds:
            units.add(one, 0)
            plain[one] = limit
        elif one in units:
            units.remove(one)
            del plain[one]
        most = max(most, len(plain))

    assert (len(units), set(units)) == (len(plain), set(plain))
    assert all(one in units for one in plain)
    assert {at.key for at in units.promised} == {one.key for one, limit in plain.items() if limit is not None}
    assert units.limited == len(units.promised)
    assert {one: slot for slot, one in units.slots()} == {one: units.slot(one) for one in plain}
    assert [units.at(slot) for slot, _ in units.slots(plain)] == list(plain)
    assert units.table.top <= most
    assert units.capacity <= max(16, 2 * most)


def test_a_unit_that_is_added_again_has_its_new_settings_and_its_old_statistics():
    units = Units(1)
    slot = units.add(unit(1, weight=2.0, cost=3, max_staleness=60.0), 0)
    units.table.changes[slot] = 7.0

    assert units.add(unit(1, weight=5.0), 0) == slot
    assert (units.table.weight[slot], units.table.cost[slot], units.table.limit[slot]) == (5.0, 1.0, math.inf)
    assert (units.table.changes[slot], units.limited, units.promised) == (7.0, 0, [])
    assert units.at(slot).weight == 5.0


def test_nothing_is_expected_of_an_empty_slot_and_it_is_never_ready():
    units = Units(1)
    slot = units.add(unit(1, weight=2.0, max_staleness=60.0), 0)
    units.table.rows[:, slot] = 5.0
    units.remove(unit(1))

    table = units.table
    assert (table.ready[slot], table.limit[slot]) == (math.inf, math.inf)
    assert (table.weight[slot], table.changes[slot], table.minutes[slot], table.exposure[slot]) == (0, 0, 0, 0)
    assert units.slot(unit(1)) is None
    again = units.add(unit(2), 3)
    assert again == slot
    assert math.isnan(table.last[slot])
    assert (table.ready[slot], table.changes[slot], table.source[slot]) == (-math.inf, 0.0, 3)


def test_a_table_that_grows_keeps_what_it_holds_under_the_same_names():
    units = Units(1)
    for key in range(40):
        slot = units.add(unit(key), key % 3)
        units.table.changes[slot] = key
        units.table.hours[slot] = -key

    assert units.capacity == 64
    assert units.table.changes[:40].tolist() == list(range(40))
    assert units.table.hours[:40].tolist() == [-key for key in range(40)]
    assert units.table.source[:40].tolist() == [key % 3 for key in range(40)]
    assert units.table.place[:40].tolist() == list(range(40))


# The rhythm of a week


def learned(*changes, weeks=4):
    """A rhythm that has seen so many changes in each hour from the epoch's beginning, each week alike."""
    rhythm = Rhythm()
    mean = sum(changes) / HOURS / HOUR
    for hour in range(weeks * HOURS):
        start = hour * HOUR
        rhythm.learn(start, start + HOUR / 2, changes[hour % HOURS] / 2, mean)
        rhythm.learn(start + HOUR / 2, start + HOUR - 1e-6, changes[hour % HOURS] / 2, mean)
    rhythm.refit(0.0)
    return rhythm


BUSY = [90.0 if 8 <= hour % 24 < 16 else 2.0 for hour in range(HOURS)]


def test_a_profile_follows_what_was_seen_with_a_mean_of_one_and_is_nowhere_zero():
    rhythm = learned(*BUSY)

    assert rhythm.levels.mean() == pytest.approx(1.0)
    assert rhythm.levels.min() > 0.04
    assert rhythm.at(10 * HOUR) / rhythm.at(20 * HOUR) == pytest.approx(rhythm.levels[10] / rhythm.levels[20])
    assert rhythm.levels[10] == pytest.approx(rhythm.levels[34], rel=0.01)
    assert rhythm.at(WEEK + 10 * HOUR + 5.0) == rhythm.levels[10]
    quiet = learned(*([0.0] * (HOURS - 1)), 50_000.0)
    assert 0.04 < quiet.levels.min() <= 0.05
    assert quiet.levels.argmax() == HOURS - 1


def test_a_day_that_differs_from_the_others_is_told_apart_once_it_was_seen_often():
    sunday = [0.0 if hour // 24 == 3 else 50.0 for hour in range(HOURS)]  # the epoch's week begins on a Thursday
    rhythm = learned(*sunday)

    assert rhythm.levels[3 * 24 + 12] < 0.35 * rhythm.levels[2 * 24 + 12]


def test_all_changes_of_an_hour_are_learned():
    rhythm = Rhythm()
    for begin, changed in ((0.0, 1.0), (20.0, 2.0)):
        rhythm.learn(begin, begin + 10.0, changed, 0.1)
    assert rhythm.seen[0] == 3.0
    assert rhythm.expected[0] == pytest.approx(2.0)


def test_a_change_that_was_hardly_expected_is_split_as_well():
    model = SourceModel(NOON)
    excited = model.eta[0] * 0.5
    assert model.split(1, 0.2, (0.5, 0.0)) == (1, pytest.approx(0.2 / (0.2 + excited)))


def test_calls_that_are_answered_at_once_all_count():
    parts = Parts(unit(1))
    for _ in range(1000):
        parts.pacing.answered(NOON, 1)
    assert parts.pacing.calls_per_second == pytest.approx(1000.0, rel=1e-3)


def test_the_quietest_hour_counts_as_a_twentieth_of_the_mean_however_much_more_was_seen_than_expected():
    rhythm = Rhythm()
    rhythm.seen[0] = 100_000.0
    rhythm.refit(0.0)

    assert rhythm.levels.min() == pytest.approx(0.05, rel=0.1)


def test_what_was_seen_fades_over_four_weeks():
    rhythm = Rhythm()
    rhythm.learn(0.0, HOUR / 2, 8.0, 1 / HOUR)
    rhythm.refit(28 * DAY)

    assert rhythm.seen[0] == pytest.approx(8.0 / math.e)
    assert rhythm.expected[0] == pytest.approx(0.5 / math.e)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 3 * WEEK), st.floats(0, 40 * HOUR))
def test_the_integral_of_a_profile_is_the_sum_of_its_levels(start, seconds):
    rhythm = learned(*BUSY, weeks=1)
    steps = np.linspace(start, start + seconds, 4001)
    middles = (steps[1:] + steps[:-1]) / 2
    levels = np.array([rhythm.at(at) for at in middles])

    numeric = float((levels * np.diff(steps)).sum())
    assert rhythm.integral(start + seconds) - rhythm.integral(start) == pytest.approx(numeric, abs=seconds / 1000 + EPS)
    if seconds >= 1.0:
        root = float((np.sqrt(levels) * np.diff(steps)).sum() / seconds)
        assert rhythm.mean_root(start, seconds) == pytest.approx(root, rel=0.01)


def test_a_mean_root_looks_a_second_ahead_at_least_and_a_week_at_most():
    rhythm = learned(*BUSY, weeks=1)

    assert rhythm.mean_root(10 * HOUR, 0.0) == pytest.approx(math.sqrt(rhythm.levels[10]))
    assert rhythm.mean_root(8 * HOUR - 1.0, 0.0) == pytest.approx(math.sqrt(rhythm.levels[7]))
    week = float(np.sqrt(rhythm.levels).mean())
    assert rhythm.mean_root(5.0, WEEK) == rhythm.mean_root(5.0, 9 * WEEK) == pytest.approx(week)


def test_an_interval_within_an_hour_belongs_to_that_hour_and_a_long_one_to_two_weeks_at_most():
    rhythm = Rhythm()
    rhythm.learn(5 * HOUR, 5.25 * HOUR, 3.0, 2 / HOUR)
    assert rhythm.seen[5] == 3.0
    assert rhythm.expected[5] == pytest.approx(0.5)
    assert rhythm.seen.sum() == 3.0

    rhythm = Rhythm()
    rhythm.learn(0.0, 10 * WEEK + HOUR / 2, 336.5, 1 / HOUR)
    assert rhythm.seen.sum() == pytest.approx(336.5)
    assert rhythm.expected.sum() == pytest.approx(2 * HOURS + 0.5)
    assert rhythm.expected[0] == pytest.approx(2.5)  # this hour of the week, and half of the one that has begun


# The model of a source


def test_a_source_about_which_nothing_is_known_changes_once_a_day():
    model = SourceModel(NOON)
    assert model.pooled == pytest.approx(FIRST_RATE)

    model.changes, model.exposure = 100.0, 100 * HOUR
    assert model.pooled == pytest.approx((PRIOR + 100) / (PRIOR * DAY + 100 * HOUR))


@pytest.mark.parametrize(
    ("changed", "base", "exposed", "counted", "own"),
    [
        (0, 1.0, (0.0, 0.0), 0, 0.0),
        (6, 2.0, (10.0, 10.0), 6, 2.0),  # 2 of its own, 3 by minutes, 1 by hours
        (3, 2.0, (10.0, 10.0), 3, 1.0),
        (49, 2.0, (10.0, 10.0), 49, 49 / 3),
        (51, 2.0, (10.0, 10.0), 50, 50 / 3),  # an import counts as 20 and five times what was expected
        (7, 0.0, (0.0, 0.0), 7, 7),  # nothing was expected: it is its own
        (30, 0.0, (0.0, 0.0), 20, 20),
    ],
)
def test_changes_are_split_as_they_were_expected(changed, base, exposed, counted, own):
    assert SourceModel(NOON).split(changed, base, exposed) == (pytest.approx(counted), pytest.approx(own))


def test_excitation_that_brings_changes_is_learned_and_one_that_brings_none_is_unlearned():
    lively, dull = SourceModel(NOON), SourceModel(NOON)
    for _ in range(200):
        lively.split(6, 0.1, (5.0, 0.0))
        dull.split(0, 0.1, (5.0, 5.0))
    lively.refit(NOON)
    dull.refit(NOON)

    assert lively.parents == [1000.0, 0.0]
    assert sum(lively.eta) == pytest.approx(0.95)  # below 1, or changes would bring changes for ever
    assert lively.eta[0] > 0.8
    assert dull.eta[0] < 0.3 * 20 / 900
    assert dull.eta[1] < 0.1 * 20 / 900


@pytest.mark.parametrize(("passed", "due"), [(0.0, False), (1799.0, False), (1800.0, True), (-0.1, True), (1e9, True)])
def test_a_model_is_fitted_every_half_hour_and_when_the_clock_went_back(passed, due):
    model = SourceModel(NOON)
    model.refit(NOON + 50.0)

    assert model.refit_due(NOON + 50.0 + passed) is due


def test_what_was_learned_of_excitation_fades_over_four_weeks_and_never_grows():
    model = SourceModel(NOON)
    model.offspring, model.parents = [4.0, 2.0], [8.0, 6.0]
    model.refit(NOON + 28 * DAY)
    assert model.offspring == pytest.approx([4 / math.e, 2 / math.e])
    assert model.parents == pytest.approx([8 / math.e, 6 / math.e])
    assert model.eta == pytest.approx(
        [(20 * 0.3 + 4 / math.e) / (20 + 8 / math.e), (2 + 2 / math.e) / (20 + 6 / math.e)]
    )

    model.refit(NOON)  # the clock was set back
    assert model.offspring == pytest.approx([4 / math.e, 2 / math.e])
    assert model.refitted == NOON


def test_a_model_is_restored_as_it_was_dumped():
    model = SourceModel(NOON)
    model.rhythm = learned(*BUSY, weeks=1)
    model.split(6, 2.0, (10.0, 10.0))
    model.refit(NOON + HOUR)
    other = SourceModel(0.0)
    other.load(model.dump())

    assert other.dump() == model.dump()
    assert other.rhythm.at(10 * HOUR) == model.rhythm.at(10 * HOUR)
    assert other.rhythm.integral(NOON) == model.rhythm.integral(NOON)


def test_a_model_of_whole_numbers_is_one_of_numbers():
    model, plain = SourceModel(NOON), SourceModel(NOON)
    saved = model.dump()
    plain.load({**saved, **{name: [int(at) for at in saved[name]] for name in ("seen", "expected", "levels")}})
    for each in (model, plain):
        each.rhythm.learn(NOON, NOON + 60.0, 3.0, 1 / HOUR)
        each.refit(NOON + HOUR)

    assert plain.dump() == model.dump()


@pytest.mark.parametrize(
    "wrong",
    [
        {"seen": [1.0] * 167},
        {"expected": [1.0] * 169},
        {"levels": [1.0]},
        {"levels": [0.0] + [1.0] * 167},
        {"seen": [math.inf] + [1.0] * 167},
        {"levels": [math.nan] + [1.0] * 167},
        {"eta": [0.1]},
        {"parents": [1.0, 2.0, 3.0]},
        {"offspring": [math.nan, 1.0]},
        {"refitted": math.inf},
    ],
)
def test_a_model_that_cannot_be_is_refused_and_nothing_of_it_is_kept(wrong):
    model = SourceModel(NOON)
    before = model.dump()

    with pytest.raises(ValueError, match="a profile must"):
        model.load({**before, **wrong})
    assert model.dump() == before


# What a poll teaches


def test_a_unit_that_changes_evenly_and_is_polled_often_is_known_by_its_rate():
    one = unit(1)
    parts = Parts(one)
    slot = parts.set(one)
    for number in range(1, 6000):
        parts.models.observe(slot, NOON + 20.0 * number, int(number % 30 == 0), memory=30 * DAY)
        if number % 90 == 0:
            parts.models.refit(NOON + 20.0 * number)

    assert mean_rates(parts.table, parts.models)[slot] == pytest.approx(1 / 600, rel=0.1)
    model = parts.models.of(slot)
    assert model.changes == pytest.approx(parts.table.changes[slot])
    assert model.exposure == pytest.approx(parts.table.exposure[slot])


@pytest.mark.parametrize("every", [600.0, HOUR, 4 * HOUR])
def test_the_mean_rate_is_what_changes_there_are_however_rarely_they_are_looked_for(every):
    rate = 1 / HOUR
    units, chance = [unit(key) for key in range(10)], np.random.default_rng(1)
    parts = Parts(*units)
    for one in units:
        parts.set(one)
    polls = int(min(400, 30 * DAY / every))
    for number in range(1, polls):
        for slot in parts.slots.values():
            parts.models.observe(slot, NOON + every * number, int(chance.poisson(rate * every)), memory=30 * DAY)
        if every * number % 1800 < every:
            parts.models.refit(NOON + every * number)

    assert mean_rates(parts.table, parts.models).mean() == pytest.approx(rate, rel=0.15)


def test_the_first_of_two_polls_at_one_moment_teaches_all():
    one = unit(1)
    parts = Parts(one)
    slot = parts.set(one)
    parts.models.observe(slot, NOON + 60.0, 3, memory=30 * DAY)
    before = parts.table.rows[:, slot].copy()
    parts.models.observe(slot, NOON + 60.0, 3, memory=30 * DAY)

    assert parts.table.rows[:, slot].tolist() == before.tolist()


def test_one_poll_is_learned_as_the_sums_say():
    one = unit(1)
    parts = Parts(one)
    slot = parts.set(one, changes=2.0, seen=3.0, exposure=1000.0, minutes=4.0, hours=8.0)
    model = parts.models.of(slot)
    model.changes, model.seen, model.exposure = 5.0, 7.0, 5000.0
    rate = (PRIOR + 2.0) / (PRIOR / model.pooled + 1000.0)
    fades = [math.exp(-600.0 / span) for span in KERNEL_SPANS]
    exposed = [4.0 * (1 - fades[0]), 8.0 * (1 - fades[1])]
    foreseen = rate * 600.0 + 0.3 * exposed[0] + 0.1 * exposed[1]
    own = 3 / foreseen * rate * 600.0
    parts.models.observe(slot, NOON + 600.0, 3, memory=7 * DAY)

    kept = math.exp(-600.0 / (7 * DAY))
    table = parts.table
    assert table.changes[slot] == pytest.approx(2.0 * kept + own)
    assert table.seen[slot] == pytest.approx(3.0 * kept + 3)
    assert model.seen == pytest.approx(7.0 + table.seen[slot] - 3.0)
    assert table.exposure[slot] == pytest.approx(1000.0 * kept + 600.0)
    assert table.minutes[slot] == pytest.approx(4.0 * fades[0] + 3 * KERNEL_SPANS[0] / 600.0 * (1 - fades[0]))
    assert table.hours[slot] == pytest.approx(8.0 * fades[1] + 3 * KERNEL_SPANS[1] / 600.0 * (1 - fades[1]))
    assert model.changes == pytest.approx(5.0 + table.changes[slot] - 2.0)
    assert model.exposure == pytest.approx(5000.0 + table.exposure[slot] - 1000.0)
    assert table.last[slot] == NOON + 600.0
    assert model.rhythm.seen.sum() == pytest.approx(own)


def test_an_excitation_that_has_faded_is_dropped():
    one = unit(1)
    parts = Parts(one)
    slot = parts.set(one, minutes=4.0, hours=1.0)
    parts.models.observe(slot, NOON + 9 * HOUR, 0, memory=30 * DAY)

    assert parts.table.minutes[slot] == 0.0
    assert parts.table.hours[slot] == pytest.approx(math.exp(-4.5))


def test_a_new_last_page_takes_over_what_the_old_one_was_expected_to_show():
    old, new, other = unit(9), unit(10), unit(1)
    parts = Parts(old, new, other)
    parts.set(old, changes=10.0, seen=20.0, exposure=500.0, minutes=4.0, hours=2.0)
    parts.set(other, changes=7.0, seen=8.0, exposure=100.0)
    parts.models.inherit(new, old)
    parts.models.inherit(unit("unknown"), old)
    parts.models.inherit(new, unit("unknown"))
    table, slots = parts.table, parts.slots

    assert [table.changes[slots[one]] for one in (new, old)] == [10.0, pytest.approx(3.0)]
    assert [table.seen[slots[one]] for one in (new, old)] == [20.0, pytest.approx(6.0)]
    assert [table.minutes[slots[one]] for one in (new, old)] == [4.0, pytest.approx(1.2)]
    assert [table.hours[slots[one]] for one in (new, old)] == [2.0, pytest.approx(0.6)]
    assert [table.exposure[slots[one]] for one in (new, old)] == [500.0, 500.0]
    model = parts.models.of(slots[new])
    assert (model.changes, model.seen, model.exposure) == (pytest.approx(20.0), pytest.approx(34.0), 1100.0)


def test_a_source_forgets_what_its_removed_units_have_shown():
    one, two, far = unit(1), unit(2), unit(3, source="shop")
    parts = Parts(one, two, far)
    slot = parts.set(one, changes=10.0, seen=20.0, exposure=500.0)
    parts.set(two, changes=1.0, seen=2.0, exposure=50.0)
    parts.set(far, changes=9.0, seen=9.5, exposure=90.0)
    parts.models.refit(NOON)
    parts.models.forget(slot)

    ours, theirs = parts.models.of(slot), parts.models.of(parts.slots[far])
    assert (ours.changes, ours.seen, ours.exposure) == (1.0, 2.0, 50.0)
    assert (theirs.changes, theirs.seen, theirs.exposure) == (9.0, 9.5, 90.0)


def test_sources_are_numbered_as_they_come_and_their_rhythms_are_even_at_first():
    parts = Parts(unit(1), unit(2, source="shop"), unit(3))

    assert [parts.models.number(name, NOON) for name in ("acme", "shop", "new")] == [0, 1, 2]
    assert [parts.models.known(name) for name in ("acme", "shop", "nobody")] == [0, 1, -1]
    assert len(list(parts.models)) == 3
    assert parts.models.rhythm("nobody") == parts.models.rhythm("shop") == [1.0] * HOURS
    assert sorted(parts.models.dump()) == ["acme", "new", "shop"]


def test_a_profile_that_is_fitted_again_counts_from_each_units_last_poll():
    one, two = unit(1), unit(2)
    parts = Parts(one, two)
    first, second = parts.set(one, last=NOON), parts.set(two, last=NOON + 5 * HOUR)
    parts.models.of(first).rhythm.learn(NOON, NOON + HOUR / 4, 500.0, 1 / HOUR)
    parts.models.refit(NOON + DAY)

    rhythm = parts.models.of(first).rhythm
    assert rhythm.at(NOON) > 1.5
    assert parts.table.profile_integral[first] == pytest.approx(rhythm.integral(NOON))
    assert parts.table.profile_integral[second] == pytest.approx(rhythm.integral(NOON + 5 * HOUR))


# Rates


def test_rates_are_those_of_the_unit_or_else_of_its_source():
    known, new, far = unit(1), unit(2), unit(3, source="shop")
    parts = Parts(known, new, far)
    parts.set(known, changes=100.0, seen=150.0, exposure=10_000.0)
    parts.models.refit(NOON)
    base, mean = base_rates(parts.table, parts.models), mean_rates(parts.table, parts.models)
    pooled, seen = ((PRIOR + changes) / (PRIOR * DAY + 10_000.0) for changes in (100.0, 150.0))

    assert base[parts.slots[known]] == pytest.approx((PRIOR + 100.0) / (PRIOR / pooled + 10_000.0))
    assert base[parts.slots[new]] == pytest.approx(pooled)
    assert base[parts.slots[far]] == pytest.approx(FIRST_RATE)
    assert mean[parts.slots[known]] == pytest.approx((PRIOR + 150.0) / (PRIOR / seen + 10_000.0))
    assert mean[parts.slots[new]] == pytest.approx(seen)
    assert mean[parts.slots[far]] == pytest.approx(FIRST_RATE)


def test_the_rate_now_is_that_of_the_hour_of_the_week():
    one = unit(1)
    parts = Parts(one)
    rhythm = parts.models.of(parts.slots[one]).rhythm = learned(*BUSY, weeks=1)
    slot = parts.set(one, changes=100.0, exposure=100 * HOUR)
    for hour in (3, 10):
        at = NOON - NOON % DAY + DAY + hour * HOUR
        found = expected(parts.table, parts.models, at)
        assert found.rate[slot] == pytest.approx(found.base[slot] * rhythm.at(at))


@pytest.mark.parametrize("age", [0.0, 0.5, 30.0, 600.0, 4 * HOUR, 3 * DAY])
@pytest.mark.parametrize(("minutes", "hours"), [(0.0, 0.0), (5.0, 0.0), (0.0, 5.0), (3.0, 2.0)])
def test_the_delay_that_has_gathered_is_the_integral_of_what_is_unseen(age, minutes, hours):
    one, still = unit(1), unit(2)
    parts = Parts(one, still)
    slot = parts.set(one, changes=10.0, exposure=9.0 * HOUR, minutes=minutes, hours=hours)
    parts.set(still, changes=10.0, exposure=9.0 * HOUR)
    base = base_rates(parts.table, parts.models)[slot]
    at = np.linspace(0.0, age, 20_001)
    rates = base + 0.3 * minutes * np.exp(-at / 300.0) / 300.0 + 0.1 * hours * np.exp(-at / 7200.0) / 7200.0
    found = expected(parts.table, parts.models, NOON + age)

    assert found.rate[slot] == pytest.approx(rates[-1])
    assert found.gathered[slot] == pytest.approx(np.trapezoid(rates * (age - at), at) if age else 0.0, rel=1e-4)
    assert found.rate[parts.slots[still]] == pytest.approx(base)
    assert (found.base.tolist(), found.never.tolist()) == ([base, base], [])


def test_of_a_unit_that_was_never_polled_only_its_rate_is_expected():
    parts = Parts(unit(1))
    found = expected(parts.table, parts.models, NOON)

    assert math.isnan(found.gathered[0])
    assert found.rate[0] == pytest.approx(FIRST_RATE)
    assert found.never.tolist() == [0]


def test_a_clock_that_went_back_leaves_nothing_unseen():
    parts = Parts(unit(1))
    slot = parts.set(unit(1), changes=10.0, exposure=HOUR)
    assert expected(parts.table, parts.models, NOON - 500.0).gathered[slot] == 0.0


# Ranking


def test_the_score_of_a_unit_is_its_gathered_delay_by_weight_and_call():
    plain, heavy, dear, free = unit(1), unit(2, weight=5.0), unit(3, cost=4), unit(4, cost=0)
    parts = Parts(plain, heavy, dear, free)
    for one in (plain, heavy, dear, free):
        parts.set(one)
    score, found = parts.scores.at(NOON + HOUR)

    assert score.tolist() == pytest.approx((found.gathered * [1.0, 5.0, 0.25, 1.0]).tolist(), rel=2e-6)
    assert len(set(score.tolist())) == 4  # equal units are told apart


def test_units_that_were_never_polled_are_before_all_others_in_their_order():
    old, first, second = unit(1, weight=1e9), unit(2), unit(3)
    parts = Parts(old, first, second)
    parts.set(old, changes=1e9, exposure=1.0)
    score, _ = parts.scores.at(NOON + WEEK)

    assert score[parts.slots[first]] > score[parts.slots[second]] > score[parts.slots[old]]


def test_the_first_polls_skip_what_is_polled_in_flight_or_removed():
    units = [unit(key) for key in range(5)]
    parts = Parts(*units)
    line = FirstPolls(parts.table)
    for one in units:
        line.add(parts.slots[one])
    parts.set(units[0])
    parts.table.ready[parts.slots[units[1]]] = math.inf
    parts.units.remove(units[2])
    parts.slots[unit("new")] = parts.units.add(unit("new"), 0)  # in the same slot

    assert line.next(NOON) == parts.slots[units[3]]
    assert len(line) == 2
    parts.table.ready[parts.slots[units[3]]] = NOON + 1.0
    assert line.next(NOON + 1.0) == parts.slots[units[3]]
    assert line.next(NOON) == parts.slots[units[4]]
    assert len(line) == 1


def test_the_line_of_first_polls_is_cleared_of_what_is_no_longer_valid():
    parts = Parts(unit(1))
    line = FirstPolls(parts.table)
    parts.set(unit(1))
    for _ in range(200):
        line.add(parts.slots[unit(1)])

    assert len(line) <= 2 * parts.units.capacity + 1
    assert line.next(NOON) is None


@pytest.mark.parametrize(("passed", "outdated"), [(0.0, False), (59.0, False), (60.0, True), (-1.0, True)])
def test_a_ranking_holds_for_a_minute_and_is_outdated_when_the_clock_went_back(passed, outdated):
    parts = Parts(unit(1))
    assert parts.ranking.is_outdated(NOON)
    parts.ranking.compute(NOON)

    assert parts.ranking.is_outdated(NOON + passed) is outdated


def crowd(number, *, since=NOON):
    """So many units that are alike and were polled at that time, the heavier the later they were added."""
    units = [unit(key, weight=1.0 + key) for key in range(number)]
    parts = Parts(*units)
    for one in units:
        parts.set(one, last=since)
    return parts, units


def test_a_ranking_of_many_units_holds_for_longer():
    parts = Parts(unit(1))
    parts.ranking.compute(NOON)
    parts.ranking._units = range(20_000)  # only their number counts here

    assert not parts.ranking.is_outdated(NOON + 119.99)
    assert parts.ranking.is_outdated(NOON + 120.0)


@pytest.mark.parametrize(("number", "polls"), [(3, 1), (999, 1), (1000, 2)])
def test_units_are_ranked_again_after_each_poll_and_many_after_one_for_every_500(number, polls):
    now = NOON + HOUR
    parts, units = crowd(number)
    best, excited = parts.slots[units[-1]], parts.slots[units[0]]
    assert parts.ranking.next(now) == best
    parts.table.minutes[excited] = 1e9
    for _ in range(polls):
        assert parts.ranking.next(now) == best
        parts.ranking.started()

    assert parts.ranking.next(now) == excited


def test_a_unit_that_was_polled_is_followed_by_the_next_one_of_the_same_ranking():
    now = NOON + HOUR
    parts, units = crowd(2000)
    taken = []
    for _ in range(4):
        slot = parts.ranking.next(now)
        taken.append(slot)
        parts.ranking.observed(slot)

    assert taken == [parts.slots[one] for one in reversed(units[-4:])]


def test_units_that_wait_leave_room_in_the_ranking_for_those_that_are_ready():
    parts, units = crowd(20, since=NOON - 0.001)
    for one in units[4:]:
        parts.table.ready[parts.slots[one]] = math.inf

    assert parts.ranking.next(NOON) == parts.slots[units[3]]
    parts.table.ready[parts.slots[units[3]]] = math.inf
    assert parts.ranking.next(NOON) == parts.slots[units[2]]


def promised(*limits, calls=0.1, age=0.0):
    """Units with these promises, polled so many seconds ago; and as many calls a second as that in the last hour."""
    units = [unit(key, max_staleness=limit) for key, limit in enumerate(limits)]
    parts, at = Parts(*units, now=NOON - 4 * HOUR), NOON - 4 * HOUR
    for one in units:
        parts.set(one, last=NOON - age)
    while at <= NOON:
        parts.pacing.answered(at, 1)
        at += 1 / calls
    parts.ranking.compute(NOON)
    return parts


def test_promises_need_as_many_calls_as_come_due_until_each_deadline():
    assert promised(100.0).pacing.needed == pytest.approx(1 / 100, rel=0.02)
    assert promised(100.0, 100.0, 1000.0).pacing.needed == pytest.approx(2 / 100, rel=0.02)
    assert promised(1000.0, 1000.0, 100.0).pacing.needed == pytest.approx(1 / 100, rel=0.02)
    assert promised(100.0, age=60.0).pacing.needed == pytest.approx(1 / 40, rel=0.02)
    assert promised(100.0, age=500.0).pacing.needed == pytest.approx(0.1, rel=0.02)  # late: as fast as calls leave
    assert promised(None).pacing.needed == 0.0


def test_promises_need_no_calls_for_units_in_flight_nor_before_any_call_was_answered():
    parts = promised(100.0)
    [slot] = parts.slots.values()
    parts.table.ready[slot] = NOON
    parts.ranking.compute(NOON)
    assert parts.pacing.needed > 0.0
    parts.table.ready[slot] = math.inf
    parts.ranking.compute(NOON)
    assert parts.pacing.needed == 0.0

    fresh = Parts(unit(1, max_staleness=100.0))
    fresh.set(unit(1))
    fresh.ranking.compute(NOON)
    assert fresh.pacing.needed == 0.0


def test_urgent_promises_are_kept_in_the_order_of_their_deadlines_and_then_the_best_unit_is_polled():
    parts, now = promised(300.0, 100.0, 200.0, None, None), NOON + 99.0
    parts.table.weight[:5] = 9.0, 1.0, 5.0, 1.0, 2.0
    order = []
    for _ in range(5):
        slot = parts.ranking.next(now)
        order.append(slot)
        parts.table.ready[slot] = math.inf

    assert order == [1, 2, 0, 4, 3]


def test_a_promise_is_urgent_two_calls_before_it_must_leave():
    parts = promised(100.0, None, calls=0.1)
    quiet, busy = (parts.slots[unit(key)] for key in (0, 1))
    parts.table.changes[busy], parts.table.exposure[busy] = 1e6, 1.0

    times = [second for second in range(100) if parts.ranking.next(NOON + second) == quiet]
    assert times[0] == pytest.approx(100 - 10 * (1 + 2), abs=2)
    assert parts.ranking.next(parts.ranking._urgent_at) == quiet


# Pace


def test_calls_per_second_are_those_of_about_the_last_hour():
    parts = Parts(unit(1))
    assert parts.pacing.calls_per_second == 0.0
    for number in range(1, 21):
        parts.pacing.answered(NOON + 30.0 * number, 3)
    assert parts.pacing.calls_per_second == pytest.approx(0.1, rel=0.06)
    for number in range(21, 2000):
        parts.pacing.answered(NOON + 30.0 * number, 3)
    assert parts.pacing.calls_per_second == pytest.approx(0.1, rel=0.01)
    for number in range(1, 2000):
        parts.pacing.answered(NOON + 60_000.0 + 300.0 * number, 3)
    assert parts.pacing.calls_per_second == pytest.approx(0.01, rel=0.06)


def test_the_calls_of_a_first_answer_are_those_of_one_second():
    pacing = Parts(unit(1)).pacing
    pacing.answered(NOON, 3)

    assert pacing.calls_per_second == pytest.approx(3.0, rel=1e-3)


def test_an_answer_out_of_order_counts_and_takes_nothing_back():
    ordered, mixed = Parts(unit(1)).pacing, Parts(unit(1)).pacing
    for at in (10.0, 20.0, 30.0):
        ordered.answered(NOON + at, 1)
    for at in (10.0, 30.0, 20.0):
        mixed.answered(NOON + at, 1)

    assert mixed.calls_per_second == pytest.approx(ordered.calls_per_second, rel=0.01)


@pytest.mark.parametrize(("polls", "days"), [(4.8, 30), (5.0, 7)])
def test_the_memory_is_longer_where_units_are_polled_rarely(polls, days):
    parts = Parts(unit(1))
    units = 100
    for number in range(4000):
        parts.pacing.answered(NOON + number * DAY / (polls * units), 1)

    assert parts.pacing.memory(units) == days * DAY
    assert parts.pacing.memory(0) == 7 * DAY


@pytest.mark.parametrize(
    ("needed", "left", "expected_pace"),
    [
        (0.0, 360, 0.1),
        (0.2, 360, 0.2 * 1.02),  # what promises need
        (9.0, 360, 0.3),  # and three times the even pace at most
        (0.01, 360, 0.1),
    ],
)
def test_the_pace_is_even_where_nothing_is_known_and_as_promises_need(needed, left, expected_pace):
    pacing = Parts(unit(1)).pacing
    pacing.needed = needed

    assert pacing.pace(NOON, left, HOUR) == pytest.approx(expected_pace)


def test_the_pace_follows_the_demand_within_its_bounds():
    one, two = unit(1, weight=4.0), unit(2, cost=4)
    parts = Parts(one, two, unit("never polled", weight=1e6))
    for each in (one, two):
        parts.set(each, changes=10.0, exposure=1000 * HOUR)
    usual = expected(parts.table, parts.models, NOON)

    def pace(factor):
        parts.pacing.forget()
        parts.pacing._swelled = None
        parts.pacing.demand(NOON, structs.replace(usual, rate=usual.base * factor))
        return parts.pacing.pace(NOON, 3600, HOUR)

    assert pace(1.0) == pytest.approx(1.0)
    assert pace(4.0) == pytest.approx(2.0)  # by the root of the rate
    assert pace(0.25) == pytest.approx(0.5)
    assert pace(100.0) == pytest.approx(3.0)
    assert pace(0.001) == pytest.approx(0.3)


@pytest.mark.parametrize("hour", [3, 7, 10, 15, 20])
def test_the_pace_is_that_of_this_hour_relative_to_the_hours_to_come(hour):
    one, now = unit(1), NOON - NOON % DAY + hour * HOUR
    parts = Parts(one)
    rhythm = parts.models.of(parts.slots[one]).rhythm = learned(*BUSY, weeks=1)
    parts.set(one, changes=10.0, exposure=1000 * HOUR)
    for at in (now - 2 * DAY, now - DAY - 5 * HOUR, now):  # the demand is the usual one of each hour
        parts.pacing.demand(at, expected(parts.table, parts.models, at))
    factor = math.sqrt(rhythm.at(now)) / rhythm.mean_root(now, 5 * HOUR)

    assert parts.pacing.pace(now, 18_000, 5 * HOUR) == pytest.approx(min(max(factor, 0.3), 3.0))


def test_a_unit_that_was_never_polled_is_no_part_of_the_demand():
    known, new = unit(1), unit(2)
    parts = Parts(known, new)
    parts.set(known)
    found = expected(parts.table, parts.models, NOON)
    found.rate[parts.slots[known]] *= 4.0
    parts.pacing.demand(NOON, found)

    assert parts.pacing.pace(NOON, 3600, HOUR) == pytest.approx(2.0)


def test_a_demand_that_is_measured_again_at_once_is_no_longer_usual_for_that():
    parts = Parts(unit(1))
    parts.set(unit(1))
    parts.models.number("shop", NOON)  # a source without a unit has no demand
    usual = expected(parts.table, parts.models, NOON)
    for _ in range(100):
        parts.pacing.demand(NOON, structs.replace(usual, rate=usual.base * 4.0))

    assert parts.pacing.pace(NOON, 3600, HOUR) == pytest.approx(2.0, rel=1e-9)


def test_bursts_that_always_come_are_the_usual_demand_after_some_days():
    parts = Parts(unit(1))
    parts.set(unit(1), changes=10.0, exposure=1000 * HOUR)
    usual = expected(parts.table, parts.models, NOON)
    for hour in range(10 * 24):
        parts.pacing.demand(NOON + hour * HOUR, structs.replace(usual, rate=usual.base * 4.0))

    assert parts.pacing.pace(NOON + 240 * HOUR, 3600, HOUR) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("hours", [1, 12, 24])
def test_a_burst_becomes_usual_over_a_day_and_not_at_once(hours):
    parts = Parts(unit(1))
    parts.set(unit(1), changes=10.0, exposure=1000 * HOUR)
    usual = expected(parts.table, parts.models, NOON)
    parts.pacing.demand(NOON, usual)
    now = NOON + hours * HOUR
    parts.pacing.demand(now, structs.replace(usual, rate=usual.base * 4.0))

    assert parts.pacing.pace(now, 3600, HOUR) == pytest.approx(2.0 / (2.0 - math.exp(-hours / 24)))


def test_the_pace_is_saved_across_a_restart():
    parts = promised(100.0)
    other = Parts(unit(1)).pacing
    other.load(parts.pacing.dump())

    assert other.dump() == parts.pacing.dump()
    assert other.calls_per_second == parts.pacing.calls_per_second > 0


# Explanations


def shown(parts, now=NOON + HOUR, calls=0.01):
    score, found = parts.scores.at(now)
    figures = Figures(now=now, score=score, rate=found.rate, mean=mean_rates(parts.table, parts.models), calls=calls)
    return {one.unit: one for one in explained(parts.units.slots(), parts.table, figures)}


def test_the_intervals_of_an_explanation_use_all_calls_by_the_square_root():
    units = [unit(1), unit(2, weight=4.0), unit(3, cost=4), unit(4)]
    parts = Parts(*units)
    for one, changes in zip(units, (100.0, 100.0, 100.0, 900.0), strict=True):
        parts.set(one, changes=changes, exposure=1000 * HOUR)
    found = shown(parts)

    plain = found[units[0]]
    assert sum(one.unit.cost / one.interval for one in found.values()) == pytest.approx(0.01)
    assert found[units[1]].interval == pytest.approx(plain.interval / 2)
    assert found[units[2]].interval == pytest.approx(plain.interval * 2)
    assert found[units[3]].interval == pytest.approx(plain.interval / 3, rel=0.02)
    assert (plain.expected_delay, plain.calls_per_day) == (plain.interval / 2, DAY / plain.interval)
    assert found[units[2]].calls_per_day == pytest.approx(4 * DAY / found[units[2]].interval)
    assert sorted(one.rank for one in found.values()) == [1, 2, 3, 4]
    assert found[units[3]].rank == 1


def test_an_explanation_says_how_old_a_unit_is_and_what_is_unseen():
    parts = Parts(unit(1))
    parts.set(unit(1), changes=100.0, exposure=100 * HOUR)
    one = shown(parts)[unit(1)]

    assert (one.last_poll, one.staleness) == (NOON, HOUR)
    assert one.unseen == pytest.approx(one.rate * HOUR)
    assert one.mean_rate == pytest.approx(one.rate)
    assert one.score == pytest.approx(one.rate * HOUR * HOUR / 2, rel=1e-5)
    assert one.next_poll == pytest.approx(NOON + max(one.interval, HOUR))
    assert one.reason == "its rate and weight per call"
    assert shown(parts, now=NOON - 50.0)[unit(1)].staleness == 0.0


@pytest.mark.parametrize(
    ("columns", "limit", "reason"),
    [
        ({"ready": math.inf}, None, "in flight"),
        ({"ready": NOON + 2 * HOUR}, None, "deferred after a failure"),
        ({}, 60.0, "max_staleness requires more polls than its rate"),
        ({"minutes": 1e9}, None, "more changes are expected now than usual"),
        ({}, 1e9, "its rate and weight per call"),
    ],
)
def test_an_explanation_names_its_reason(columns, limit, reason):
    one = unit(1, max_staleness=limit)
    parts = Parts(one, unit("new"))
    parts.set(one, changes=100.0, exposure=100 * HOUR, **columns)
    found = shown(parts)

    assert found[one].reason == reason
    assert found[one].next_poll < math.inf
    assert found[unit("new")].reason == "never polled: it goes first"
    new = found[unit("new")]
    assert (new.rank, new.last_poll, new.staleness, new.unseen, new.score) == (1, None, None, 0.0, math.inf)
    assert new.next_poll == NOON + HOUR


@pytest.mark.parametrize(("times", "is_burst"), [(1.9, False), (2.1, True)])
def test_a_burst_is_a_rate_of_more_than_twice_the_mean(times, is_burst):
    one = unit(1)
    parts = Parts(one)
    slot = parts.set(one, changes=100.0, exposure=100 * HOUR)
    mean = mean_rates(parts.table, parts.models)[slot]
    parts.table.hours[slot] = (times - 1) * mean * KERNEL_SPANS[1] / 0.1
    found = shown(parts, now=NOON)[one]

    assert found.rate == pytest.approx(times * mean)
    assert (found.reason == "more changes are expected now than usual") is is_burst


def test_a_unit_without_weight_has_no_interval():
    idle, busy = unit(1, weight=0.0), unit(2)
    parts = Parts(idle, busy)
    for one in (idle, busy):
        parts.set(one, changes=100.0, exposure=100 * HOUR)
    found = shown(parts)

    assert (found[idle].interval, found[idle].next_poll) == (math.inf, math.inf)
    assert found[busy].interval == pytest.approx(100.0)


def test_a_unit_that_was_deferred_to_this_moment_waits_no_longer():
    heavy, light = unit(1, weight=9.0), unit(2)
    parts = Parts(heavy, light)
    parts.set(heavy, ready=NOON + HOUR)
    parts.set(light)
    found = shown(parts, now=NOON + HOUR)

    assert (found[heavy].rank, found[light].rank) == (1, 2)
    assert found[heavy].reason == "its rate and weight per call"


def test_a_unit_that_waits_is_ranked_last_and_polled_when_it_may():
    waiting, ready = unit(1, weight=1e6), unit(2)
    parts = Parts(waiting, ready)
    parts.set(waiting, changes=100.0, exposure=HOUR, ready=NOON + 3 * HOUR)
    parts.set(ready, last=NOON + HOUR)
    found = shown(parts)

    assert (found[waiting].rank, found[ready].rank) == (2, 1)
    assert found[waiting].next_poll == NOON + 3 * HOUR


def test_a_promise_shorter_than_its_interval_is_the_interval():
    one = unit(1, max_staleness=90.0)
    parts = Parts(one)
    parts.set(one, last=NOON + HOUR - 30.0)
    found = shown(parts)[one]

    assert found.interval == 90.0
    assert found.next_poll == NOON + HOUR + 60.0
