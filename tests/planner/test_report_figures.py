"""The figures of `poller plan`: intervals, delays and what hypothetical settings change, by the rule alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.budget.limits import Limit
from poller.options.problems import NotThere
from poller.planner.learning import HOUR, HOURS
from poller.planner.planner import Planner, Unit
from poller.planner.report import PlannerState, WhatIf, busiest, check_names, intervals, parse_weight, report, rows

NOON = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT
DAY = 86_400.0
CALLS = (Limit(864, DAY),)  # one in a hundred seconds


def unit(key, endpoint="projects", source="acme", **fields):
    return Unit(source, endpoint, str(key), **fields)


def state(*units, budget="office", limits=CALLS, share=1.0, polled=True):
    """A planner that has polled each unit once, a minute apart and the last one at noon; nothing has changed."""
    planner = Planner(units, now=NOON)
    for age, one in enumerate(reversed(units)):
        if polled:
            planner.observe(one, NOON - 60.0 * age, 0)
    return PlannerState(budget=budget, limits=tuple(limits), share=share, planner=planner, now=NOON)


# Intervals


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1e-6, 0.1), st.integers(1, 5), st.floats(0.1, 10.0), st.none() | st.floats(10.0, 1e4)),
        min_size=1,
        max_size=8,
    )
)
def test_intervals_use_all_calls_and_are_worth_the_same_everywhere_unless_a_promise_is_shorter(given_units):
    units = [unit(key, cost=c, weight=w, max_staleness=s) for key, (_, c, w, s) in enumerate(given_units)]
    rates = np.array([rate for rate, *_ in given_units])
    promised = sum(one.cost / one.max_staleness for one in units if one.max_staleness)
    found = intervals(units, rates, promised + 0.01)

    limits = [one.max_staleness or math.inf for one in units]
    assert all(interval <= limit for interval, limit in zip(found, limits, strict=True))
    calls = sum(one.cost / interval for one, interval in zip(units, found, strict=True))
    free = [at for at, (interval, limit) in enumerate(zip(found, limits, strict=True)) if interval < limit]
    if free:
        assert calls == pytest.approx(promised + 0.01)
        worth = [units[at].weight * rates[at] * found[at] ** 2 / units[at].cost for at in free]
        assert max(worth) == pytest.approx(min(worth))


def test_a_unit_that_never_changes_is_polled_hardly_ever():
    still, busy = intervals([unit(1), unit(2)], np.array([0.0, 0.1]), 1.0)

    assert busy == pytest.approx(1.0)
    assert still > 1e6


def test_promises_that_take_every_call_leave_the_others_none():
    promised, other = intervals([unit(1, max_staleness=1.0), unit(2)], np.array([0.1, 0.1]), 1.0)

    assert promised == 1.0
    assert other > 1e8


# Endpoints


def test_an_endpoint_adds_up_its_units():
    units = [unit(1), unit(2, weight=3.0), unit(3, "tasks", weight=2.0, cost=4), unit(4, source="shop")]
    found = report([state(*units)])

    assert [(one.source, one.endpoint, one.units, one.weight) for one in found.endpoints] == [
        ("acme", "projects", 2, 3.0),
        ("acme", "tasks", 1, 2.0),
        ("shop", "projects", 1, 1.0),
    ]
    by_unit = {one.unit: one for one in found.units}
    projects, tasks, shop = found.endpoints
    first, second = by_unit[units[0]], by_unit[units[1]]
    assert projects.changes_per_day == pytest.approx((first.mean_rate + second.mean_rate) * DAY)
    assert projects.calls_per_day == pytest.approx(first.calls_per_day + second.calls_per_day)
    assert projects.expected_delay == pytest.approx((first.expected_delay + second.expected_delay) / 2)
    assert projects.next_poll == min(first.next_poll, second.next_poll)
    assert (projects.staleness, tasks.staleness, shop.staleness) == (180.0, 60.0, 0.0)
    assert sum(one.calls_per_day for one in found.endpoints) == pytest.approx(864)
    assert sorted(one.rank for one in found.units) == [1, 2, 3, 4]


def test_an_endpoint_with_a_unit_that_was_never_polled_has_no_staleness():
    made = state(unit(1))
    made.planner.add(unit(2), now=NOON)

    assert report([made]).endpoints[0].staleness is None
    assert report([made]).endpoints[0].next_poll == NOON


@pytest.mark.parametrize(
    ("hour", "level", "text"),
    [
        (0, 1.2, "Mon 00:00 UTC, 1.2 times the mean"),
        (167, 2.0, "Sun 23:00 UTC, 2.0 times the mean"),
        (9, 1.19, "even"),
    ],
)
def test_the_busiest_hour_is_one_that_is_a_fifth_above_the_mean(hour, level, text):
    levels = [1.0] * HOURS
    levels[hour] = level

    assert busiest(levels) == text


def test_a_week_begins_on_monday_where_people_read_it():
    made = state(unit(1))
    monday = 4 * DAY  # the epoch was a Thursday
    for week in range(8):
        made.planner.models.of(0).rhythm.learn(
            monday + week * 7 * DAY + 9 * HOUR, monday + week * 7 * DAY + 9.9 * HOUR, 400.0, 1 / HOUR
        )
    made.planner.models.refit(NOON)
    [one] = report([made]).endpoints

    assert one.busiest.startswith("Mon 09:00 UTC")
    assert max(range(HOURS), key=one.rhythm.__getitem__) == 9
    assert np.mean(one.rhythm) == pytest.approx(1.0)


# Budgets and hypothetical settings


def test_a_budget_is_reported_with_its_windows_and_the_tightest_one():
    limits = [Limit(5, 1.0), Limit(864, DAY)]
    [budget] = report([state(unit(1), limits=limits, share=0.5)]).budgets

    assert (budget.name, budget.share, budget.calls_per_day, budget.broken_promise) == ("office", 0.5, 432.0, None)
    assert [(one.limit, one.calls_per_day) for one in budget.windows] == [("5/s", 432_000.0), ("864/day", 432.0)]


def labels(what_if):
    return [one.label for one in report([state(unit(1), unit(2, "tasks"))], what_if).budgets[0].expectations]


@pytest.mark.parametrize(
    ("what_if", "more"),
    [
        (WhatIf(), []),
        (WhatIf(share=0.5), ["share 0.5"]),
        (WhatIf(limits=(Limit(9, 1.0), Limit(90, 60.0))), ["share 1 9/s 90/min"]),
        (WhatIf(weights={"tasks": 5.0}), ["weight tasks=5"]),
        (WhatIf(weights={"tasks": 5.0, "projects": 2.5}), ["weight tasks=5", "weight projects=2.5", "all of these"]),
        (WhatIf(share=0.5, weights={"tasks": 5.0}), ["share 0.5", "weight tasks=5", "all of these"]),
        (WhatIf(share=1.0, weights={"tasks": 5.0}), ["share 1", "weight tasks=5"]),  # it is the share that it has
    ],
)
def test_each_hypothetical_setting_is_reported_alone_and_then_all_together(what_if, more):
    assert labels(what_if) == ["current settings", "+10 % calls", *more]


def test_a_weight_of_one_sources_endpoint_goes_before_that_of_all_of_its_name():
    units = [unit(1), unit(2, source="shop"), unit(3, "tasks")]
    what_if = WhatIf(weights={"projects": 4.0, "acme/projects": 9.0})
    together = report([state(*units)], what_if).budgets[0].expectations[-1].expected_delays

    assert together["acme/projects"] == pytest.approx(together["acme/tasks"] / 3)
    assert together["shop/projects"] == pytest.approx(together["acme/tasks"] / 2)
    assert list(together) == sorted(together)


def test_expectations_are_means_over_changes():
    one, two = unit(1), unit(2, "tasks")
    made = state(one, two)
    for number in range(1, 400):
        made.planner.observe(two, NOON + 60.0 * number, 1)
    now = report([made]).budgets[0].expectations[0]
    rates = {one.unit.endpoint: one.mean_rate for one in report([made]).units}

    delays = now.expected_delays
    total = rates["projects"] + rates["tasks"]
    mean = (rates["projects"] * delays["acme/projects"] + rates["tasks"] * delays["acme/tasks"]) / total
    assert now.expected_delay == pytest.approx(mean)
    assert delays["acme/tasks"] < delays["acme/projects"]
    assert now.calls_per_day == pytest.approx(864)


@pytest.mark.parametrize(("calls", "keeps"), [(1440, False), (1441, True)])
def test_promises_are_kept_where_calls_are_left_over(calls, keeps):
    made = state(unit(1, max_staleness=60.0), limits=[Limit(calls, DAY)])
    [budget] = report([made]).budgets

    assert budget.expectations[0].keeps_promises is keeps
    assert (budget.broken_promise is None) is keeps
    assert keeps or f"and budget office allows {calls}" in budget.broken_promise
    assert budget.expectations[1].keeps_promises


@pytest.mark.parametrize(
    ("text", "weight"),
    [("projects=5", ("projects", 5.0)), ("acme/tasks=0.5", ("acme/tasks", 0.5)), ("a=1e3", ("a", 1000.0))],
)
def test_a_weight_is_read(text, weight):
    assert parse_weight(text) == weight


@pytest.mark.parametrize(
    "text", ["projects", "=5", "projects=", "projects=0", "projects=-1", "a=inf", "a=nan", "a=b=1"]
)
def test_a_weight_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="is not ENDPOINT=N with a number N above 0"):
        parse_weight(text)


def test_names_of_endpoints_are_known_alone_and_with_their_source():
    states = [state(unit(1)), state(unit(2, "tasks", source="shop"))]
    check_names(states, WhatIf(weights={"projects": 1.0, "acme/projects": 1.0, "tasks": 1.0, "shop/tasks": 1.0}))

    with pytest.raises(NotThere, match="no endpoint is named 'acme/tasks'"):
        check_names(states, WhatIf(weights={"acme/tasks": 1.0}))


def test_rows_are_what_is_reported_with_spans_in_seconds_and_times_as_text():
    made = report([state(unit(1, max_staleness=600.0, weight=2.0, cost=3))])
    budget, endpoint, row = rows(made)
    [one] = made.units

    assert budget["kind"] == "budget"
    assert budget["expectations"][0]["expected_delay_s"] == made.budgets[0].expectations[0].expected_delay
    assert (endpoint["kind"], endpoint["staleness_s"], endpoint["next_poll"][:10]) == ("endpoint", 0.0, "2026-09-21")
    assert {name: row[name] for name in ("kind", "source", "endpoint", "key", "cost", "weight", "max_staleness_s")} == {
        "kind": "unit",
        "source": "acme",
        "endpoint": "projects",
        "key": "1",
        "cost": 3,
        "weight": 2.0,
        "max_staleness_s": 600.0,
    }
    assert row["last_poll"] == "2026-09-21T14:13:20.000Z"
    assert (row["interval_s"], row["staleness_s"], row["calls_per_day"]) == (one.interval, 0.0, one.calls_per_day)
    assert row["expected_delay_s"] == one.expected_delay
    assert "unit" not in row


def test_a_row_of_a_unit_that_was_never_polled_has_no_time():
    *_, row = rows(report([state(unit(1), polled=False)]))

    assert (row["last_poll"], row["staleness_s"]) == (None, None)


def test_every_budget_is_reported_by_itself():
    found = report([state(unit(1)), state(unit(2, source="shop"), budget="shop", limits=[Limit(86_400, DAY)])])

    assert [one.name for one in found.budgets] == ["office", "shop"]
    assert [(one.source, one.endpoint) for one in found.endpoints] == [("acme", "projects"), ("shop", "projects")]
    assert [one.expectations[0].expected_delay for one in found.budgets] == pytest.approx([50.0, 0.5])
    office, shop = found.units
    assert office.interval == pytest.approx(100.0)
    assert shop.interval == pytest.approx(1.0)
