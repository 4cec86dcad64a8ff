"""What `poller plan` tells of units, endpoints and budgets, and what-ifs."""

import math

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from poller import bounds
from poller.budget import Limit
from poller.cli.plan import plan, plan_json
from poller.plan import Changes, Situation, Unkeepable, allowed, busiest, check_promises, intervals, report
from poller.planner import Planner, Unit

NOON = 1_790_000_000.0
DAY = 86_400.0


def situation(**fields):
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
    return Situation(**(given | fields))


class Given:
    """A state with one budget."""

    def situations(self) -> list[Situation]:
        return [situation()]


def test_the_tightest_window_says_what_is_allowed():
    assert allowed([Limit(5, 1.0), Limit(3600, 3600.0)], 0.5) == 0.5
    assert allowed([Limit(1, 10.0)], 0.5) == 0.1


def test_every_unit_and_endpoint_is_explained():
    found = report([situation()])

    assert len(found.units) == 6
    assert [(one.endpoint, one.units) for one in found.endpoints] == [("projects", 4), ("tasks", 2)]
    projects, tasks = found.endpoints
    assert tasks.changes_per_day > projects.changes_per_day
    assert tasks.expected_delay < projects.expected_delay
    assert sum(one.calls_per_day for one in found.endpoints) == pytest.approx(4500, rel=0.01)


def test_ten_percent_more_calls_make_delays_a_tenth_shorter():
    now, more = report([situation()]).budgets[0].expectations

    assert now.calls_per_day == pytest.approx(4500)
    assert more.expected_delay == pytest.approx(now.expected_delay / 1.1)


def test_what_ifs_are_told_beside_what_is():
    changes = Changes(share=1.0, limits=(Limit(9000, DAY),), weights={"projects": 5.0, "acme/tasks": 1.0})
    as_is, _, other, heavier, lighter = report([situation()], changes).budgets[0].expectations

    assert other.calls_per_day == pytest.approx(9000)
    assert other.expected_delay == pytest.approx(as_is.expected_delay / 2)
    assert heavier.endpoints["acme/projects"] < as_is.endpoints["acme/projects"]
    assert heavier.endpoints["acme/tasks"] > as_is.endpoints["acme/tasks"]
    assert lighter.endpoints["acme/tasks"] > as_is.endpoints["acme/tasks"]


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


def test_a_promise_that_cannot_be_kept_is_refused_with_the_least_budget():
    units = [Unit("acme", "tasks", str(key), cost=2, max_staleness=60.0) for key in range(10)]
    check_promises(units, budget="office", calls_per_second=0.34)

    with pytest.raises(Unkeepable, match=r"office.*28800 calls a day.*acme/tasks.*25920") as refused:
        check_promises(units, budget="office", calls_per_second=0.3)
    assert refused.value.least == pytest.approx(1 / 3)
    assert "28800" in refused.value.hint


def test_the_busiest_hour_is_named():
    levels = [0.9] * 168
    levels[10] = 3.0

    assert busiest(levels) == "Thu 10:00 UTC, 3.0 times the mean"
    assert busiest([1.0] * 168) == "even"


def test_a_budget_without_units_is_told_too():
    found = report([situation(planner=Planner([], now=NOON))])

    assert found.units == ()
    assert math.isnan(found.budgets[0].expectations[0].expected_delay)


def test_the_command_prints_tables_and_json():
    runner = CliRunner()
    text = runner.invoke(plan, ["--weight", "projects=5"], obj=Given())
    told = orjson.loads(runner.invoke(plan, ["--json", "--share", "1"], obj=Given()).output)

    assert text.exit_code == 0, text.output
    assert "budget office" in text.output
    assert "weight projects=5" in text.output
    assert {"source", "endpoint", "key", "rank", "reason", "next_poll"} <= told["units"][0].keys()
    assert told["budgets"][0]["expectations"][2]["label"] == "share 1"
    assert [one["rank"] for one in told["units"]] == [1, 2, 3, 4, 5, 6]


def test_json_of_what_was_never_polled_can_be_written():
    found = report([situation(planner=Planner([Unit("a", "b", "c")], now=NOON))])

    assert orjson.loads(orjson.dumps(plan_json(found)))["units"][0]["staleness"] is None


@pytest.mark.parametrize(
    "wrong", [["--weight", "projects"], ["--weight", "x=-1"], ["--limits", "fast"], ["--share", "2"]]
)
def test_wrong_what_ifs_are_said_so(wrong):
    answer = CliRunner().invoke(plan, wrong, obj=Given())

    assert answer.exit_code == 2
    assert wrong[0] in answer.output
