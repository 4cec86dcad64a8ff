"""Whatever a sink plugin raises, returns or never ends is the failure of that attempt, and of nothing else."""

from __future__ import annotations

import asyncio
import builtins
import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import pytest

from poller.sinks.protocol import Attempt, Receipt, Rejected, RetryLater
from state.records import Event
from tests.support.bench import OK, Bench, Box, bench, said

__all__ = ["bench", "said"]

ARGUMENTS: dict[type[BaseException], tuple[Any, ...]] = {
    UnicodeDecodeError: ("utf-8", b"x", 0, 1, "why"),
    UnicodeEncodeError: ("utf-8", "x", 0, 1, "why"),
    UnicodeTranslateError: ("x", 0, 1, "why"),
    BaseExceptionGroup: ("some", [SystemExit(3)]),
    ExceptionGroup: ("some", [ValueError(3)]),
}
RAISED = sorted(
    {one for one in vars(builtins).values() if isinstance(one, type) and issubclass(one, BaseException)}
    | {asyncio.CancelledError, asyncio.InvalidStateError, asyncio.IncompleteReadError, asyncio.BrokenBarrierError}
    - {asyncio.IncompleteReadError},
    key=lambda one: one.__name__,
)


class Mute(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Unprepared(RetryLater):
    """A plugin's own error that does not call its parent."""

    def __init__(self) -> None:
        pass


async def test_every_exception_there_is_costs_one_attempt(bench: Bench) -> None:
    box, other = bench.route("crm", retry=(5.0,)), bench.route("other", types=("shop.*",))
    errors = [one(*ARGUMENTS.get(one, ("why",))) for one in RAISED] + [Mute(), Unprepared()]
    left = list(errors)

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if attempt.number == 1 and left:
            raise left.pop(0)
        return OK

    box.answer = answer
    await bench.start()
    for number in range(1, len(errors) + 1):
        await bench.record(number)
        await bench.pass_(6)

    assert len(other.seqs) == len(errors)
    assert box.seqs == other.seqs
    assert [len(bench.reader.attempts(one.id)) for one in bench.reader.deliveries(subscription="crm", limit=999)] == [
        2
    ] * len(errors)
    assert bench.books("crm").balanced


@pytest.mark.parametrize("returned", [None, True, "200", b"", 200, object(), [OK]])
async def test_what_is_no_receipt_counts_as_delivered_and_is_said_once(
    bench: Bench, said: list[Any], returned: Any
) -> None:
    box, other = bench.route("crm"), bench.route("other")

    async def answer(events: Sequence[Event], attempt: Attempt) -> Any:
        return returned

    box.answer = answer
    await bench.start()
    await bench.record(1, 2)

    assert [row.status for row in bench.reader.attempts(1)] == ["ok"]
    assert (bench.books("crm").delivered, other.seqs) == (2, [1, 2])
    assert [entry["event"] for entry in said if entry["log_level"] == "warning"] == ["sink.no_receipt"]


class Odd(Box):
    """A sink that is opened, or states its limits, as the test says."""

    def __init__(self, entered: Any = None, **attributes: Any) -> None:
        super().__init__()
        self.entered = entered
        self.closing: BaseException | None = None
        for name, value in attributes.items():
            setattr(self, name, value)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if isinstance(self.entered, BaseException):
            raise self.entered
        return self if self.entered is None else self.entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.closing is not None:
            raise self.closing


@pytest.mark.parametrize(
    "box",
    [
        Odd(SystemExit(1)),
        Odd(KeyboardInterrupt()),
        Odd(asyncio.CancelledError()),
        Odd("no sink at all"),
        Odd(attempt_limit="soon"),
        Odd(attempt_limit=math.nan),
        Odd(max_bytes=-1),
    ],
    ids=lambda box: f"{box.entered!r} {box.attempt_limit!r}",
)
async def test_a_sink_that_cannot_be_opened_fails_alone_and_is_opened_again(bench: Bench, box: Odd) -> None:
    bench.boxes["crm"] = box
    bench.route("crm", retry=(5.0,))
    other = bench.route("other")
    await bench.start()
    await bench.record(1)
    assert (bench.state("crm").pending, other.seqs) == (1, [1])

    box.entered, box.attempt_limit, box.max_bytes = None, 60.0, 1000  # type: ignore[attr-defined]
    await bench.pass_(6)
    assert box.seqs == [1]


async def test_a_sink_that_cannot_be_closed_does_no_harm(bench: Bench) -> None:
    box = bench.boxes["crm"] = Odd()
    box.closing = SystemExit(1)
    bench.route("crm")
    await bench.start()
    await bench.record(1)
    await bench.end()

    assert bench.books("crm").delivered == 1


class Stubborn(Box):
    """A sink that ignores its cancellation until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()
        self.answer = self.go_on
        self.hangs_on = 1
        self.opens_slowly = False

    async def go_on(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        if events[0].seq == self.hangs_on and attempt.number == 1:
            await self.ignore()
        return OK

    async def ignore(self) -> None:
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                continue

    async def __aenter__(self) -> Self:
        if self.opens_slowly:
            await self.ignore()
        return await super().__aenter__()


@pytest.fixture
async def stubborn(bench: Bench) -> Any:
    box = bench.boxes["crm"] = Stubborn()
    bench.route("crm", retry=(5.0,), concurrency=1)
    yield box
    box.let_go.set()
    await bench.settle()


async def test_an_attempt_that_ignores_its_cancellation_is_left_behind(bench: Bench, stubborn: Stubborn) -> None:
    await bench.start()
    await bench.record(1, 2)
    await bench.pass_(66)
    assert stubborn.seqs == [2]
    await bench.pass_(6)
    assert stubborn.seqs == [2, 1]

    stubborn.let_go.set()
    await bench.settle()
    assert [row.status for row in bench.reader.attempts(1)] == ["timeout", "200"]
    assert bench.books("crm").balanced


async def test_the_end_is_bounded_also_where_an_attempt_ignores_it(bench: Bench, stubborn: Stubborn) -> None:
    await bench.start()
    await bench.record(1)
    bench.stop.set()
    await bench.settle()
    await bench.pass_(30)

    assert bench.running is not None
    assert bench.running.done()
    assert [row.status for row in bench.reader.attempts(1)] == ["Unfinished"]
    assert bench.state("crm").pending == 1


async def test_the_end_is_bounded_also_where_a_sink_never_opens(bench: Bench, stubborn: Stubborn) -> None:
    stubborn.opens_slowly = True
    await bench.start()
    await bench.record(1)
    bench.stop.set()
    await bench.settle()
    await bench.pass_(30)

    assert bench.running is not None
    assert bench.running.done()


async def test_a_sink_that_never_opens_is_a_failed_attempt(bench: Bench, stubborn: Stubborn) -> None:
    stubborn.opens_slowly, stubborn.hangs_on = True, 0
    other = bench.route("other")
    await bench.start()
    await bench.record(1)
    await bench.pass_(61)
    assert other.seqs == [1]
    assert [row.status for row in bench.reader.attempts(1)] == ["timeout"]

    stubborn.opens_slowly = False
    await bench.pass_(6)
    assert stubborn.seqs == [1]


async def test_a_limit_of_a_sink_is_for_the_attempt_not_for_opening_it(bench: Bench) -> None:
    box = bench.boxes["crm"] = Odd(attempt_limit=600.0)
    bench.route("crm", retry=())
    box.answer = box.hang
    await bench.start()
    await bench.record(1)
    await bench.pass_(599)
    assert bench.state("crm").pending == 1
    await bench.pass_(2)
    assert bench.state("crm").dead == 1


async def test_a_rejection_without_a_receipt_is_still_a_rejection(bench: Bench) -> None:
    class Bare(Rejected):
        def __init__(self) -> None:
            pass

    box = bench.route("crm", retry=(5.0,) * 3)
    box.fail(Bare())
    await bench.start()
    await bench.record(1)
    assert bench.state("crm").dead == 1
