"""A `max_staleness` that its budget cannot keep is refused, with limits that would suffice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.budget.limits import Limit, allowed
from poller.planner.feasibility import infeasible
from poller.planner.unit import Unit

DAY = 86_400.0


def units(number, *, endpoint="tasks", **fields):
    return [Unit("acme", endpoint, str(key), **fields) for key in range(number)]


def missing(asked, *limits, share=1.0):
    return infeasible(asked, budget="office", limits=limits, share=share)


def test_what_can_be_kept_is_not_complained_of():
    assert missing(units(10, cost=2, max_staleness=60.0), Limit(28_801, DAY)) is None
    assert missing(units(10), Limit(1, DAY)) is None
    assert missing([], Limit(1, DAY)) is None


def test_calls_that_just_suffice_do_not():
    assert missing(units(10, cost=2, max_staleness=60.0), Limit(28_800, DAY)) is not None


def test_the_problem_names_the_key_the_demand_and_what_would_do():
    asked = [*units(10, cost=2, max_staleness=60.0), *units(1, endpoint="users", max_staleness=600.0)]
    found = missing(asked, Limit(5, 1.0), Limit(20_000, DAY), share=0.9).problem

    assert found.key == "sources.acme.endpoints.tasks.max_staleness"
    assert found.what == (
        "cannot be kept: max_staleness requires 28944 calls a day (acme/tasks 28800, acme/users 144),"
        " and budget office allows 18000"
    )
    assert found.hint == "it requires at least 32162/day with share = 0.9, or a max_staleness of 97s"


def test_the_three_most_demanding_endpoints_are_named_the_first_one_first():
    asked = [
        unit for number in range(4) for unit in units(1, endpoint="abcd"[number], max_staleness=400.0 - 100 * number)
    ]
    found = missing(asked, Limit(864, DAY)).problem

    assert found.key == "sources.acme.endpoints.d.max_staleness"
    assert "requires 1800 calls a day (acme/d 864, acme/c 432, acme/b 288), and" in found.what


def test_no_longer_max_staleness_is_named_where_the_others_ask_for_every_call():
    asked = [*units(1, cost=2, max_staleness=1.0), *units(1, endpoint="users", max_staleness=1.0)]

    assert missing(asked, Limit(1, 1.0)).problem.hint == "it requires at least 4/s"


def test_no_longer_max_staleness_is_named_where_the_others_ask_too_much():
    asked = [*units(9, max_staleness=60.0), *units(8, endpoint="users", max_staleness=60.0)]

    assert missing(asked, Limit(5_000, DAY)).problem.hint == "it requires at least 24481/day"


@given(
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from([10.0, 60.0, 7200.0])), min_size=1, max_size=4),
    st.lists(st.sampled_from([Limit(2, 1.0), Limit(90, 60.0), Limit(1000, 3600.0), Limit(9999, DAY)]), min_size=1),
    st.floats(0.1, 1.0),
)
def test_the_least_limits_keep_it_and_one_call_less_does_not(asked, limits, share):
    wanted = [unit for cost, limit in asked for unit in units(3, cost=cost, max_staleness=limit)]
    found = missing(wanted, *limits, share=share)
    if found is None:
        return
    assert missing(wanted, *found.least, share=share) is None
    raised = [new for new, old in zip(found.least, limits, strict=True) if new != old]
    for new in raised:
        assert allowed([Limit(new.calls - 1, new.seconds)], share) <= sum(found.asked.values()) + 1e-9


@pytest.mark.parametrize(
    ("cost", "longer"), [(1, "61s"), (2, "121s"), (3, "4m"), (100, "101m"), (1500, "26h"), (6000, "5d")]
)
def test_a_longer_max_staleness_is_named_in_a_round_figure(cost, longer):
    assert missing(units(1, cost=cost, max_staleness=60.0), Limit(1, 60.0)).problem.hint.endswith(f"of {longer}")
