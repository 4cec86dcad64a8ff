"""A subscription's opened sink: the boundary at which code of sink plugins is called.

Whatever the plugin raises or returns becomes a value: a receipt, or the error of one attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog

from poller.clock import Clock
from poller.delivery.batches import BATCH_BYTES
from poller.delivery.subscription import Route
from poller.hooks.faults import abandon, is_cancelled, running_task, said, trace
from poller.sinks.protocol import Attempt, DeliveryError, Receipt
from state.records import Event

CLOSING = 5.0  # seconds that closing a sink may take, and again once it is cancelled

log = structlog.get_logger("poller.delivery")


class OpenedSink:
    """The sink of one subscription: opened by the first attempt, opened again after a failure, closed at the end."""

    def __init__(self, route: Route, *, clock: Clock, limit: float) -> None:
        self._route = route
        self._name = route.subscription.name
        self._plugin = route.subscription.plugin
        self._clock = clock
        self._sink: Any = None  # None: not open
        self._opening: asyncio.Task[BaseException | None] | None = None
        self._holder: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._raised = ""  # what `deliver` raised last, since its latest receipt: said once
        self._warned = False  # a warning that `deliver` returns no receipt was logged
        self.attempt_limit = limit  # seconds of one attempt
        self.max_bytes = BATCH_BYTES  # bytes of events in one attempt

    @property
    def is_open(self) -> bool:
        """Whether the sink is open."""
        return self._sink is not None

    async def open(self) -> BaseException | None:
        """Open the sink unless it is open; returns None or the exception. Concurrent attempts wait for the same
        opening.
        """
        if self._opening is None or (self._opening.done() and self._sink is None):
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt | BaseException:
        """Attempt a delivery: returns the receipt or the exception. Raises only the cancellation by Poller itself."""
        task = asyncio.current_task()
        try:
            receipt = await self._sink.deliver(events, attempt)
        except BaseException as error:  # a plugin may raise anything; it is recorded and retried
            if running_task() is not task or _is_ours(error):
                raise  # or the task was abandoned, and the interpreter discards it
            if not isinstance(error, DeliveryError | OSError) and said(error) != self._raised:
                self._raised = said(error)
                self._complain("sink.raised", error)
            return error
        self._raised = ""
        return receipt if isinstance(receipt, Receipt) else self._unreceipted()

    async def close(self) -> None:
        """Close the sink within seconds, or abandon it."""
        self._closing.set()
        holders = [task for task in (self._holder,) if task is not None and not task.done()]
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if holders and not await ends(holders, self._clock, CLOSING):
            holders[0].cancel()
            if not await ends(holders, self._clock, CLOSING):
                abandon(holders[0], f"{self._plugin}.__aexit__")

    async def _open(self) -> BaseException | None:
        opened: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._holder = asyncio.create_task(self._hold(opened))
        if not await ends([opened], self._clock, self.attempt_limit):
            self._holder.cancel()
            abandon(self._holder, f"{self._plugin}.__aenter__")
            opened.cancel()
            return TimeoutError(f"not opened within {self.attempt_limit:g} s")
        return opened.result()

    async def _hold(self, opened: asyncio.Future[BaseException | None]) -> None:
        """Open the sink and close it in the same task, because it may hold things that only that task may close."""
        try:
            async with self._entered() as sink:
                self._read_limits(sink)
                if opened.cancelled():
                    return
                self._sink = sink
                opened.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            if _is_ours(error):
                raise
            self._complain("sink.not_closed" if opened.done() else "sink.not_opened", error)
            if not opened.done():
                opened.set_result(error)

    def _entered(self) -> AbstractAsyncContextManager[Any]:
        return self._route.open_sink()

    def _read_limits(self, sink: Any) -> None:
        if not callable(getattr(sink, "deliver", None)):
            raise TypeError(
                f"__aenter__ returned {type(sink).__name__}, which has no deliver: it has to return the sink"
            )
        self.attempt_limit = _limit(sink, "attempt_limit", self.attempt_limit)
        self.max_bytes = int(_limit(sink, "max_bytes", self.max_bytes))

    def _unreceipted(self) -> Receipt:
        """The receipt if `deliver` returned none: returning means that the receiver has the events."""
        if not self._warned:
            self._warned = True
            hint = "it counts as delivered; let deliver() return a Receipt"
            log.warning("sink.no_receipt", subscription=self._name, sink=self._plugin, hint=hint)
        return Receipt(status="ok")

    def _complain(self, event: str, error: BaseException) -> None:
        log.warning(event, subscription=self._name, sink=self._plugin, error=said(error))
        log.debug("sink.traceback", sink=self._plugin, trace=trace(error))


def _limit(sink: Any, name: str, default: float) -> float:
    """A limit that a sink sets as an attribute. Raises TypeError if it is not valid."""
    value = getattr(sink, name, None)
    if value is None:
        return default
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise TypeError(f"{name} of the sink is {value!r:.80}: it has to be a positive number")
    return value


def _is_ours(error: BaseException) -> bool:
    """Whether the running task is being cancelled by its caller; a plugin may raise CancelledError for its own
    reasons.
    """
    return isinstance(error, asyncio.CancelledError) and is_cancelled()


async def ends(futures: Sequence[asyncio.Future[Any]], clock: Clock, seconds: float) -> bool:
    """Wait until all of these are done, at most so many seconds, without cancelling; returns whether they are."""
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        while left := [one for one in futures if not one.done()]:
            if timer.done():
                return False
            await asyncio.wait([timer, *left], return_when=asyncio.FIRST_COMPLETED)
        return True
    finally:
        timer.cancel()
