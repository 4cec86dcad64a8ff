"""The budget is exact: it lets out what it may at once, and no set clock and no restart lets out more."""

from __future__ import annotations

from bisect import bisect_right
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.budget.budget import Budget
from poller.budget.limits import Limit
from poller.clock import SystemClock
from tests.budget.test_budget import LIMITS, START, STEPS, Run, most_in_a_window, permitted

SLACK = 0.002  # seconds: what a call counts beyond its window, twice


def earliest(run: Run, limits: list[Limit], share: float, concurrency: int) -> float:
    """When a call may leave by the rule alone, looking at every moment at which something changes."""
    if len(run.flying) >= concurrency:
        return inf
    answers = sorted(answered for _, answered in run.rows if answered is not None)

    def fits(at: float, limit: Limit) -> bool:
        counted = len(answers) - bisect_right(answers, at - limit.seconds) + len(run.flying)
        return counted < permitted(limit, share)

    moments = [run.now, *(at + limit.seconds for limit in limits for at in answers if at + limit.seconds > run.now)]
    return min((at for at in moments if all(fits(at, limit) for limit in limits)), default=inf)


@settings(max_examples=150, deadline=None)
@given(limits=LIMITS, share=st.floats(0.1, 1.0), concurrency=st.integers(1, 6), steps=STEPS)
def test_a_call_waits_no_longer_than_the_windows_need(
    limits: list[Limit], share: float, concurrency: int, steps: list[tuple[str, int, float]]
) -> None:
    run = Run(limits, share, concurrency)
    for verb, count, amount in steps:
        run.do(verb, count, amount)
        at = earliest(run, limits, share, concurrency)
        assert run.budget.wait(run.now) == pytest.approx(at - run.now, abs=SLACK)


@settings(max_examples=50, deadline=None)
@given(limits=LIMITS, share=st.floats(0.1, 1.0), steps=STEPS)
def test_an_idle_budget_lets_the_next_call_go_at_once(
    limits: list[Limit], share: float, steps: list[tuple[str, int, float]]
) -> None:
    run = Run(limits, share, 4)
    for _, count, _ in steps:
        for _ in range(count):
            run.spend()
    while run.flying:
        run.answer(0, 1.0)
    run.now += max(limit.seconds for limit in limits) + SLACK
    assert run.budget.wait(run.now) == 0.0


class Machine:
    """A machine whose wall clock is set at will, and a program on it that is killed; a server that knows the time."""

    def __init__(self, limits: list[Limit], share: float) -> None:
        self.make = lambda: Budget("k", limits, share=share)
        self.true = START  # what the server's clock says
        self.wall = 0.0  # how far the wall clock is off
        self.known, self.boot_at_call = inf, 0  # by how much the wall clock may be ahead for all that is known
        self.boot = 1
        self.since = START - 1000.0
        self.anchor: str | None = None
        self.rows: list[list[float | None]] = []
        self.arrivals: list[float] = []
        self.start()

    def start(self) -> None:
        """Begin. Without a call since the boot there is only the wall clock to go by.

        What no machine can know is a clock that was set ahead since the latest call: further than it was then, and
        further than it was when steady time began with it.
        """
        if self.boot_at_call != self.boot:
            self.wall = min(self.wall, self.known)
        self.clock = SystemClock.resume(
            self.anchor,
            wall=lambda: self.true + self.wall,
            boottime=lambda: self.true - self.since,
            boot=f"{self.boot}",
        )
        self.budget = self.make()
        rows = [(sent or 0.0, answered) for sent, answered in self.rows]
        self.budget.restore(rows, self.clock.steady())
        for row in self.rows:
            row[1] = self.clock.steady() if row[1] is None else row[1]

    def call(self, seconds: float) -> None:
        """One call as soon as it may leave; it arrives at once, and is answered after so long."""
        self.true += self.budget.wait(self.clock.steady())
        call = self.budget.spend(self.clock.steady())
        self.anchor = str(self.clock.anchor())
        self.known, self.boot_at_call = max(self.wall, self.clock.steady() - self.true), self.boot
        self.rows.append([self.clock.steady(), None])
        self.arrivals.append(self.true)
        self.true += seconds
        self.budget.answered(call, self.clock.steady())
        self.rows[-1][1] = self.clock.steady()

    def reboot(self, seconds: float) -> None:
        """Off for a while."""
        self.true += seconds
        self.boot, self.since = self.boot + 1, self.true
        self.start()


MOMENTS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.floats(0, 3)),
        st.tuples(st.just("pass"), st.floats(0, 100)),
        st.tuples(st.just("set"), st.floats(-90_000, 90_000)),
        st.tuples(st.just("kill"), st.just(0.0)),
        st.tuples(st.just("reboot"), st.floats(0, 5000)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@example(
    limits=[Limit(1, 0.5)],
    share=1.0,
    moments=[("set", -1.0), ("kill", 0.0), ("set", 1.0), ("call", 0.0), ("reboot", 0.0), ("call", 0.0)],
)
@example(  # set ahead between the start and the latest call
    limits=[Limit(1, 3600.0)],
    share=1.0,
    moments=[("set", 7200.0), ("call", 0.0), ("reboot", 0.0), ("call", 0.0)],
)
@example(  # set ahead before the start, and corrected after the latest call
    limits=[Limit(1, 3600.0)],
    share=1.0,
    moments=[("set", 7200.0), ("reboot", 0.0), ("call", 0.0), ("set", -7200.0), ("reboot", 0.0), ("call", 0.0)],
)
@given(limits=LIMITS, share=st.floats(0.1, 1.0), moments=MOMENTS)
def test_no_set_clock_and_no_restart_lets_out_more(
    limits: list[Limit], share: float, moments: list[tuple[str, float]]
) -> None:
    machine = Machine(limits, share)
    for verb, amount in moments:
        if verb == "call":
            machine.call(amount)
        elif verb == "pass":
            machine.true += amount
        elif verb == "set":
            machine.wall += amount
        elif verb == "kill":
            machine.start()
        else:
            machine.reboot(amount)
    for limit in limits:
        assert most_in_a_window(machine.arrivals, limit.seconds) <= permitted(limit, share)
