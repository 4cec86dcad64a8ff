"""A sink of an installed plugin, which runs on the plugin's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, ClassVar

from pydantic import BaseModel

from poller.hooks.plugin_loops import Loop, soon
from poller.sinks.protocol import Attempt, Receipt, Sink
from state.records import Event


class SinkOnLoop:
    """A sink whose methods run on a plugin's loop. It is opened and closed there within one task, because it may hold
    things that only that task may close.
    """

    Options: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, build: Callable[[], Sink], loop: Loop) -> None:
        self._build = build
        self._loop = loop
        self._sink: Any = None
        self._close: Callable[[], None] | None = None
        self.attempt_limit: float | None = None
        self.max_bytes: float | None = None

    async def __aenter__(self) -> Any:
        """Open the sink. Returns what the plugin's `__aenter__` returned if that is no sink."""
        ours = asyncio.get_running_loop()
        opened: asyncio.Future[None] = ours.create_future()

        def is_open() -> None:
            if not opened.done():
                opened.set_result(None)

        self._holding = asyncio.create_task(self._held(partial(self._hold, lambda: soon(ours, is_open))))
        either: list[asyncio.Future[Any]] = [opened, self._holding]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._holding.cancel()
            raise
        if not opened.done():
            await self._ended()
        return self if callable(getattr(self._sink, "deliver", None)) else self._sink

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sink. Raises what its `__aexit__` raises."""
        if self._close is not None:
            self._close()
        await self._ended()

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """See `Sink.deliver`. The sink has events of its own, whose `data` it may change."""
        return await self._loop.run(partial(self._sink.deliver, [replace(event) for event in events], attempt))

    async def _held(self, hold: Callable[[], Awaitable[None]]) -> BaseException | None:
        """Open and close the sink. The exception is a value, because a task that raises SystemExit ends the loop."""
        try:
            await self._loop.run(hold)
        except BaseException as error:  # noqa: BLE001 - raised by `_ended`
            return error
        return None

    async def _ended(self) -> None:
        """Wait until the sink is closed. Raises why it could not be opened or closed."""
        error = await self._holding
        if error is not None:
            raise error

    async def _hold(self, opened: Callable[[], None]) -> None:
        async with self._build() as self._sink:
            self.attempt_limit = getattr(self._sink, "attempt_limit", None)
            self.max_bytes = getattr(self._sink, "max_bytes", None)
            closing, theirs = asyncio.Event(), asyncio.get_running_loop()
            self._close = partial(soon, theirs, closing.set)
            opened()
            await closing.wait()
