"""A budget that has enough to do uses what its limits allow, at every pace and whatever demand the planner sees."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.budget.budget import Budget
from poller.budget.limits import Limit, calls_allowed
from poller.clock import VirtualClock
from poller.polling.pace import Pace

HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
MOST = 120  # calls of a window, so that a test takes milliseconds


@dataclass
class Demand:
    """A planner that knows only how much demand there is now, relative to the demand that is usual."""

    drive: Callable[[float], float]

    def pace(self, now: float, left: int, seconds: float) -> float:
        return left / seconds * min(max(self.drive(now), 0.3), 3.0)


def steadily(level: float) -> Callable[[float], float]:
    return lambda _: level


def in_waves(period: float) -> Callable[[float], float]:
    return lambda now: 1 + math.sin(2 * math.pi * now / period)


def at_random(seed: int) -> Callable[[float], float]:
    drawn = random.Random(seed)
    return lambda _: drawn.choice((0.3, 0.5, 1.0, 3.0))


DRIVES = st.one_of(
    st.builds(steadily, st.floats(0.3, 3.0)),
    st.builds(in_waves, st.sampled_from([30.0, 900.0, HOUR, 5 * HOUR, DAY, WEEK])),
    st.builds(at_random, st.integers(0, 100)),
)


@dataclass
class Busy:
    """A budget with more work than calls, whose every call is answered after so long."""

    limits: list[Limit]
    share: float
    drive: Callable[[float], float]
    latency: float

    def until(self, end: float) -> list[float]:
        """When each call leaves."""
        clock = VirtualClock(0.0)
        budget = Budget("k", self.limits, share=self.share)
        pace = Pace(budget, cast(Any, Demand(self.drive)), clock, is_hurried=lambda: False)
        under_way: deque[tuple[float, int]] = deque()
        left: list[float] = []
        while (now := clock.steady()) < end:
            at = max(now + budget.wait(now), pace.due(now))
            if under_way and under_way[0][0] <= at:
                answered, call = under_way.popleft()
                clock.advance(max(0.0, answered - now))
                budget.answered(call, clock.steady())
            elif at > now:
                clock.advance(min(at, end) - now)
            else:
                under_way.append((now + self.latency, budget.spend(now)))
                pace.paid()
                left.append(now)
        return left


def fullest(sent: list[float], seconds: float) -> int:
    """Calls in the fullest window of that length."""
    return max((bisect_right(sent, at + seconds) - number for number, at in enumerate(sent)), default=0)


@st.composite
def limits(draw: st.DrawFn) -> list[Limit]:
    """A window with a pace from 6/h to 5/s, and perhaps a shorter one that is no tighter."""
    seconds = draw(st.sampled_from([1.0, 10.0, 60.0, 600.0, HOUR, DAY, WEEK]))
    fewest, most = max(1, math.ceil(6 * seconds / HOUR)), min(math.floor(5 * seconds), MOST)
    calls = draw(st.integers(min(fewest, most), most))
    found = [Limit(calls, seconds)]
    if draw(st.booleans()):
        shorter = draw(st.sampled_from([0.5, 7.0, 60.0])) * seconds / 100
        found.append(Limit(math.ceil(3 * calls * shorter / seconds) + 4, shorter))
    return found


@settings(max_examples=25, deadline=None)
@example(limits=[Limit(12, HOUR)], share=1.0, drive=steadily(1.0), latency=0.2)  # was 11 in every hour
@example(limits=[Limit(12, HOUR)], share=1.0, drive=steadily(0.9), latency=0.2)
@example(limits=[Limit(6, HOUR)], share=1.0, drive=steadily(0.3), latency=0.2)
@example(limits=[Limit(300, DAY)], share=1.0, drive=steadily(0.3), latency=0.2)
@example(limits=[Limit(2, 5.0)], share=1.0, drive=steadily(1.0), latency=0.0)  # was 7 in 25 seconds
@given(limits=limits(), share=st.sampled_from([1.0, 0.9, 0.5]), drive=DRIVES, latency=st.floats(0.0, 0.4))
def test_a_busy_budget_uses_what_its_limits_allow_and_never_more(
    limits: list[Limit], share: float, drive: Callable[[float], float], latency: float
) -> None:
    slowest = limits[0]
    allowed = calls_allowed(slowest, share)
    windows = max(5, math.ceil(40 / allowed))
    begin, end = 2 * slowest.seconds, (2 + windows) * slowest.seconds
    sent = Busy(limits, share, drive, latency).until(end)

    for limit in limits:
        assert fullest(sent, limit.seconds) <= calls_allowed(limit, share)
    whole = math.floor(
        (end - begin) / (slowest.seconds + latency + 0.001)
    )  # a call counts until its window after its answer
    used = sum(1 for at in sent if at >= begin)
    assert used >= 0.95 * allowed * whole, f"{used} of {allowed * whole}"


@pytest.mark.parametrize("drive", [0.3, 1.0, 3.0])
def test_twelve_calls_an_hour_are_twelve(drive: float) -> None:
    sent = Busy([Limit(12, HOUR)], 1.0, steadily(drive), 0.2).until(50 * HOUR)
    assert sum(1 for at in sent if at >= 2 * HOUR) >= 0.995 * 12 * 48


@pytest.mark.parametrize("latency", [0.0, 0.1])
def test_a_fast_budget_is_used_evenly_without_a_gap_and_a_burst_in_every_window(latency: float) -> None:
    sent = Busy([Limit(600, 60.0)], 1.0, steadily(1.0), latency).until(300.0)
    late = [at for at in sent if at >= 180.0]

    assert len(late) >= 0.99 * 2 * 600 * 60.0 / (60.0 + latency)
    assert max(second - first for first, second in pairwise(late)) < 0.75  # was 2.2 s
    assert fullest(late, 0.05) <= 5  # was 21
