"""Scenarios: a configuration on a virtual clock, with learned rates and with recorded changes."""

import math

import pytest

from poller.budget.limits import Limit
from poller.planner.planner import Planner, Unit
from poller.planner.report import PlannerState, WhatIf
from poller.simulation.scenarios import changed, replay, run_scenario, span
from poller.simulation.worlds import DAY, HOUR
from state.status import SeenChange

NOW = 1_700_000_000.0
PAGES = [Unit("shop", "orders", f"page={number}") for number in range(1, 11)] + [Unit("shop", "stock", "list")]


def state(*, calls: int = 2000, busy: int = 1) -> PlannerState:
    """Two days of polls every 10 minutes; the first page changes at `busy` of them, one in ten of the others' polls."""
    planner = Planner(PAGES, now=NOW - 2 * DAY)
    for step in range(288):
        for number, unit in enumerate(PAGES):
            changes = busy if number == 0 else int((step + number) % 10 == 0)
            planner.observe(unit, NOW - 2 * DAY + 600.0 * step, changes)
    return PlannerState(budget="shop", limits=(Limit(calls, DAY),), share=1.0, planner=planner, now=NOW)


def test_the_rates_that_were_learned_are_those_of_the_world():
    found = run_scenario(state(), days=4)

    assert sum(one.changes for one in found.endpoints) == pytest.approx(4 * (144 + 10 * 14.4), rel=0.15)
    assert {one.endpoint: one.units for one in found.endpoints} == {"orders": 10, "stock": 1}


def test_what_was_learned_is_worth_something_from_the_first_hour():
    result = run_scenario(state(busy=20), days=3).result

    assert result.mean < 0.8 * result.in_turn
    assert 0.9 * result.optimum < result.mean < 1.2 * result.optimum


def test_the_calls_are_those_of_the_budget():
    found = run_scenario(state(), days=3)

    assert found.result.calls <= 3 * 2000
    assert found.result.used > 0.9
    assert sum(one.calls_per_day for one in found.endpoints) == pytest.approx(found.result.calls / 3)


def test_a_weight_moves_calls_to_its_endpoint():
    plain = run_scenario(state(), days=3)
    heavy = run_scenario(changed(state(), WhatIf(weights={"stock": 50.0})), days=3)

    assert heavy.endpoints[1].weight == 50
    assert heavy.endpoints[1].mean < 0.5 * plain.endpoints[1].mean
    assert heavy.endpoints[0].mean > plain.endpoints[0].mean


@pytest.mark.slow
def test_more_calls_find_changes_sooner():
    double = changed(state(), WhatIf(limits=(Limit(4000, DAY),)))

    assert run_scenario(double, days=3).result.mean < 0.65 * run_scenario(state(), days=3).result.mean


def test_changes_a_day_can_be_supposed():
    found = run_scenario(state(), days=3, changes_per_day=1000)

    assert found.result.delays.found.size + found.result.delays.unseen == pytest.approx(3000, rel=0.1)


def test_a_generous_budget_is_not_simulated_for_days():
    assert span(state()) > 1 > span(changed(state(), WhatIf(limits=(Limit(1000, 1.0),))))


def seen(minute: float, *, key: str | None = "page=3", endpoint: str = "orders") -> SeenChange:
    return SeenChange(source="shop", endpoint=endpoint, key=key, after=NOW + 60 * minute - 300, time=NOW + 60 * minute)


def test_what_was_recorded_is_polled_again():
    found = replay(state(), [seen(10.0 * step) for step in range(200)])

    assert found is not None
    assert found.result.delays.found.size + found.result.delays.unseen == 200
    assert found.result.mean < found.result.in_turn


def test_objects_that_are_on_no_page_any_more_were_on_some_page_of_theirs():
    found = replay(state(), [seen(5, key=None), seen(90, key="gone"), seen(95, endpoint="unknown"), seen(900)])

    assert found is not None
    assert found.result.delays.found.size + found.result.delays.unseen == 3


def test_only_the_latest_days_are_replayed():
    found = replay(state(), [seen(60.0 * hour) for hour in range(100)], days=1)

    assert found is not None
    assert found.result.days == pytest.approx(1, abs=2 * HOUR / DAY)


def test_without_a_record_there_is_nothing_to_replay():
    assert replay(state(), []) is None


def test_a_quiet_world_has_no_delays():
    found = run_scenario(state(), days=0.1, changes_per_day=0.001)

    assert found.result.delays.found.size == 0
    assert math.isnan(found.endpoints[0].mean)


# As a user types it.


def small(shop, folder) -> None:
    path = shop.configure(folder)
    path.write_text(path.read_text().replace("1000/s", "2000/day"))


def test_a_configuration_is_simulated_before_it_ever_ran(poller, shop, tmp_path):
    small(shop, tmp_path)
    ran = poller("simulate", "--json", "--days", "1", "--changes", "300")

    (budget,) = ran.json["budgets"]
    assert (budget["budget"], budget["units"]) == ("shop", 1)
    assert budget["endpoints"][0]["endpoint"] == "items"
    assert budget["calls_per_day"] <= 1800
    assert not (tmp_path / "poller.db").exists()


def test_the_tables_and_the_picture_show_the_same(poller, shop, tmp_path):
    small(shop, tmp_path)
    ran = poller("simulate", "--days", "1", "--changes", "300", "--plot", tmp_path / "delays.png")

    assert ran.status == 0, ran.err
    assert "budget shop: 1 unit, 1 day\n" in ran.out
    assert "shop/items" in ran.out
    assert "█" in ran.out
    assert "\\n" not in ran.out
    assert "nan" not in ran.out
    assert (tmp_path / "delays.png").read_bytes().startswith(b"\x89PNG")


def test_a_quiet_api_is_simulated_without_a_delay(poller, shop, tmp_path):
    small(shop, tmp_path)
    ran = poller("simulate", "--days", "0.1", "--changes", "1")

    assert ran.status == 0, ran.err
    assert "nan" not in ran.out


def test_the_log_of_this_very_state_is_replayed(poller, shop, tmp_path):
    small(shop, tmp_path)
    poller("once")
    for price in range(3):
        shop.items[0] = {"id": 1, "name": "Apple", "price": price}
        poller("once")
    ran = poller("simulate", "--from-history", "--json")

    assert ran.status == 0, ran.err
    (budget,) = ran.json["budgets"]
    assert budget["changes"] + budget["unseen"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from-history"], "the log holds no change"),
        (["--weight", "itmes=3"], "itmes"),
        (["--units", "5"], "--units can only be used with --world"),
        (["--world", "zipf", "--weight", "items=3"], "--weight can only be used without --world"),
        (["--from-history", "--changes", "5"], "--changes can only be used without --from-history"),
        (["--weight", "items"], "ENDPOINT=N"),
    ],
)
def test_what_cannot_be_simulated_is_said(poller, shop, tmp_path, words, said):
    small(shop, tmp_path)
    ran = poller("simulate", *words)

    assert ran.status in (1, 2)
    assert said in ran.err
