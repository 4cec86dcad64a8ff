"""The breaker and the retry schedule, both pure."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery import breaker
from poller.delivery.retry import SCHEDULE, jittered, judge, named_wait, receipt_of
from poller.http_dates import LONGEST
from poller.sinks.protocol import Receipt, Refused, Rejected, RetryLater
from state.deliveries import SinkHealth

DOWN = RetryLater(None, Receipt(status="503"))


def failed(health: SinkHealth, *instants: float) -> SinkHealth:
    for now in instants:
        health = breaker.failed(health, "503", now=now, not_before=0.0)
    return health


def test_the_fifth_failure_in_a_row_opens_it() -> None:
    assert not breaker.is_open(failed(breaker.WELL, 1, 2, 3, 4))
    assert failed(breaker.WELL, 1, 2, 3, 4, 5).open_until == 10.0


def test_probes_wait_twice_as_long_each_up_to_five_minutes() -> None:
    health = failed(breaker.WELL, 0, 0, 0, 0, 0)
    waits = []
    for _ in range(9):
        assert health.open_until is not None
        waits.append(health.wait)
        health = failed(health, health.open_until)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_what_was_in_flight_when_it_opened_does_not_put_the_probe_off() -> None:
    health = failed(breaker.WELL, 0, 0, 0, 0, 0, 1, 2, 3)
    assert (health.open_until, health.wait) == (5.0, 5.0)


@given(
    retries=st.integers(0, 12),
    refusals=st.integers(0, 2),
    after=st.none() | st.floats(0, LONGEST),
    chance=st.floats(0, 1),
    now=st.floats(0, 2e9),
)
def test_a_retry_is_never_before_the_receivers_word_nor_far_from_the_schedule(
    retries: int, refusals: int, after: float | None, chance: float, now: float
) -> None:
    error = RetryLater(after, Receipt(status="429"))
    decision = judge(error, retries=retries, refusals=refusals, schedule=SCHEDULE, now=now, chance=chance)
    if retries >= len(SCHEDULE):
        assert decision.state == "dead"
        return
    assert decision.due is not None
    assert decision.due >= now + (after or 0)
    assert decision.not_before == (now + after if after else 0.0)
    assert decision.due >= now + 0.9 * SCHEDULE[retries] - 1e-6
    assert decision.due <= now + max(1.1 * SCHEDULE[retries], after or 0) + 1e-6


@pytest.mark.parametrize(
    ("after", "wait"),
    [
        (1_795_700_000, LONGEST),
        (10**400, LONGEST),
        (math.inf, LONGEST),
        (math.nan, None),
        (-math.inf, None),
        (-5.0, None),
        (0, None),
        ("60", None),
        (90, 90.0),
    ],
)
def test_a_wait_that_a_receiver_names_has_a_bound(after: Any, wait: float | None) -> None:
    assert named_wait(after) == wait


def test_the_breaker_obeys_the_receivers_word_when_it_opens() -> None:
    health = failed(breaker.WELL, 1, 2, 3, 4)
    health = breaker.failed(health, "503", now=5, not_before=3605.0)
    assert (health.open_until, health.wait) == (3605.0, 5.0)


def test_the_wait_is_spread_by_a_tenth() -> None:
    assert [round(jittered(100.0, chance), 6) for chance in (0.0, 0.5, 1.0)] == [90.0, 100.0, 110.0]


def test_a_probe_before_its_time_uses_up_no_try_and_goes_back_to_its_place() -> None:
    decision = judge(DOWN, retries=3, refusals=0, schedule=SCHEDULE, now=100.0, chance=0.5, was_due=5000.0)
    assert (decision.state, decision.retries, decision.due) == ("pending", 3, 5000.0)


def test_a_probe_that_is_rejected_is_dead_all_the_same() -> None:
    error = Rejected(Receipt(status="413"))
    assert judge(error, retries=0, refusals=0, schedule=SCHEDULE, now=1, chance=0, was_due=9.0).state == "dead"


def test_refusals_are_counted_apart_from_other_failures() -> None:
    refused = Refused(Receipt(status="404"))
    assert judge(refused, retries=5, refusals=1, schedule=SCHEDULE, now=0, chance=0).state == "pending"
    assert judge(refused, retries=2, refusals=2, schedule=SCHEDULE, now=0, chance=0).state == "dead"


@given(st.text(max_size=6000))
def test_at_most_four_kibibytes_of_an_answer_are_kept(text: str) -> None:
    kept = receipt_of(Receipt(status="200", text=text)).text
    assert len(kept.encode("utf-8", "replace")) <= 4096
