"""The rate limiter of a budget: every call is written down here before it is sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog
from msgspec import structs

from poller.budget.budget import Budget
from poller.budget.headers import read_headers
from poller.clock import Clock
from state.errors import LeaseLost, PollerError

log = structlog.get_logger("poller")

LONG: Final = 10.0  # seconds from which on a pause that the server asks for is said
MOMENT: Final = 0.1  # seconds; no restart is quicker, so shorter pauses need not be stored
Answers = list[tuple[int, float]]  # a call's id in the state, and when it was answered (steady)


class CallRecords(msgspec.Struct, frozen=True, kw_only=True):
    """The steps that write down the calls of a budget."""

    spend: Callable[
        [Answers], Awaitable[int]
    ]  # writes one call durably, with the answers known so far, and returns its id
    flush: Callable[[Answers], Awaitable[None]]  # writes answers that no later call has written
    throttle: Callable[[float], Awaitable[None]]  # stores until when the server wants no call (steady), for a restart


class Paused(PollerError):
    """The server wants no call for longer than the caller waits."""

    def __init__(self, budget: str, until: float) -> None:
        super().__init__(f"the server wants no call of budget {budget}")
        self.until = until  # wall time


class RateLimiter:
    """Issues permits: one for each call that the windows of a budget allow, once the call is written down."""

    def __init__(self, budget: Budget, clock: Clock, records: CallRecords) -> None:
        self.budget = budget
        self.clock = clock
        self.calls = 0
        self.refused = 0  # answers that refused a call because there were too many
        self.freed: Callable[[], None] = lambda: None  # called when one more call may be in flight
        self.paid: Callable[[], None] = lambda: None  # called for every call that was written down
        self.noted = -math.inf  # the stored end of the server's pause (steady)
        self.valid_until: Callable[[], float] | None = None  # steady time after which no call is sent; None: no limit
        self._records = records
        self._answers: Answers = []
        self._turn = asyncio.Lock()
        self._answered = asyncio.Event()

    async def permit(self, *, patience: float = math.inf) -> Permit:
        """Wait until one more call may be sent, and write it down.

        Raises Paused if the server wants no call for longer than `patience` seconds.
        """
        self._refuse_to_wait(patience)
        async with self._turn:
            while (wait := self.budget.wait(self.clock.steady())) > 0:
                self._refuse_to_wait(patience)
                self._answered.clear()
                await self._pause(wait)
            call = self.budget.spend(self.clock.steady())
            answers, self._answers = self._answers, []
            try:
                written = await self._records.spend(answers)
            except BaseException:
                self._answers = answers + self._answers
                self.budget.answered(call, self.clock.steady())
                raise
            self.calls += 1
            self.paid()
            return Permit(self, call, written)

    def refuse_if_late(self) -> None:
        """Raise LeaseLost for a call that another worker may no longer know of.

        A process that was stopped after writing a call down must not send it when it continues: another worker may own
        the budget by then, and has counted that call as answered long ago.
        """
        if self.valid_until is not None and self.clock.steady() >= self.valid_until():
            raise LeaseLost(f"budget/{self.budget.name}: the lease has run out before the call left: it is not sent")

    def answered(self, call: int, written: int) -> None:
        """Note that an answer is complete, or that the call failed."""
        now = self.clock.steady()
        self.budget.answered(call, now)
        self._answers.append((written, now))
        self._answered.set()
        self.freed()

    async def heed(self, status: int, headers: Mapping[str, str], *, is_refusal: bool = False) -> None:
        """Obey the headers of an answer about further calls. `is_refusal`: its text says that there were too many."""
        self.refused += is_refusal or status == HTTPStatus.TOO_MANY_REQUESTS
        steady, said = self.clock.steady(), read_headers(status, headers, now=self.clock.now())
        self.budget.obey(structs.replace(said, is_refusal=is_refusal), steady)
        until = self.budget.throttled_until(steady)
        if until is not None and until > max(self.noted, steady) + MOMENT:
            self.noted = until
            await self._records.throttle(until)
            self.say_pause()

    def say_pause(self) -> None:
        """Log how long the server wants no call, where that is of some length."""
        steady = self.clock.steady()
        until = self.budget.throttled_until(steady) or steady
        if until - steady >= LONG:
            log.warning(
                "budget.waits",
                budget=self.budget.name,
                seconds=round(until - steady),
                why=self.budget.word or "the server asked for it before",
            )

    async def resume(self) -> None:
        """Forget the pause that the server asked for, here and in the state."""
        steady = self.clock.steady()
        self.budget.resume(steady)
        self.noted = steady
        self._answered.set()
        await self._records.throttle(steady)

    async def flush(self) -> None:
        """Write down the answers that no later call has written."""
        answers, self._answers = self._answers, []
        if answers:
            await self._records.flush(answers)

    def _refuse_to_wait(self, patience: float) -> None:
        steady = self.clock.steady()
        until = self.budget.throttled_until(steady)
        if until is not None and until - steady > patience:
            raise Paused(self.budget.name, self.clock.now() + until - steady)

    async def _pause(self, seconds: float) -> None:
        """Wait until that time has passed or an answer has made room."""
        waiting = asyncio.ensure_future(self._answered.wait())
        if seconds == float("inf"):
            await waiting
            return
        sleeping = asyncio.ensure_future(self.clock.sleep(seconds))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()


class Permit:
    """Permission for one call. As a context manager it covers the first call made within it; unused, it expires."""

    def __init__(self, limiter: RateLimiter, call: int, written: int) -> None:
        self._limiter = limiter
        self._call = call
        self._written = written
        self._open = True
        self._token: Token[Permit | None] | None = None
        self.is_taken = False

    def take(self) -> bool:
        """Use it for a call, once."""
        taken, self.is_taken = self.is_taken, True
        return not taken

    def done(self) -> None:
        """Note that the call is answered, or was never sent."""
        if self._open:
            self._open = False
            self._limiter.answered(self._call, self._written)

    async def __aenter__(self) -> Self:
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        self.done()


_current: ContextVar[Permit | None] = ContextVar("permit", default=None)


def current_permit() -> Permit | None:
    """The permit within which the running task makes its calls."""
    return _current.get()
