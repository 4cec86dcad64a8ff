"""Worlds have the rates they say, and the bounds are what theory says of them."""

import math

import numpy as np
import pytest

from poller.simulation import bounds
from poller.simulation.worlds import DAY, HOUR, KINDS, MONDAY, SPREAD, make, recorded

CALLS = 20_000 / DAY


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_same_world_twice(kind):
    first, second, other = (make(kind, units=10, days=1, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first.times, second.times)
    assert not np.array_equal(first.times, other.times)


@pytest.mark.parametrize("kind", KINDS)
def test_changes_stay_inside_and_ascend_within_each_unit(kind):
    world = make(kind, units=20, days=2, seed=3)

    assert world.times.min() >= MONDAY
    assert world.times.max() < MONDAY + world.seconds
    for first, end in zip(world.offsets, world.offsets[1:], strict=False):
        assert (np.diff(world.times[first:end]) >= 0).all()
    assert world.offsets[-1] == world.times.size


@pytest.mark.parametrize("kind", ["equal", "lognormal", "zipf", "rhythm", "drift"])
def test_a_world_changes_as_often_as_its_rates_say(kind):
    world = make(kind, days=10, changes_per_day=5000, seed=4)

    assert world.rates.sum() * DAY == pytest.approx(5000)
    assert world.times.size == pytest.approx(50_000, rel=0.02)
    expected = world.rates * world.seconds
    assert (np.abs(np.diff(world.offsets) - expected) < 6 * np.sqrt(expected) + 1).all()


def test_bursts_keep_the_mean_rate_and_crowd_changes_together():
    plain, bursty = (make(kind, days=10, seed=5) for kind in ("lognormal", "bursts"))

    assert bursty.times.size == pytest.approx(plain.times.size, rel=0.1)
    assert _together(bursty) > 2 * _together(plain)


def _together(world):
    """The share of changes with another one of the unit within ten seconds."""
    gaps = np.concatenate([np.diff(part) for part in np.split(world.times, world.offsets[1:-1])])
    return float((gaps < 10).mean())


def test_nights_are_quiet_where_there_is_a_rhythm():
    world = make("rhythm", days=5, seed=6)
    hour = (world.times - MONDAY) % DAY // HOUR

    assert ((hour >= 12) & (hour < 15)).sum() > 5 * ((hour >= 1) & (hour < 4)).sum()


def test_drifting_rates_are_others_after_two_weeks():
    world = make("drift", days=14, seed=7)
    logs = np.log(world.hourly)

    assert 0.2 < np.corrcoef(logs[:, 0], logs[:, -1])[0, 1] < 0.7
    assert np.corrcoef(logs[:, 0], logs[:, 24])[0, 1] > 0.85


def test_a_world_with_imports_is_the_realistic_one_and_more():
    plain, more = (make(kind, days=3, seed=8) for kind in ("realistic", "imports"))

    assert np.array_equal(np.sort(more.times[more.ordinary]), np.sort(plain.times))
    assert (~more.ordinary).sum() == 3 * 600


def test_a_recorded_history_is_a_world():
    world = recorded([[10.0, 20.0], [], [5.0, 7200.0, 99999.0]], start=0.0, end=7201.0)

    assert world.units == 3
    assert world.times.tolist() == [10.0, 20.0, 5.0, 7200.0]
    assert world.rates[0] * world.seconds == pytest.approx(2)
    assert world.rates[1] == 0


@pytest.mark.parametrize("kind", ["lognormal", "zipf", "equal"])
def test_the_square_root_rule_with_known_rates_reaches_the_optimum(kind):
    world = make(kind, days=28, seed=9)
    every = bounds.intervals(world.rates, CALLS)

    assert (1 / every).sum() == pytest.approx(CALLS)
    assert _fixed(world, every) == pytest.approx(bounds.optimum(world.rates, CALLS), rel=0.01)


def test_polling_in_proportion_to_the_rate_is_no_better_than_in_turn():
    world = make("lognormal", days=28, seed=10)
    every = world.rates.sum() / (CALLS * world.rates)

    assert _fixed(world, every) == pytest.approx(bounds.in_turn(CALLS, units=world.units), rel=0.02)


def _fixed(world, every):
    """The mean delay of polling each unit at a fixed interval, from a phase of its own."""
    owners = np.repeat(np.arange(world.units), np.diff(world.offsets))
    phase = np.random.default_rng(0).random(world.units) * every
    return float(((phase[owners] - (world.times - world.start)) % every[owners]).mean())


def test_in_turn_loses_to_the_optimum_as_rates_spread():
    rates = np.random.default_rng(11).lognormal(0, SPREAD, 400_000)

    gain = bounds.in_turn(1.0, units=rates.size) / bounds.optimum(rates, 1.0)

    assert gain == pytest.approx(math.exp(SPREAD**2 / 4), rel=0.02)
    assert bounds.in_turn(1.0, units=9) == pytest.approx(bounds.optimum(np.ones(9), 1.0))


def test_no_intervals_beat_the_square_root_rule():
    random = np.random.default_rng(12)
    rates, weights, costs = random.lognormal(0, 1, 30), random.uniform(1, 5, 30), random.integers(1, 4, 30)
    best = bounds.intervals(rates, 2.0, weights=weights, costs=costs)

    def delay(every):
        return (weights * rates * every / 2).sum() / (weights * rates).sum()

    assert (costs / best).sum() == pytest.approx(2.0)
    assert delay(best) == pytest.approx(bounds.optimum(rates, 2.0, weights=weights, costs=costs))
    for _ in range(20):
        other = best * random.uniform(0.7, 1.4, 30)
        other *= (costs / other).sum() / 2.0
        assert delay(other) >= delay(best)


def test_knowing_the_hours_helps_exactly_where_they_differ():
    steady, daily = make("lognormal", seed=13), make("rhythm", seed=13)

    assert bounds.hourly(steady.hourly, CALLS) == pytest.approx(bounds.optimum(steady.rates, CALLS))
    assert bounds.hourly(daily.hourly, CALLS) < 0.9 * bounds.optimum(daily.rates, CALLS)
