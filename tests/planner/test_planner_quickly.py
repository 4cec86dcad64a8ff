"""What a planner does at once: excitation, polls of which it has learned nothing, renaming, and its figures."""

import math

import orjson
import pytest

import poller.planner
from poller.planner import planner as planner_module
from poller.planner.memory import renamed
from poller.planner.planner import Planner, explanations
from poller.planner.units import Unit

NOON = 1_790_000_000.0
ONE, TWO = Unit("acme", "projects", "1"), Unit("shop", "items", "2")


def polled(*units, at=NOON):
    planner = Planner(units, now=NOON)
    for one in units:
        planner.observe(one, at, 0)
    return planner


def test_models_are_fitted_again_every_half_hour_and_forget_units_that_are_removed():
    planner = polled(ONE, TWO)
    [model, _] = planner.models
    for passed, refitted in ((1799.0, NOON), (1800.0, NOON + 1800.0)):
        planner.observe(ONE, NOON + passed, 3)
        assert model.refitted == refitted
    assert model.seen > 0
    planner.remove(ONE)

    assert (model.changes, model.seen, model.exposure) == (0.0, 0.0, 0.0)


def test_what_is_loaded_and_where_a_poll_is_only_known_by_its_time_the_ranking_is_made_again():
    units = [Unit("acme", "projects", str(key)) for key in range(3000)]  # so many that several picks share a ranking
    planner = polled(*units)
    now, best = NOON + 60.0, planner.choose(NOON + 60.0)
    assert best is not None
    saved = polled(*units)
    saved.observe(best, now, 0)
    planner.load(saved.dump())
    second = planner.choose(now)
    assert second is not None
    assert second != best
    planner.polled(second, now)

    assert planner.choose(now) not in (None, best, second)


def test_excitation_adds_up_and_fades():
    planner = polled(ONE, TWO)
    calm = planner.explain(ONE, NOON).rate
    planner.excite(ONE, 2)
    once = planner.explain(ONE, NOON).rate
    planner.excite(ONE, 2)
    twice = planner.explain(ONE, NOON).rate

    assert once - calm == pytest.approx(2 * 0.3 / 300 + 2 * 0.1 / 7200)
    assert twice - calm == pytest.approx(2 * (once - calm))
    assert planner.explain(ONE, NOON + 86_400.0).rate == pytest.approx(calm, rel=0.01)
    assert planner.explain(TWO, NOON).rate == calm


def test_a_poll_of_which_nothing_is_known_but_its_time_is_the_last_one():
    planner = polled(ONE)
    planner.polled(ONE, NOON + 50.0)
    assert planner.explain(ONE, NOON + 60.0).staleness == 10.0
    planner.polled(ONE, NOON + 20.0)  # an earlier time is ignored
    planner.polled(TWO, NOON)
    assert planner.explain(ONE, NOON + 60.0).staleness == 10.0

    fresh = Planner([TWO], now=NOON)
    fresh.polled(TWO, NOON - 90.0)
    assert fresh.explain(TWO, NOON).staleness == 90.0
    assert fresh.explain(TWO, NOON).unseen == pytest.approx(90.0 / 86_400)


def test_what_was_learned_of_a_source_is_known_under_its_new_name():
    planner = polled(ONE, TWO)
    planner.observe(ONE, NOON + 600.0, 7)
    saved = renamed(planner.dump(), "acme", "emca")
    heir, other = Unit("emca", "projects", "1"), Planner([TWO], now=NOON)
    other.add(heir, now=NOON)
    other.load(saved)

    assert other.explain(heir, NOON + 700.0).mean_rate == planner.explain(ONE, NOON + 700.0).mean_rate
    assert other.explain(TWO, NOON + 700.0).last_poll == NOON
    assert sorted(orjson.loads(saved)["sources"]) == ["emca", "shop"]


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[]", b'{"units":[[]],"sources":{}}', b'{"units":7}'])
def test_only_what_a_planner_has_saved_can_be_renamed(garbage):
    with pytest.raises(ValueError, match="not a saved planner"):
        renamed(garbage, "acme", "emca")


def test_explanations_count_with_the_calls_that_are_made_or_given():
    planner = polled(ONE)
    assert explanations(Planner([ONE], now=NOON), NOON)[0].calls_per_day == pytest.approx(86_400)
    for number in range(1, 2000):
        planner.observe(ONE, NOON + 20.0 * number, 0)
    now = NOON + 40_000.0

    assert explanations(planner, now)[0].calls_per_day == pytest.approx(86_400 / 20, rel=0.02)
    assert explanations(planner, now, calls_per_second=0.01)[0].calls_per_day == pytest.approx(864)


def test_explanations_come_in_the_order_of_polls():
    units = [Unit("acme", "projects", str(key), weight=float(key)) for key in (3, 1, 2)]
    found = explanations(polled(*units), NOON + 60.0)

    assert [one.unit.key for one in found] == ["3", "2", "1"]
    assert [one.rank for one in found] == [1, 2, 3]


def test_the_planner_is_imported_when_it_is_first_used():
    assert poller.planner.Planner is planner_module.Planner
    with pytest.raises(AttributeError, match="no attribute 'Plan'"):
        poller.planner.Plan  # noqa: B018


@pytest.mark.parametrize(
    ("source", "due"), [(None, NOON + 5.0), ("acme", NOON + 5.0), ("shop", NOON + 9.0), ("x", None)]
)
def test_the_next_unit_of_a_source_is_due_when_it_may(source, due):
    planner = polled(ONE, TWO)
    planner.defer(ONE, NOON + 5.0)
    planner.defer(TWO, NOON + 9.0)

    assert planner.next_due(NOON, source) == due
    assert planner.next_due(NOON + 7.0, "acme") == NOON + 7.0


def test_a_unit_may_be_chosen_at_the_moment_to_which_it_was_deferred_or_at_which_it_was_polled():
    planner, now = polled(ONE), NOON + 60.0
    assert planner.choose(now) == ONE
    planner.started(ONE)
    assert planner.choose(now) is None
    planner.defer(ONE, now)
    assert planner.choose(now) == ONE
    planner.started(ONE)
    assert planner.choose(now) is None
    planner.observe(ONE, now, 0)

    assert planner.choose(now) == ONE


def test_a_planner_that_grows_ranks_old_and_new_units_alike():
    planner = Planner([], now=NOON)
    units = [Unit("acme", "projects", str(key), weight=1.0 + key) for key in range(40)]
    for one in units:
        planner.add(one, now=NOON)
        planner.observe(one, NOON, 0)

    assert [one.unit for one in explanations(planner, NOON + 60.0)] == units[::-1]


def test_a_unit_that_is_not_known_is_named_where_it_is_to_be_explained():
    with pytest.raises(KeyError) as unknown:
        polled(ONE).explain(TWO, NOON)

    assert unknown.value.args == (TWO,)


def test_a_unit_that_is_in_flight_is_due_when_its_answer_has_come():
    planner = polled(ONE)
    planner.started(ONE)
    assert planner.next_due(NOON) is None
    planner.observe(ONE, NOON + 1.0, 0)

    assert planner.next_due(NOON + 1.0) == NOON + 1.0
    assert math.isfinite(planner.explain(ONE, NOON + 1.0).next_poll)


def several(number, *, seed=0):
    """A planner of equal units, all of which were polled at noon, and a function that polls the next of them."""
    planner = Planner([Unit("acme", "projects", str(key)) for key in range(number)], now=NOON, seed=seed)
    for one in list(planner.units):
        planner.observe(one, NOON, 0)

    def poll_next(now):
        chosen = planner.choose(now)
        assert chosen is not None
        planner.started(chosen)
        planner.observe(chosen, now, 0)
        return chosen.key

    return poll_next


def test_the_seed_decides_between_equal_units():
    one, same, other = (several(30, seed=seed) for seed in (7, 7, 8))
    orders = [[poll_next(NOON + 3600.0) for _ in range(30)] for poll_next in (one, same, other)]

    assert orders[0] == orders[1] != orders[2]
    assert all(len(set(order)) == 30 for order in orders)


def test_several_polls_of_one_ranking_are_of_different_units():
    poll_next = several(3000)  # so many that six picks share a ranking

    assert len({poll_next(NOON + 3600.0) for _ in range(12)}) == 12
