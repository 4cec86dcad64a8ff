"""The report of `poller plan`: units, endpoints, budgets and hypothetical settings."""

import math

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from poller.budget.limits import Limit, allowed
from poller.cli import cli
from poller.planner.planner import Planner, Unit
from poller.planner.report import PlannerState, WhatIf, busiest, intervals, report, rows
from poller.simulation import bounds
from state.errors import PollerError

NOON = 1_790_000_000.0
DAY = 86_400.0


def state(**fields):
    units = [Unit("acme", "projects", str(key)) for key in range(4)]
    units += [Unit("acme", "tasks", str(key), weight=2.0) for key in range(2)]
    planner, now = Planner(units, now=NOON), NOON
    for _ in range(1000):
        now += 20.0
        unit = planner.choose(now)
        planner.started(unit)
        planner.observe(unit, now, int(unit.endpoint == "tasks"))
    limits = (Limit(5, 1.0), Limit(5000, DAY))
    given = {"budget": "office", "limits": limits, "share": 0.9, "planner": planner, "now": now}
    return PlannerState(**(given | fields))


def test_the_tightest_window_says_what_is_allowed():
    assert allowed([Limit(5, 1.0), Limit(3600, 3600.0)], 0.5) == 0.5
    assert allowed([Limit(1, 10.0)], 0.5) == 0.1


def test_every_unit_and_endpoint_is_explained():
    found = report([state()])

    assert len(found.units) == 6
    assert [(one.endpoint, one.units) for one in found.endpoints] == [("projects", 4), ("tasks", 2)]
    projects, tasks = found.endpoints
    assert tasks.changes_per_day > projects.changes_per_day
    assert tasks.expected_delay < projects.expected_delay
    assert sum(one.calls_per_day for one in found.endpoints) == pytest.approx(4500, rel=0.01)


def test_ten_percent_more_calls_make_delays_a_tenth_shorter():
    now, more = report([state()]).budgets[0].expectations

    assert now.calls_per_day == pytest.approx(4500)
    assert more.expected_delay == pytest.approx(now.expected_delay / 1.1)


def test_hypothetical_settings_are_reported_after_the_current_ones():
    what_if = WhatIf(share=1.0, limits=(Limit(9000, DAY),), weights={"projects": 5.0, "acme/tasks": 1.0})
    as_is, _, other, heavier, lighter, together = report([state()], what_if).budgets[0].expectations

    assert together.calls_per_day == pytest.approx(9000)
    assert together.expected_delays["acme/projects"] < heavier.expected_delays["acme/projects"]
    assert other.calls_per_day == pytest.approx(9000)
    assert other.expected_delay == pytest.approx(as_is.expected_delay / 2)
    assert heavier.expected_delays["acme/projects"] < as_is.expected_delays["acme/projects"]
    assert heavier.expected_delays["acme/tasks"] > as_is.expected_delays["acme/tasks"]
    assert lighter.expected_delays["acme/tasks"] > as_is.expected_delays["acme/tasks"]


def test_intervals_are_those_of_the_square_root_rule():
    rates = np.array([0.1, 0.01, 0.001])
    units = [Unit("s", "e", str(key), cost=key + 1, weight=key + 1.0) for key in range(3)]

    expected = bounds.intervals(rates, 0.5, weights=np.array([1, 2, 3]), costs=np.array([1, 2, 3]))
    assert intervals(units, rates, 0.5).tolist() == pytest.approx(expected.tolist())


def test_a_promise_is_paid_for_by_the_others():
    units = [Unit("s", "e", "1", max_staleness=10.0), Unit("s", "e", "2"), Unit("s", "e", "3")]
    found = intervals(units, np.array([1e-6, 0.1, 0.1]), 1.0)

    assert found[0] == 10.0
    assert found[1:].tolist() == pytest.approx([2 / 0.9, 2 / 0.9])


def test_the_busiest_hour_is_named():
    levels = [0.9] * 168
    levels[34] = 3.0

    assert busiest(levels) == "Tue 10:00 UTC, 3.0 times the mean"
    assert busiest([1.0] * 168) == "even"


def test_a_budget_without_units_is_reported_too():
    found = report([state(planner=Planner([], now=NOON))])

    assert found.units == ()
    assert math.isnan(found.budgets[0].expectations[0].expected_delay)


def test_rows_hold_the_whole_report_as_json():
    told = [orjson.loads(orjson.dumps(row)) for row in rows(report([state()], WhatIf(share=1.0)))]
    budget, projects, _, unit = told[0], *told[1:4]

    assert [row["kind"] for row in told] == ["budget", "endpoint", "endpoint", *["unit"] * 6]
    assert budget["expectations"][2]["label"] == "share 1"
    assert budget["windows"][1] == {"limit": "5000/day", "calls_per_day": pytest.approx(4500)}
    assert len(projects["rhythm"]) == 168
    assert {"source", "endpoint", "key", "rank", "reason", "staleness_s", "expected_delay_s"} <= unit.keys()
    assert unit["next_poll"].endswith("Z")


def test_rows_of_what_was_never_polled_can_be_written():
    found = report([state(planner=Planner([Unit("a", "b", "c")], now=NOON))])

    assert orjson.loads(orjson.dumps(list(rows(found))))[-1]["staleness_s"] is None


def test_a_weight_of_an_unknown_endpoint_is_refused_with_the_nearest_name():
    with pytest.raises(PollerError, match="no endpoint is named 'project'") as refused:
        report([state()], WhatIf(weights={"project": 2.0}))
    assert refused.value.hint == "did you mean 'projects'?"


def test_promises_that_cannot_be_kept_are_reported_for_the_budget_and_for_what_ifs():
    units = [Unit("acme", "tasks", str(key), max_staleness=60.0) for key in range(4)]
    found = report([state(planner=Planner(units, now=NOON))], WhatIf(limits=(Limit(10_000, DAY),)))

    now, _, other = found.budgets[0].expectations
    assert "requires 5760 calls a day (acme/tasks 5760)" in found.budgets[0].broken_promise
    assert (now.keeps_promises, other.keeps_promises) == (False, True)


@pytest.mark.parametrize(
    "wrong", [["--weight", "projects"], ["--weight", "x=-1"], ["--limits", "fast"], ["--share", "2"]]
)
def test_wrong_what_ifs_are_refused(wrong):
    answer = CliRunner().invoke(cli, ["plan", *wrong])

    assert answer.exit_code == 2
    assert wrong[0] in answer.output
