"""The planner polls the units with the most unseen changes, and explains why."""

import math

import numpy as np
import pytest

from poller.planner.learning import HOUR, WEEK, Rhythm, SourceModel
from poller.planner.planner import Planner, Unit, explanations

NOON = 1_790_000_000.0


def unit(key="1", endpoint="projects", source="acme", **fields):
    return Unit(source, endpoint, str(key), **fields)


def polled(units, *, now=NOON):
    """A planner that has polled each unit once, a second apart."""
    planner = Planner(units, now=now)
    for number, one in enumerate(units):
        planner.started(one)
        planner.observe(one, now + number, 0)
    return planner


def live(planner, rates, *, seconds, every=10.0, now=NOON):
    """Poll on; each unit shows as many changes as chance and its rate bring. Returns the polls of each."""
    chance = np.random.default_rng(0)
    polls, last = dict.fromkeys(rates, 0), dict.fromkeys(rates, now)
    end = now + seconds
    while now < end:
        now += every
        if (one := planner.choose(now)) is None:
            continue
        planner.started(one)
        planner.observe(one, now, int(chance.poisson(rates[one] * (now - last[one]))))
        polls[one] += 1
        last[one] = now
    return polls


def test_a_unit_is_its_source_endpoint_and_key():
    assert unit(cost=3, weight=2.0, max_staleness=5.0) == unit()
    assert hash(unit(cost=3)) == hash(unit())
    assert len({unit(), unit(2), unit(endpoint="tasks"), unit(source="shop")}) == 4


def test_units_never_polled_go_first_in_the_order_they_came():
    units = [unit(key) for key in "dbca"]
    planner = Planner(units, now=NOON)
    seen = []
    for step in range(4):
        one = planner.choose(NOON + step)
        planner.started(one)
        planner.observe(one, NOON + step, 0)
        seen.append(one)
    assert seen == units


def test_a_new_unit_goes_before_all_that_were_polled():
    planner = polled([unit(1), unit(2)])
    planner.add(unit(3), now=NOON + 500)

    assert planner.choose(NOON + 500) == unit(3)


def test_asking_changes_nothing():
    planner = polled([unit(1), unit(2)])

    assert planner.choose(NOON + 50) == planner.choose(NOON + 50) == unit(1)


def test_busier_units_are_polled_more_often_by_the_square_root():
    busy, calm = unit("busy"), unit("calm")
    rates = {busy: 1 / 600, calm: 1 / 5400} | {unit(key): 1 / 1800 for key in range(20)}
    polls = live(polled(list(rates)), rates, seconds=6 * 86400)

    assert polls[busy] / polls[calm] == pytest.approx(3, rel=0.25)


def test_weight_counts_like_a_higher_rate_and_cost_like_a_lower_one():
    units = [unit("plain"), unit("heavy", weight=4.0), unit("dear", cost=4)]
    polls = live(polled(units), dict.fromkeys(units, 1 / 600), seconds=6 * 86400, every=30.0)

    assert polls[unit("heavy")] / polls[unit("plain")] == pytest.approx(2, rel=0.25)
    assert polls[unit("plain")] / polls[unit("dear")] == pytest.approx(2, rel=0.25)


def test_a_unit_in_flight_is_not_chosen_again():
    planner = Planner([unit(1), unit(2)], now=NOON)
    planner.started(unit(1))

    assert planner.choose(NOON) == unit(2)
    planner.started(unit(2))
    assert planner.choose(NOON) is None
    assert planner.next_due(NOON) is None
    planner.released(unit(1))
    assert planner.choose(NOON) == unit(1)


def test_a_released_unit_that_was_polled_before_may_be_chosen_at_once():
    planner = polled([unit(1)])
    planner.choose(NOON + 60)
    planner.started(unit(1))
    assert planner.choose(NOON + 60) is None
    planner.released(unit(1))
    assert planner.choose(NOON + 60) == unit(1)


def test_a_deferred_unit_waits_and_its_age_keeps_growing():
    planner = polled([unit(1), unit(2)])
    planner.started(unit(1))
    planner.defer(unit(1), NOON + 100)

    assert planner.choose(NOON + 99) == unit(2)
    planner.started(unit(2))
    assert planner.choose(NOON + 99) is None
    assert planner.next_due(NOON + 99) == NOON + 100
    assert planner.choose(NOON + 100) == unit(1)
    assert planner.explain(unit(1), NOON + 100).staleness == 100


def test_a_unit_whose_first_poll_failed_is_polled_first_once_it_may():
    planner = polled([unit(1), unit(2)])
    planner.add(unit(3), now=NOON + 10)
    planner.started(unit(3))
    planner.defer(unit(3), NOON + 40)

    assert planner.choose(NOON + 30) != unit(3)
    assert planner.choose(NOON + 200) == unit(3)


def test_an_empty_planner_has_nothing_to_poll():
    planner = Planner([], now=NOON)

    assert planner.choose(NOON) is None
    assert planner.next_due(NOON) is None
    assert planner.pace(NOON, 3600, 3600.0) == pytest.approx(1.0)
    planner.add(unit(), now=NOON)
    assert planner.choose(NOON) == unit()


def test_calls_about_a_removed_unit_are_ignored():
    planner = polled([unit(1), unit(2)])
    planner.started(unit(1))
    planner.remove(unit(1))
    planner.remove(unit(1))
    planner.observe(unit(1), NOON + 5, 3)
    planner.defer(unit(1), NOON + 9)
    planner.excite(unit(1), 1)
    planner.released(unit(1))

    assert unit(1) not in planner.units
    assert list(planner.units) == [unit(2)]
    assert planner.choose(NOON + 20) == unit(2)


def test_a_new_weight_keeps_what_was_learned():
    planner = polled([unit(1), unit(2)])
    live(planner, {unit(1): 1 / 60, unit(2): 1 / 600}, seconds=86400)
    before = planner.explain(unit(1), NOON + 90000).mean_rate
    planner.add(unit(1, weight=7.0, cost=2), now=NOON + 90000)

    after = planner.explain(unit(1), NOON + 90000)
    assert after.mean_rate == before
    assert after.unit.weight == 7.0
    assert len(planner.units) == 2


def test_a_burst_brings_the_next_poll_forward():
    units = [unit(key) for key in range(20)]
    planner = polled(units)
    live(planner, dict.fromkeys(units, 1 / 3600), seconds=20_000)
    now = NOON + 20_060
    planner.observe(unit(7), now, 10)

    order = [one.unit for one in explanations(planner, now + 120)]
    assert planner.explain(unit(7), now).rate > 3 * planner.explain(unit(7), now).mean_rate
    assert order.index(unit(7)) < 5


def test_an_excited_child_is_polled_soon():
    units = [unit(key, endpoint="lines") for key in range(50)]
    planner = polled(units)
    live(planner, dict.fromkeys(units, 1 / 7200), seconds=86400)
    now = NOON + 86400 + 60
    rank = planner.explain(units[3], now).rank
    planner.excite(units[3], 5)

    assert planner.explain(units[3], now).rank < max(rank, 2)


def test_an_import_does_not_hijack_the_budget():
    units = [unit(key) for key in range(10)]
    planner = polled(units)
    live(planner, dict.fromkeys(units, 1 / 3600), seconds=2 * 86400, every=30.0)
    now = NOON + 2 * 86400 + 1
    before = planner.explain(unit(4), now).mean_rate
    planner.observe(unit(4), now, 100_000)

    assert planner.explain(unit(4), now).mean_rate < before + 40 / 86400


def test_promised_units_are_polled_in_time_however_quiet():
    quiet = unit("quiet", max_staleness=600.0)
    rates = {quiet: 0.0} | {unit(key): 1 / 30 for key in range(100)}
    planner = polled(list(rates))
    last, longest = NOON, 0.0
    for now in np.arange(NOON + 110, NOON + 20_000, 10.0).tolist():
        one = planner.choose(now)
        planner.started(one)
        if one == quiet:
            longest, last = max(longest, now - last), now
        planner.observe(one, now, 1 if rates[one] else 0)

    assert longest <= 610
    assert longest >= 500, "and not much more often than that"


def test_a_new_last_page_inherits_the_rate_of_the_old_one():
    old, new = unit("9"), unit("10")
    planner = polled([unit("8"), old])
    live(planner, {unit("8"): 1 / 3600, old: 1 / 60}, seconds=2 * 86400, every=30.0)
    now = NOON + 2 * 86400
    rate = planner.explain(old, now).mean_rate
    planner.add(new, now=now)
    planner.models.inherit(new, old)

    assert planner.explain(new, now).mean_rate == pytest.approx(rate, rel=0.1)
    assert planner.explain(old, now).mean_rate == pytest.approx(0.3 * rate, rel=0.1)


def test_a_new_unit_is_taken_for_one_like_its_source_has():
    units = [unit(key) for key in range(5)]
    planner = polled(units)
    live(planner, dict.fromkeys(units, 1 / 600), seconds=86400)
    planner.add(unit("new"), now=NOON + 90000)
    planner.add(unit("other", source="shop"), now=NOON + 90000)

    assert planner.explain(unit("new"), NOON + 90000).mean_rate == pytest.approx(1 / 600, rel=0.3)
    assert planner.explain(unit("other", source="shop"), NOON + 90000).mean_rate == pytest.approx(1 / 86400)


def test_the_pace_is_even_while_nothing_is_known():
    assert Planner([unit()], now=NOON).pace(NOON, 8640, 86400.0) == pytest.approx(0.1)


def test_more_is_spent_in_busy_hours_within_bounds():
    units = [unit(key) for key in range(10)]
    planner = polled(units)
    now, last = NOON, NOON
    for now in np.arange(NOON, NOON + 5 * 86400, 60.0).tolist():
        one = planner.choose(now)
        if one is None:
            continue
        planner.started(one)
        planner.observe(one, now, 2 if 9 <= now / HOUR % 24 < 17 else 0)
    midnight = math.ceil(now / 86400) * 86400.0
    noon, night = (planner.pace(midnight + hour * HOUR, 86400, 86400.0) for hour in (12, 27))

    assert 1.1 < noon <= 3.0
    assert 0.3 <= night < 0.9
    assert last == NOON


def test_the_pace_is_no_less_than_promises_need():
    units = [unit(key, max_staleness=200.0) for key in range(10)]
    planner = polled(units)
    live(planner, dict.fromkeys(units, 0.0), seconds=3600, every=19.0)

    assert planner.pace(NOON + 3620, 250, 3600.0) * 3600 > 170


def test_a_clock_that_goes_back_does_no_harm():
    planner = polled([unit(1), unit(2)])
    planner.observe(unit(1), NOON - 5000, 2)

    assert planner.choose(NOON - 6000) is not None
    assert math.isfinite(planner.explain(unit(1), NOON - 6000).rate)


def test_explanations_say_what_is_next_and_why():
    planner = polled([unit(1), unit(2, max_staleness=60.0), unit(3)])
    live(planner, {unit(1): 1 / 60, unit(2): 0.0, unit(3): 1 / 3600}, seconds=86400)
    planner.add(unit("new"), now=NOON + 86400)
    planner.started(unit(3))
    found = {one.unit: one for one in explanations(planner, NOON + 86420, calls_per_second=0.1)}

    assert found[unit("new")].rank == 1
    assert found[unit("new")].staleness is None
    assert "never polled" in found[unit("new")].reason
    assert "max_staleness" in found[unit(2)].reason
    assert found[unit(2)].interval == 60.0
    assert found[unit(3)].reason == "in flight"
    assert found[unit(1)].expected_delay == found[unit(1)].interval / 2
    assert found[unit(1)].next_poll >= NOON + 86420


def test_an_unknown_unit_cannot_be_explained():
    with pytest.raises(KeyError):
        Planner([], now=NOON).explain(unit(), NOON)


def test_a_profile_learns_the_hours_and_keeps_the_mean():
    rhythm = Rhythm()
    for hour in range(24 * 28):
        start = hour * HOUR
        rhythm.learn(start, start + HOUR, 40 if 8 <= hour % 24 < 16 else 1, 14 / HOUR)
    rhythm.refit(0.0)

    assert rhythm.at(10 * HOUR) > 2
    assert rhythm.at(2 * HOUR) < 0.3
    assert rhythm.integral(WEEK * 3) - rhythm.integral(WEEK * 2) == pytest.approx(WEEK)


def test_long_intervals_are_spread_as_the_profile_expects():
    rhythm = Rhythm()
    rhythm.learn(0.5 * HOUR, 2.5 * HOUR, 8, 1 / HOUR)

    assert rhythm.seen[:4].tolist() == pytest.approx([2, 4, 2, 0])
    assert rhythm.expected[:4].tolist() == pytest.approx([0.5, 1, 0.5, 0])


def test_integrals_of_many_instants_are_those_of_each():
    rhythm = Rhythm()
    rhythm.learn(0.0, HOUR, 500, 1 / HOUR)
    rhythm.refit(0.0)
    times = np.array([0.0, 1800.5, HOUR, WEEK + 7.0, NOON])

    assert rhythm.integrals(times).tolist() == pytest.approx([rhythm.integral(time) for time in times.tolist()])
    assert math.isnan(rhythm.integrals(np.array([math.nan]))[0])


def test_changes_are_put_down_to_what_expected_them():
    model = SourceModel(0.0)

    counted, own = model.split(6, 1.0, (10.0, 0.0))

    assert (counted, own) == (6, pytest.approx(1.5))
    assert model.offspring == [pytest.approx(4.5), 0.0]
    assert model.split(1000, 1.0, (0.0, 0.0)) == (25, pytest.approx(25))
