"""The budget against an independent count of what a server may have seen."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.budget.budget import Budget
from poller.budget.limits import Limit

START = 1_700_000_000.0
LIMITS = st.lists(
    st.builds(Limit, st.integers(1, 12), st.sampled_from([0.5, 1.0, 7.0, 60.0, 3600.0])),
    min_size=1,
    max_size=4,
    unique_by=lambda limit: limit.seconds,
)


def most_in_a_window(arrivals: list[float], seconds: float) -> int:
    """The fullest closed window, counted call by call without anything of the budget's."""
    arrivals = sorted(arrivals)
    return max((sum(1 for other in arrivals if start <= other <= start + seconds) for start in arrivals), default=0)


def permitted(limit: Limit, share: float) -> int:
    return max(1, int(limit.calls * share + 1e-9)) if limit.seconds >= 3600 else limit.calls


class Run:
    """A budget and its store, and a server whose clock alone decides when each call arrived."""

    def __init__(self, limits: list[Limit], share: float, concurrency: int) -> None:
        self.make = lambda: Budget("k", limits, share=share, concurrency=concurrency)
        self.budget = self.make()
        self.now = START
        self.arrivals: list[float] = []
        self.rows: list[list[float | None]] = []  # what is written down: sent, answered
        self.flying: list[tuple[int, int]] = []  # the budget's number, the row

    def spend(self) -> None:
        wait = self.budget.wait(self.now)
        if wait == inf:
            self.answer(0, 0.5)
        elif wait > 0:
            self.now += wait
        else:
            self.flying.append((self.budget.spend(self.now), len(self.rows)))
            self.rows.append([self.now, None])

    def answer(self, which: int, when: float) -> None:
        """`when` (0..1) is where between leaving and answer the server counted the call."""
        if self.flying:
            call, row = self.flying.pop(which % len(self.flying))
            self.budget.answered(call, self.now)
            self.rows[row][1] = self.now
            sent = self.rows[row][0]
            assert sent is not None
            self.arrivals.append(sent + (self.now - sent) * when)

    def crash(self, when: float) -> None:
        for _, row in self.flying:  # the server still gets what was on its way
            sent = self.rows[row][0]
            assert sent is not None
            self.arrivals.append(sent + (self.now - sent) * when)
        self.flying.clear()
        self.budget = self.make()
        self.budget.restore([(sent or 0.0, answered) for sent, answered in self.rows], self.now)
        for row in self.rows:
            row[1] = self.now if row[1] is None else row[1]

    def do(self, verb: str, count: int, amount: float) -> None:
        """One of `STEPS`."""
        if verb == "spend":
            for _ in range(count):
                self.spend()
        elif verb == "answer":
            self.answer(count, amount)
        elif verb == "pass":
            self.now += amount
        elif verb == "back":
            self.budget.wait(self.now - amount)  # a clock set back in the middle changes nothing
        else:
            self.crash(amount)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.integers(1, 6), st.just(0.0)),
        st.tuples(st.just("answer"), st.integers(0, 3), st.floats(0, 1)),
        st.tuples(st.just("pass"), st.just(0), st.floats(0, 30)),
        st.tuples(st.just("back"), st.just(0), st.floats(0, 5000)),
        st.tuples(st.just("crash"), st.just(0), st.floats(0, 1)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(limits=LIMITS, share=st.floats(0.1, 1.0), concurrency=st.integers(1, 6), steps=STEPS)
def test_no_window_ever_holds_more_than_its_share(
    limits: list[Limit], share: float, concurrency: int, steps: list[tuple[str, int, float]]
) -> None:
    run = Run(limits, share, concurrency)
    for verb, count, amount in steps:
        run.do(verb, count, amount)
    while run.flying:
        run.answer(0, 1.0)
    for limit in limits:
        assert most_in_a_window(run.arrivals, limit.seconds) <= permitted(limit, share)
