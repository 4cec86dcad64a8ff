"""The sandbox's rate limits: each window, what a refusal says, and what counts."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.nutcache.sandbox.limiter import Limiter
from poller import Limit
from tests.plugins.nutcache.test_sandbox import LOGIN, Clock, client, sandbox

DOCUMENTED = (Limit(5, 1.0), Limit(200, 60.0), Limit(20000, 86400.0))
TIGHT = (Limit(3, 10.0),)


def statuses(http: httpx.Client, count: int) -> list[int]:
    return [http.get("timers").status_code for _ in range(count)]


def test_the_sixth_call_within_a_second_is_refused():
    clock = Clock()
    with sandbox(clock=clock, limits=DOCUMENTED) as (_, http):
        assert statuses(http, 6) == [200] * 5 + [429]


def test_a_minute_and_a_day_have_their_own_windows():
    limiter = Limiter(DOCUMENTED)
    minute = [limiter.arrive(0.25 * number) for number in range(201)]
    day = Limiter([Limit(20000, 86400.0)])
    waits = [day.arrive(4.0 * number) for number in range(20001)]

    assert [number for number, wait in enumerate(minute) if wait] == [200]
    assert minute[200] == pytest.approx(60 - 0.25 * 199)
    assert [number for number, wait in enumerate(waits) if wait] == [20000]


def test_refused_calls_count_so_whoever_insists_stays_out():
    clock = Clock()
    with sandbox(clock=clock, limits=TIGHT) as (_, http):
        assert statuses(http, 3) == [200] * 3
        for _ in range(10):
            clock.now += 3
            assert statuses(http, 1) == [429]
        clock.now += 10.5
        assert statuses(http, 1) == [200]


def test_refused_calls_may_be_free():
    clock = Clock()
    with sandbox("refused_calls=free", clock=clock, limits=TIGHT) as (_, http):
        assert statuses(http, 5) == [200] * 3 + [429] * 2
        clock.now += 10.5
        assert statuses(http, 1) == [200]


def test_retry_after_is_whole_seconds_after_which_a_call_passes():
    clock = Clock(1_800_000_000.4)
    with sandbox(clock=clock, limits=TIGHT) as (_, http):
        statuses(http, 3)
        clock.now += 0.25
        refused = http.get("timers")
        wait = int(refused.headers["retry-after"])

        assert refused.json() == {"message": "Too many calls."}
        clock.now += wait - 1
        assert statuses(http, 1) == [429]
        clock.now += 11
        assert statuses(http, 1) == [200]


def test_a_burst_is_told_to_wait_at_least_a_second():
    clock = Clock()
    with sandbox(clock=clock, limits=(Limit(1, 0.2),)) as (_, http):
        statuses(http, 1)

        assert http.get("timers").headers["retry-after"] == "1"


def test_retry_after_may_be_a_date_or_missing():
    clock = Clock()
    with sandbox("retry_after=date", clock=clock, limits=TIGHT) as (_, http):
        statuses(http, 3)
        until = parsedate_to_datetime(http.get("timers").headers["retry-after"]).timestamp()
        assert clock.now + 10 < until <= clock.now + 11
    with sandbox("retry_after=missing", clock=clock, limits=TIGHT) as (_, http):
        statuses(http, 3)
        refused = http.get("timers")
        assert (refused.status_code, "retry-after" in refused.headers) == (429, False)


def test_fixed_windows_begin_anew_at_their_multiples():
    clock = Clock(1_800_000_009.0)
    with sandbox("windows=fixed", clock=clock, limits=TIGHT) as (_, http):
        assert statuses(http, 4) == [200] * 3 + [429]
        clock.now += 1
        assert statuses(http, 4) == [200] * 3 + [429]


def test_a_utc_day_begins_anew_at_midnight():
    limiter = Limiter([Limit(2, 86400.0)], day="utc")
    evening = 86400.0 * 20000 - 10

    assert [limiter.arrive(evening + second) for second in (0, 1, 2, 10, 11, 12)] == [0, 0, 8, 0, 0, 86398]


def test_refusals_are_counted_per_window_with_the_worst_use():
    clock = Clock()
    with sandbox(clock=clock, limits=(Limit(2, 1.0), Limit(3, 60.0))) as (server, http):
        statuses(http, 3)
        clock.now += 5
        statuses(http, 1)
        calls = httpx.get(f"{server.origin}/_sandbox/calls", trust_env=False, verify=False).json()

        assert (calls["calls"], calls["refused"], calls["statuses"]) == (4, 2, {"200": 2, "429": 2})
        assert [(window["refused"], window["worst"]) for window in calls["windows"]] == [(1, 3), (1, 4)]


def test_an_error_counts_like_an_answer_and_an_unknown_token_does_not():
    with sandbox(clock=Clock(), limits=TIGHT) as (server, http), client(server, Authorization="Bearer x") as stranger:
        assert statuses(stranger, 5) == [401] * 5
        assert [http.get(path).status_code for path in ("nothing", "customers?page=0", "timers", "timers")] == [
            404,
            400,
            200,
            429,
        ]


def test_a_login_counts_unless_it_is_free():
    with sandbox(clock=Clock(), limits=TIGHT) as (_, http):
        assert [http.post("token", data=LOGIN).status_code for _ in range(4)] == [200] * 3 + [429]
    with sandbox("token_calls=free", clock=Clock(), limits=TIGHT) as (_, http):
        assert [http.post("token", data=LOGIN).status_code for _ in range(4)] == [200] * 4


def test_what_the_sandbox_tells_of_itself_is_free():
    with sandbox(clock=Clock(), limits=TIGHT) as (server, http):
        for _ in range(10):
            http.get(f"{server.origin}/_sandbox/journal")

        assert statuses(http, 1) == [200]
        assert len(server.sandbox.log) == 1


@settings(max_examples=50, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 5), max_size=80),
    free=st.booleans(),
    limits=st.lists(st.builds(Limit, st.integers(1, 5), st.sampled_from([1.0, 3.0, 10.0])), min_size=1, max_size=3),
)
def test_no_window_ever_lets_more_calls_pass_than_its_limit(gaps, free, limits):
    limiter = Limiter(limits, refused_calls="free" if free else "count")
    now, passed = 0.0, []
    for gap in gaps:
        now += gap
        if not limiter.arrive(now):
            passed.append(now)

    for limit in limits:
        for end in passed:
            assert sum(end - limit.seconds <= at <= end for at in passed) <= limit.calls


@settings(max_examples=50, deadline=None)
@given(gaps=st.lists(st.floats(0, 3), min_size=1, max_size=40), kind=st.sampled_from(["sliding", "fixed"]))
def test_whoever_waits_as_long_as_told_passes(gaps, kind):
    limiter = Limiter([Limit(2, 1.0), Limit(4, 7.0)], windows=kind)
    now = 0.0
    for gap in gaps:
        now += gap
        wait = limiter.arrive(now)
        if wait:
            now += wait + 0.001
            assert limiter.arrive(now) == 0
