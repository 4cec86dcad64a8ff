"""The parts of a budget, each by itself: against plain counting, and by cases of what servers say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.budget.budget import Budget
from poller.budget.counted_calls import CountedCalls
from poller.budget.headers import Quota
from poller.budget.limits import DAY, HOUR, Limit, allowed, calls_allowed
from poller.budget.remaining import Remaining
from poller.budget.throttle import Throttle
from poller.budget.windows import longest_pause, window_of, windows_of

GUARD = 0.001
TIMES = st.lists(st.integers(0, 300).map(float), max_size=40)
SECONDS = st.sampled_from([10.0, 60.0, 200.0])


def counted(answered: list[float], flying: int = 0, *, longest: float = 200.0) -> CountedCalls:
    calls = CountedCalls(longest)
    calls.restore(answered)
    for _ in range(flying):
        calls.spend()
    return calls


@settings(max_examples=30)
@given(answered=TIMES, flying=st.integers(0, 5), seconds=SECONDS, now=st.integers(0, 400).map(float))
def test_a_call_counts_from_its_spending_until_its_window_after_its_answer(answered, flying, seconds, now):
    calls = counted(answered, flying)

    assert calls.used(seconds, now) == flying + sum(at > now - seconds - GUARD for at in answered)


@settings(max_examples=30)
@given(answered=TIMES, flying=st.integers(0, 5), seconds=SECONDS, most=st.integers(1, 45))
def test_room_is_due_at_the_first_moment_at_which_fewer_calls_count(answered, flying, seconds, most):
    calls = counted(answered, flying)
    due = calls.due(most, seconds)

    if due == math.inf:
        assert flying >= most
        return
    if due > -math.inf:
        assert calls.used(seconds, due - 2 * GUARD) >= most
    assert calls.used(seconds, max(due, max(answered, default=0.0)) + GUARD) < most


@pytest.mark.parametrize(
    ("most", "due"),
    [(1, 70.0 + GUARD), (2, 65.0 + GUARD), (3, 60.0 + GUARD), (4, -math.inf)],
)
def test_room_for_one_more_is_due_when_the_oldest_that_stands_in_the_way_expires(most, due):
    assert counted([0.0, 5.0, 10.0]).due(most, 60.0) == due


@settings(max_examples=30)
@given(answered=TIMES.filter(bool), seconds=SECONDS)
def test_what_is_expected_to_expire_expires_then(answered, seconds):
    calls, now = counted(answered), max(answered)
    used = calls.used(seconds, now)

    for expired, until in calls.expiring(seconds, now):
        assert calls.used(seconds, now + until + 2 * GUARD) <= used - expired


def test_each_call_of_a_few_is_expected_to_expire_and_the_last_one_too():
    assert counted([0.0, 5.0, 10.0]).expiring(60.0, 20.0) == [
        (3, 60.0),
        (1, pytest.approx(40.0 + GUARD)),
        (2, pytest.approx(45.0 + GUARD)),
        (3, pytest.approx(50.0 + GUARD)),
    ]
    assert counted([0.0, 5.0]).expiring(60.0, 62.0) == [(1, 60.0), (1, pytest.approx(3.0 + GUARD))]
    assert counted([]).expiring(60.0, 62.0) == [(0, 60.0)]
    assert counted([0.0], 2).expiring(60.0, 20.0)[0] == (3, 60.0)  # calls in flight leave last


def test_a_forecast_of_many_calls_looks_at_some_of_them_spread_evenly():
    ranks = [rank for rank, _ in counted([float(at) for at in range(10_000)], longest=86_400.0).expiring(86_400.0, 1e4)]

    assert ranks == [10_000, *range(1, 10_001, 10_000 // 64)]


@settings(max_examples=30)
@given(st.integers(600, 1500), st.integers(0, 1500))
def test_what_no_window_counts_is_forgotten_and_nothing_else(many, now):
    calls = counted([float(at) for at in range(many)], longest=100.0)
    before = calls.used(100.0, float(now))
    calls.forget(float(now))

    assert calls.used(100.0, float(now)) == before


def test_many_answers_that_no_window_counts_take_no_memory():
    calls = counted([float(at) for at in range(1500)], longest=100.0)
    calls.forget(2000.0)

    assert calls.used(1e9, 2000.0) == 0


@pytest.mark.parametrize(
    ("limit", "used", "least"),
    [
        (Limit(30, 1.0), 0, 30.0),  # a window of at most a minute is not spread
        (Limit(600, 60.0), 599, 10.0),
        (Limit(1000, 61.0), 999, 0.5),  # a longer one is, at the rate that can be sustained
        (Limit(1000, HOUR), 999, 0.5),
        (Limit(1000, DAY), 959, 0.5),
        (Limit(1000, DAY), 960, 0.0),  # of a day a few are saved
        (Limit(250, DAY), 240, 0.0),
        (Limit(249, DAY), 248, 0.5),  # too few to be worth it
        (Limit(1000, 2 * DAY), 1000, 0.0),
    ],
)
def test_what_a_window_would_lose_is_spent_except_for_a_few_calls_of_a_day(limit, used, least):
    [window] = windows_of([limit], 1.0)

    assert window.least(0.5, counted([0.0] * used, longest=limit.seconds), 0.0) == least


def test_an_answer_counts_once_and_only_where_its_call_was_in_flight():
    calls = CountedCalls(60.0)
    call = calls.spend()

    assert calls.answered(call, 5.0)
    assert not calls.answered(call, 6.0)
    assert not calls.answered(99, 6.0)
    assert calls.used(60.0, 6.0) == 1
    assert calls.in_flight == set()


@settings(max_examples=30)
@given(
    limits=st.lists(st.builds(Limit, st.integers(1, 10_000), st.sampled_from([1.0, 60.0, HOUR, 86_400.0])), min_size=1),
    share=st.floats(0.01, 1.0),
)
def test_the_share_is_taken_of_long_windows_alone_and_leaves_a_call(limits, share):
    for limit in limits:
        ours = calls_allowed(limit, share)
        assert 1 <= ours <= limit.calls
        if limit.seconds < HOUR:
            assert ours == limit.calls
        else:
            assert ours == max(1, math.floor(limit.calls * share + 1e-9))
    assert all(allowed(limits, share) <= calls_allowed(limit, share) / limit.seconds for limit in limits)


@pytest.mark.parametrize(
    ("quota", "found"),
    [
        (Quota(remaining=1, window=60.0), 60.0),
        (Quota(remaining=1, window=61.0, limit=10), None),  # of a length that none of ours has
        (Quota(remaining=1, limit=10), 1.0),
        (Quota(remaining=1, limit=100), None),  # two of ours have as many calls
        (Quota(remaining=1), None),
    ],
)
def test_a_server_speaks_of_the_window_of_its_length_or_of_its_calls(quota, found):
    windows = windows_of([Limit(100, HOUR), Limit(10, 1.0), Limit(100, 60.0)], 1.0)
    window = window_of(windows, quota)

    assert (window.limit.seconds if window else None) == found


def test_a_pause_lasts_as_long_as_the_longest_window_and_an_hour_at_least():
    assert longest_pause([]) == HOUR
    assert longest_pause(windows_of([Limit(1, 1.0)], 1.0)) == HOUR
    assert longest_pause(windows_of([Limit(1, 1.0), Limit(1, 86_400.0)], 1.0)) == 86_400.0
    assert longest_pause(windows_of([Limit(1, 86_400.0)], 1.0), 60.0) == HOUR
    assert longest_pause([], 7200.0) == 7200.0


@pytest.mark.parametrize(
    ("foreign", "ours", "due"),
    [
        (0, 9, -math.inf),
        (0, 10, 60.0 + GUARD),
        (6, 3, -math.inf),
        (6, 4, 30.0),  # others are counted until the server's window ends, before ours does
        (10, 0, 30.0),  # others have used everything
        (12, 0, 30.0),
    ],
)
def test_a_window_has_room_beside_what_others_have_used_of_it(foreign: int, ours: int, due: float):
    (window,) = windows_of([Limit(10, 60.0)], 1.0)
    window.foreign, window.foreign_until = foreign, 30.0

    assert window.due(counted([0.0] * ours), 1.0) == due
    assert window.due(counted([0.0] * 3), 30.0) == -math.inf  # that window of the server is over


def test_of_a_window_with_little_time_left_our_own_call_expires_first():
    (window,) = windows_of([Limit(10, 60.0)], 1.0)
    window.foreign, window.foreign_until = 6, 300.0

    assert window.due(counted([0.0, 5.0, 6.0, 7.0]), 10.0) == 60.0 + GUARD


class TestRemaining:
    """What the server leaves of its windows."""

    def note(self, known: Remaining, calls: CountedCalls, now: float, **quota: float) -> None:
        told = Quota(**{"remaining": 5, "reset_in": 60.0, **quota})  # type: ignore[arg-type]
        known.note(told, None, calls, now, longest=HOUR)

    def test_while_a_window_lasts_more_cannot_remain_of_it(self):
        remaining, calls = Remaining(), CountedCalls(60.0)
        self.note(remaining, calls, 0.0, remaining=2)
        self.note(remaining, calls, 1.0, remaining=9, reset_in=59.0)  # an answer that was overtaken

        assert remaining.horizons(1.0) == [(2, 59.0)]

    @pytest.mark.parametrize(("reset", "left"), [(61.0, 2), (61.1, 9)])
    def test_a_window_whose_end_moves_by_a_second_is_the_same_one(self, reset: float, left: int):
        remaining, calls = Remaining(), CountedCalls(60.0)
        self.note(remaining, calls, 0.0, remaining=2)
        self.note(remaining, calls, 0.0, remaining=9, reset_in=reset)

        assert [calls for calls, _ in remaining.horizons(0.0)] == [left]

    def test_a_window_with_one_call_left_is_not_used_up(self):
        remaining = Remaining()
        self.note(remaining, CountedCalls(60.0), 0.0, remaining=1)

        assert remaining.used_up_until() == -math.inf
        remaining.spent()
        assert remaining.used_up_until() == 60.0

    def test_a_window_of_ours_whose_end_the_server_does_not_name_lasts_as_long_as_ours(self):
        (window,) = windows_of([Limit(100, 600.0)], 1.0)
        remaining = Remaining()
        remaining.note(Quota(remaining=0, limit=100), window, CountedCalls(600.0), 0.0, longest=HOUR)

        assert remaining.used_up_until() == window.foreign_until == 600.0

    def test_of_the_next_window_more_remains(self):
        remaining, calls = Remaining(), CountedCalls(60.0)
        self.note(remaining, calls, 0.0, remaining=0)
        self.note(remaining, calls, 61.0, remaining=9)

        assert remaining.horizons(61.0) == [(9, 60.0)]

    def test_where_nothing_remains_no_call_leaves_before_the_window_is_over(self):
        remaining, calls = Remaining(), CountedCalls(60.0)
        self.note(remaining, calls, 10.0, remaining=0)

        assert remaining.due(10.0) == remaining.used_up_until() == 70.0
        assert remaining.due(70.0) == -math.inf

    def test_calls_in_flight_may_have_been_counted_or_not(self):
        remaining, calls = Remaining(), CountedCalls(60.0)
        first, second = calls.spend(), calls.spend()
        self.note(remaining, calls, 0.0, remaining=2)

        assert remaining.due(0.0) == math.inf  # both may still take what remains
        remaining.answered(first)
        assert remaining.due(0.0) == -math.inf
        remaining.spent()
        assert remaining.due(0.0) == math.inf
        remaining.answered(second)
        assert remaining.due(0.0) == -math.inf

    def test_a_reset_that_is_too_far_is_bounded(self):
        remaining = Remaining()
        self.note(remaining, CountedCalls(60.0), 0.0, remaining=0, reset_in=1e9)

        assert remaining.used_up_until() == HOUR

    def test_a_window_that_names_no_end_lasts_its_length_or_a_minute(self):
        remaining, calls = Remaining(), CountedCalls(60.0)
        remaining.note(Quota(name="a", remaining=0, window=600.0), None, calls, 0.0, longest=HOUR)
        remaining.note(Quota(name="b", remaining=1), None, calls, 0.0, longest=HOUR)

        assert remaining.horizons(0.0) == [(0, 600.0), (1, 60.0)]

    def test_the_same_window_of_ours_learns_what_others_have_used(self):
        (window,) = windows_of([Limit(100, 60.0)], 1.0)
        remaining, calls = Remaining(), counted([1.0, 2.0, 3.0])
        remaining.note(Quota(remaining=60, limit=100, reset_in=20.0), window, calls, 10.0, longest=HOUR)

        assert (window.foreign, window.foreign_until) == (37, 30.0)
        assert window.room(3, 10.0) == 60
        assert window.room(3, 30.0) == 97
        window.forget_foreign()
        assert (window.foreign, window.foreign_until) == (0, -math.inf)
        assert window.usage(calls, [], 10.0).foreign == 0


class TestThrottle:
    """Pauses after a refusal."""

    def refused(self, throttle: Throttle, now: float, pause: float | None = None) -> float:
        throttle.obey(now, pause=pause, is_refused=True, went_well=False)
        return throttle.until - now

    def test_each_refusal_after_a_pause_doubles_the_next_up_to_five_minutes(self):
        throttle, now, waits = Throttle(0), 0.0, []
        for _ in range(12):
            waits.append(self.refused(throttle, now))
            now = throttle.until

        for number, wait in enumerate(waits):
            assert 0.8 * min(300.0, 2.0**number) <= wait <= 1.2 * min(300.0, 2.0**number)

    def test_waits_of_one_seed_are_the_same_and_those_of_another_differ(self):
        first, second, other = (self.refused(Throttle(seed), 0.0) for seed in (1, 1, 2))

        assert first == second != other

    def test_refusals_of_calls_that_were_in_flight_together_are_one(self):
        throttle = Throttle(0)
        self.refused(throttle, 0.0)
        until = throttle.until
        self.refused(throttle, 0.1)
        self.refused(throttle, 0.2)

        assert throttle.until <= max(until, 0.2 + 1.2)

    def test_what_the_server_names_is_waited_for_and_nothing_is_added_at_first(self):
        throttle = Throttle(0)

        assert self.refused(throttle, 5.0, pause=30.0) == 30.0
        assert throttle.named == 35.0

    def test_a_server_that_refuses_again_after_the_time_it_named_is_given_more(self):
        throttle = Throttle(0)
        assert self.refused(throttle, 0.0, pause=0.0) == 0.0

        assert 0.8 <= self.refused(throttle, 1.0, pause=0.0) <= 1.2

    def test_a_call_that_goes_well_ends_the_series_once_the_pause_is_over(self):
        throttle = Throttle(0)
        now = 0.0
        for _ in range(5):
            self.refused(throttle, now)
            now = throttle.until
        throttle.obey(now - 1.0, pause=None, is_refused=False, went_well=True)  # it had left before
        assert self.refused(throttle, now) > 20.0

        now = throttle.until
        throttle.obey(now, pause=None, is_refused=False, went_well=True)
        assert self.refused(throttle, now) <= 1.2

    def test_a_pause_that_comes_with_a_good_answer_is_kept(self):
        throttle = Throttle(0)
        throttle.obey(10.0, pause=20.0, is_refused=False, went_well=True)

        assert (throttle.until, throttle.named) == (30.0, 30.0)
        throttle.forget()
        assert (throttle.until, throttle.named) == (-math.inf, -math.inf)

    def test_who_forgets_a_pause_forgets_the_refusals_before_it(self):
        throttle, now = Throttle(0), 0.0
        for _ in range(5):
            self.refused(throttle, now)
            now = throttle.until
        throttle.forget()

        assert 0.8 <= self.refused(throttle, now) <= 1.2


def test_a_budget_without_limits_lets_every_call_out_and_holds_on_to_few():
    budget = Budget("k", [], share=0.5)
    for number in range(3000):
        assert budget.wait(float(number)) == 0.0
        budget.answered(budget.spend(float(number)), float(number))

    assert (budget.share, budget.limits, budget.usage(3000.0)) == (0.5, (), ())
    assert len(budget._calls._answered) <= 513
