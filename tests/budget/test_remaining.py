"""What a server leaves of its windows, what others have used of ours, and what a budget forecasts and says of it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.budget.budget import Budget
from poller.budget.counted_calls import CountedCalls
from poller.budget.headers import Quota, RateLimitHeaders, word_of
from poller.budget.limits import Limit, allowed
from poller.budget.remaining import Remaining
from poller.budget.throttle import Throttle
from poller.budget.windows import window_of, windows_of

MINUTE = Limit(10, 60.0)
HOURLY = Limit(100, 3600.0)
DAILY = Limit(1000, 86_400.0)


def told(*quotas: Quota, status: int = 200, retry_after: float | None = None) -> RateLimitHeaders:
    return RateLimitHeaders(status=status, retry_after=retry_after, quotas=quotas)


def spent(budget: Budget, calls: int, *, at: float = 0.0) -> Budget:
    """The budget after so many calls, each answered at once."""
    for _ in range(calls):
        budget.answered(budget.spend(at), at)
    return budget


def test_what_others_used_of_a_window_is_the_servers_count_without_ours():
    budget = spent(Budget("k", [MINUTE]), 2)
    budget.obey(told(Quota(remaining=5, reset_in=30.0, limit=10)), 0.0)
    assert [(one.used, one.foreign, one.remaining) for one in budget.usage(0.0)] == [(2, 3, 5)]

    spent(budget, 5)
    assert budget.wait(0.0) == pytest.approx(30.0)
    assert budget.usage(29.9)[0].foreign == 3
    assert [(one.foreign, one.remaining) for one in budget.usage(30.0)] == [(0, 3)]


def test_a_server_that_counts_fewer_than_we_do_has_no_other_users():
    budget = spent(Budget("k", [MINUTE]), 4)
    budget.obey(told(Quota(remaining=9, reset_in=30.0, limit=10)), 0.0)
    assert [(one.foreign, one.remaining) for one in budget.usage(0.0)] == [(0, 6)]


def test_a_window_whose_limit_the_server_does_not_repeat_is_taken_as_configured():
    budget = Budget("k", [MINUTE])
    budget.obey(told(Quota(remaining=4, reset_in=30.0, window=60.0)), 0.0)
    assert budget.usage(0.0)[0].foreign == 6


def test_a_limit_that_the_server_names_is_believed_rather_than_ours():
    budget = Budget("k", [MINUTE])
    budget.obey(told(Quota(remaining=4, reset_in=30.0, window=60.0, limit=8)), 0.0)
    assert budget.usage(0.0)[0].foreign == 4
    assert budget.usage(0.0)[0].remaining == 4


@pytest.mark.parametrize(("remaining", "left", "wait"), [(500, 90, 0.0), (95, 90, 0.0), (30, 30, 0.0), (0, 0, 1800.0)])
def test_what_others_use_is_a_part_of_the_servers_limit_where_ours_is_lower(remaining: int, left: int, wait: float):
    budget = spent(Budget("k", [HOURLY], share=1.0), 10)
    budget.obey(told(Quota(remaining=remaining, reset_in=1800.0, window=3600.0, limit=1000)), 0.0)

    assert budget.usage(0.0)[0].foreign == 990 - remaining
    assert budget.usage(0.0)[0].remaining == left
    assert budget.wait(0.0) == wait
    assert budget.forecast(0.0).left <= left + 10
    if left:
        spent(budget, left)
    assert budget.wait(0.0) > 0.0


@pytest.mark.parametrize(
    ("quota", "until"),
    [
        (Quota(remaining=0, window=60.0), 60.0),  # our own window of that length
        (Quota(remaining=0, window=7.0), 7.0),  # a window that only the server has
        (Quota(remaining=0), 60.0),  # nothing is said: a minute
        (Quota(remaining=0, reset_in=5.0), 5.0),
        (Quota(remaining=0, reset_in=1e9), 3600.0),  # no longer than an hour or the longest window
        (Quota(remaining=0, reset_in=1e9, window=86_400.0), 86_400.0),
    ],
)
def test_a_window_without_calls_is_waited_for_until_its_reset(quota: Quota, until: float):
    budget = Budget("k", [MINUTE])
    budget.obey(told(quota), 0.0)
    assert budget.wait(0.0) == pytest.approx(until)
    assert budget.named_until(0.0) == pytest.approx(until)
    assert budget.throttled_until(0.0) == pytest.approx(until)
    assert (budget.named_until(until), budget.throttled_until(until)) == (None, None)


def test_an_older_answer_of_the_same_window_does_not_raise_what_remains():
    budget = Budget("k", [DAILY])
    budget.obey(told(Quota(remaining=2, reset_in=100.0)), 0.0)
    budget.obey(told(Quota(remaining=7, reset_in=100.9)), 0.0)
    assert budget.usage(0.0)[0].remaining == 2

    budget.obey(told(Quota(remaining=7, reset_in=101.0)), 0.0)
    assert budget.usage(0.0)[0].remaining == 2
    budget.obey(told(Quota(remaining=7, reset_in=102.5)), 0.0)  # a later reset is another window
    assert budget.usage(0.0)[0].remaining == 7


def test_a_window_that_is_over_says_nothing_of_the_next():
    budget = Budget("k", [DAILY])
    budget.obey(told(Quota(remaining=2, reset_in=100.0)), 0.0)
    assert budget.usage(99.9)[0].remaining == 2
    assert budget.usage(100.0)[0].remaining == 900
    budget.obey(told(Quota(remaining=7, reset_in=0.5)), 100.0)
    assert budget.usage(100.0)[0].remaining == 7


def test_windows_of_the_server_are_told_apart_by_their_names():
    budget = Budget("k", [DAILY])
    budget.obey(
        told(Quota(name="burst", remaining=3, reset_in=10.0), Quota(name="day", remaining=5, reset_in=50.0)), 0.0
    )
    spent(budget, 3)
    assert budget.wait(0.0) == pytest.approx(10.0)
    spent(budget, 2, at=10.0)
    assert budget.wait(10.0) == pytest.approx(40.0)


def test_calls_in_flight_at_the_servers_word_may_be_counted_in_it_or_not():
    budget = Budget("k", [DAILY])
    one, other = budget.spend(0.0), budget.spend(0.0)
    budget.obey(told(Quota(remaining=2, reset_in=50.0)), 0.0)
    assert budget.wait(0.0) == inf
    budget.answered(one, 0.0)
    assert budget.wait(0.0) == 0.0
    budget.answered(other, 0.0)
    spent(budget, 2)
    assert budget.wait(0.0) == pytest.approx(50.0)


def test_what_ends_a_pause_forgets_everything_the_server_said():
    budget = Budget("k", [MINUTE])
    budget.obey(told(Quota(remaining=0, reset_in=30.0, limit=10), status=429, retry_after=40.0), 0.0)
    assert budget.wait(0.0) > 0
    budget.resume(0.0)
    assert budget.wait(0.0) == 0.0
    assert (budget.named_until(0.0), budget.throttled_until(0.0)) == (None, None)
    assert budget.usage(0.0)[0].foreign == 0


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (told(), ""),
        (told(Quota(remaining=1)), ""),
        (told(Quota(remaining=0)), "an answer 200 says that no call remains, and not until when"),
        (told(Quota(remaining=0, reset_in=9.0)), "an answer 200 says that no call remains"),
        (told(status=429), "an answer 429"),
        (told(status=403), ""),
        (told(status=500), ""),
        (told(status=503, retry_after=7.4), "an answer 503 says to come back in 7 s (Retry-After)"),
    ],
)
def test_the_latest_answer_that_asked_for_a_pause_is_kept_in_words(headers: RateLimitHeaders, words: str):
    assert word_of(headers) == words

    budget = Budget("k", [MINUTE])
    budget.obey(headers, 0.0)
    budget.obey(told(), 0.0)
    assert budget.word == words


@pytest.mark.parametrize(
    ("quota", "length"),
    [
        (Quota(remaining=1, window=3600.0), 3600.0),
        (Quota(remaining=1, window=7.0), None),
        (Quota(remaining=1, window=7.0, limit=10), None),  # of another length, whatever its calls
        (Quota(remaining=1, limit=100), 3600.0),
        (Quota(remaining=1, limit=99), None),
        (Quota(remaining=1), None),
    ],
)
def test_a_servers_window_is_ours_of_the_same_length_or_with_as_many_calls(quota: Quota, length: float | None):
    found = window_of(windows_of([HOURLY, MINUTE], 1.0), quota)
    assert (found and found.limit.seconds) == length


def test_two_windows_with_as_many_calls_are_not_guessed_between():
    assert window_of(windows_of([Limit(10, 1.0), Limit(10, 60.0)], 1.0), Quota(remaining=1, limit=10)) is None


def horizon(budget: Budget, now: float) -> tuple[int, float]:
    """The calls and seconds of a forecast."""
    found = budget.forecast(now)
    return found.left, found.seconds


def test_a_forecast_is_the_tightest_horizon_of_the_long_windows():
    budget = Budget("k", [MINUTE, HOURLY], share=0.5)
    assert horizon(budget, 0.0) == (50, 3600.0)

    spent(budget, 10)
    found = budget.forecast(0.0)
    assert (found.left, found.seconds) == (
        41,
        pytest.approx(3600.0, abs=0.1),
    )  # at which moment nine are still to expire

    budget.obey(told(Quota(remaining=3, reset_in=600.0)), 0.0)
    assert horizon(budget, 0.0) == (3, 600.0)
    assert budget.forecast(600.0).left >= 40


@pytest.mark.parametrize(
    ("limits", "forecast"),
    [
        ([Limit(10, 3600.0), DAILY], (10, 3600.0)),  # the tighter one of the long windows
        ([Limit(500, 3600.0), DAILY], (1000, 86_400.0)),
        ([Limit(1, 10.0), Limit(10, 3600.0)], (10, 3600.0)),
        ([MINUTE], (10, 60.0)),
        ([Limit(1, 10.0), Limit(100, 60.0)], (100, 60.0)),  # the longest of the short windows
    ],
)
def test_a_forecast_looks_at_windows_of_an_hour_or_longer_or_else_at_the_longest(
    limits: list[Limit], forecast: tuple[int, float]
):
    assert horizon(Budget("k", limits, share=1.0), 0.0) == forecast


def test_a_forecast_says_below_which_rate_calls_would_be_lost():
    budget = Budget("k", [HOURLY], share=1.0)
    assert budget.forecast(0.0).least == pytest.approx(100 / 3600)
    assert Budget("k", [MINUTE]).forecast(0.0).least == pytest.approx(10 / 60)

    budget.obey(told(Quota(remaining=3, reset_in=600.0)), 0.0)  # what a server leaves may be less than is used
    assert budget.forecast(0.0).least == 0.0


def test_a_forecast_sees_when_a_spent_window_refills():
    budget = spent(Budget("k", [Limit(4, 3600.0)], share=1.0), 4)
    first = budget.forecast(3590.0)
    assert first.left / first.seconds == pytest.approx(4 / 3600)
    assert horizon(budget, 3600.1) == (4, 3600.0)


def test_a_call_that_may_not_leave_yet_is_not_counted():
    budget = spent(Budget("office", [Limit(2, 0.5)]), 2)
    with pytest.raises(ValueError, match="budget office: no call may leave now"):
        budget.spend(0.1)

    assert budget.usage(0.1)[0].used == 2


def test_four_calls_are_in_flight_unless_another_number_is_asked_for():
    budget = Budget("k", [Limit(100, 1.0)])
    for _ in range(4):
        assert budget.wait(0.0) == 0.0
        budget.spend(0.0)
    assert (budget.wait(0.0), budget.in_flight) == (inf, 4)


def test_a_restart_knows_what_still_counts_of_thousands_of_calls():
    budget = Budget("k", [Limit(5000, 60.0)])
    calls = [(float(at), float(at)) for at in range(-3000, 0)]
    budget.restore([*calls, (-1.0, None), (0.5, 0.7)], 0.0)  # the last one was sent by another worker

    assert budget.usage(0.0)[0].used == 60 + 2
    assert budget.usage(60.6)[0].used == 1
    assert budget.usage(60.8)[0].used == 0


def test_without_limits_there_is_always_one_more_call():
    budget = Budget("k", [], concurrency=3)
    assert horizon(budget, 0.0) == (1, 0.0)
    assert budget.burst_left(0.0) == 3
    budget.spend(0.0)
    assert budget.burst_left(0.0) == 2


def test_thousands_of_calls_without_limits_never_wait():
    assert spent(Budget("k", [], share=0.5), 2000).wait(0.0) == 0.0
    assert Budget("k", [], share=0.5).share == 0.5


def test_a_first_sweep_takes_a_quarter_of_the_longest_window_at_once():
    budget = Budget("k", [MINUTE, HOURLY], share=1.0)
    assert budget.burst_left(0.0) == 25
    spent(budget, 8)
    assert budget.burst_left(0.0) == 17
    assert budget.burst_left(0.0, fraction=0.5) == 42
    assert budget.burst_left(0.0, fraction=0.01) == 0
    assert Budget("k", [HOURLY], share=1.0).burst_left(0.0, fraction=0.0) == 1


def test_of_short_windows_a_first_sweep_takes_everything():
    assert spent(Budget("k", [MINUTE]), 4).burst_left(0.0) == 6


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (Limit(3, 1.0), "3/s"),
        (Limit(3, 60.0), "3/min"),
        (Limit(3, 3600.0), "3/h"),
        (Limit(3, 86_400.0), "3/day"),
        (Limit(3, 7.5), "3/7.5s"),
    ],
)
def test_a_limit_is_written_as_in_the_configuration(limit: Limit, text: str):
    assert str(limit) == text
    assert Budget("k", [limit]).usage(0.0)[0].rate == text


def test_all_windows_together_allow_what_the_tightest_allows():
    assert allowed([Limit(10, 1.0), Limit(3600, 3600.0)], 0.5) == pytest.approx(0.5)
    assert allowed([Limit(10, 1.0)], 0.5) == pytest.approx(10.0)


def test_refusals_without_a_time_wait_twice_as_long_each_and_five_minutes_at_most():
    throttle = Throttle(seed=1)
    waits = []
    now = 0.0
    for _ in range(12):
        throttle.obey(now, pause=None, is_refused=True, went_well=False)
        waits.append(throttle.until - now)
        now = throttle.until
    assert all(0.8 * 2**step <= wait <= 1.2 * 2**step for step, wait in enumerate(waits[:8]))
    assert all(240.0 <= wait <= 360.0 for wait in waits[9:])
    assert len({round(wait / min(300.0, 2.0**step), 6) for step, wait in enumerate(waits)}) > 6  # not all at one moment


def test_refusals_of_calls_that_were_in_flight_together_are_one():
    throttle = Throttle(seed=1)
    for _ in range(5):
        throttle.obey(0.0, pause=None, is_refused=True, went_well=False)
    assert throttle.until <= 1.2


def test_an_answer_that_went_well_ends_the_count_of_refusals_once_the_pause_is_over():
    throttle = Throttle(seed=1)
    for now in (0.0, 10.0, 20.0):
        throttle.obey(now, pause=None, is_refused=True, went_well=False)
    throttle.obey(20.5, pause=None, is_refused=False, went_well=True)  # sent before the pause
    throttle.obey(30.0, pause=None, is_refused=True, went_well=False)
    assert throttle.until - 30.0 >= 0.8 * 8

    throttle.obey(60.0, pause=None, is_refused=False, went_well=True)
    throttle.obey(60.0, pause=None, is_refused=True, went_well=False)
    assert throttle.until - 60.0 <= 1.2


@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_answer_that_fails_does_not_end_the_count_of_refusals(status: int):
    budget = Budget("k", [MINUTE])
    for now in (0.0, 10.0):
        budget.obey(told(status=429), now)
    budget.obey(told(status=status), 20.0)
    budget.obey(told(status=429), 20.0)
    assert budget.wait(20.0) >= 0.8 * 4


@pytest.mark.parametrize("status", [200, 304, 399])
def test_an_answer_below_400_ends_the_count_of_refusals(status: int):
    budget = Budget("k", [MINUTE])
    for now in (0.0, 10.0):
        budget.obey(told(status=429), now)
    budget.obey(told(status=status), 20.0)
    budget.obey(told(status=429), 20.0)
    assert budget.wait(20.0) <= 1.2


def test_a_second_refusal_waits_as_long_as_the_server_says_and_never_shorter_than_our_own_wait():
    throttle = Throttle(seed=1)
    throttle.obey(0.0, pause=3.0, is_refused=True, went_well=False)
    assert (throttle.until, throttle.named) == (3.0, 3.0)  # the first one is believed to the second
    throttle.obey(3.0, pause=0.0, is_refused=True, went_well=False)
    assert 3.8 <= throttle.until <= 4.2


def test_a_pause_that_came_with_a_good_answer_is_kept():
    throttle = Throttle(seed=1)
    throttle.obey(0.0, pause=9.0, is_refused=False, went_well=True)
    throttle.obey(1.0, pause=2.0, is_refused=False, went_well=True)
    assert (throttle.until, throttle.named) == (9.0, 9.0)
    throttle.forget()
    assert (throttle.until, throttle.named) == (-inf, -inf)


@given(st.integers(0, 9), st.integers(0, 12), st.floats(1.0, 59.0))
def test_a_servers_word_never_raises_what_is_left(ours: int, remaining: int, reset: float):
    silent, heard = (spent(Budget("k", [MINUTE]), ours) for _ in range(2))
    heard.obey(told(Quota(remaining=remaining, reset_in=reset, limit=10)), 0.0)
    assert heard.usage(0.0)[0].remaining <= min(remaining, silent.usage(0.0)[0].remaining)
    assert heard.wait(0.0) >= silent.wait(0.0)


def refused(throttle: Throttle, now: float) -> None:
    throttle.obey(now, pause=None, is_refused=True, went_well=False)


def good(throttle: Throttle, now: float) -> None:
    throttle.obey(now, pause=0.5, is_refused=False, went_well=True)


@pytest.mark.parametrize("answer", [refused, good])
def test_no_later_answer_shortens_a_pause(answer: Callable[[Throttle, float], None]):
    throttle = Throttle(seed=1)
    for now in (0.0, 10.0, 20.0):
        refused(throttle, now)
    until = throttle.until
    answer(throttle, 20.1)
    assert throttle.until == until


def test_a_pause_that_the_server_names_is_named():
    budget = Budget("k", [MINUTE])
    budget.obey(told(status=429), 0.0)
    assert budget.named_until(0.5) is None
    budget.obey(told(status=503, retry_after=7.0), 0.5)
    assert budget.named_until(0.5) == 7.5


@pytest.mark.parametrize("later", [1, 5, 9])
def test_a_later_answer_of_the_same_window_lowers_what_remains(later: int):
    budget = Budget("k", [DAILY])
    for remaining in (5, later):
        budget.obey(told(Quota(remaining=remaining, reset_in=30.0)), 0.0)
    assert [left for left, _ in budget._remaining.horizons(0.0)] == [min(5, later)]


@pytest.mark.parametrize("resets", [(30.0, 50.0), (50.0, 30.0)])
def test_of_two_windows_without_calls_the_later_one_is_waited_for(resets: tuple[float, float]):
    budget = Budget("k", [DAILY])
    budget.obey(told(*(Quota(name=f"{at}", remaining=0, reset_in=at) for at in resets)), 0.0)
    assert budget.wait(0.0) == 50.0


def test_a_call_that_was_sent_after_the_servers_word_is_not_in_doubt():
    budget = Budget("k", [DAILY])
    budget.obey(told(Quota(remaining=2, reset_in=30.0)), 0.0)
    budget.spend(0.0)
    assert budget.wait(0.0) == 0.0


def test_calls_that_were_sent_on_a_servers_old_word_leave_nothing_and_no_less():
    remaining = Remaining()
    remaining.note(Quota(remaining=0, reset_in=30.0), None, CountedCalls(0.0), 0.0, longest=60.0)
    remaining.spent()
    assert remaining.horizons(0.0) == [(0, 30.0)]


def test_a_first_sweep_leaves_what_others_have_used():
    budget = Budget("k", [HOURLY], share=1.0)
    assert budget.burst_left(0.0) == 25
    budget.obey(told(Quota(remaining=4, reset_in=30.0, limit=100)), 0.0)
    assert budget.burst_left(0.0) == 4


@pytest.mark.parametrize(
    "asked",
    [
        Budget.wait,
        Budget.throttled_until,
        Budget.named_until,
        Budget.usage,
        Budget.burst_left,
        Budget.forecast,
        lambda budget, now: budget.obey(told(status=503, retry_after=90.0), now),
        lambda budget, now: budget.restore([(940.0, None)], now),
        lambda budget, now: budget.answered(budget.spend(1000.0), now),
    ],
)
def test_a_clock_that_went_back_is_taken_for_what_it_showed_last(asked: Callable[[Budget, float], object]):
    found = []
    for now in (1000.0, 970.0):
        budget = spent(Budget("k", [MINUTE, HOURLY]), 3, at=940.0)
        budget.obey(told(Quota(remaining=5, reset_in=30.0, limit=10), status=429, retry_after=20.0), 960.0)
        budget.wait(1000.0)
        said = asked(budget, now)
        found.append((said, budget.throttled_until(1000.0), budget.usage(1000.0), budget.usage(1035.0)))
    assert found[0] == found[1]


def test_a_call_of_another_worker_counts_from_a_moment_ahead_at_most():
    budget = Budget("k", [MINUTE])
    budget.restore([(0.0, 500.0)], 0.0)
    assert [budget.usage(at)[0].used for at in (61.0, 61.1)] == [1, 0]
