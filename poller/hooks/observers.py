"""Observers of plugins: called after the fact, in order, one after the other, without delaying other work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import structlog

from poller.hooks.loading import Plugins
from state.errors import StateError
from state.records import Event

log = structlog.get_logger("poller")

MOST_WAITING: Final = 10_000  # calls that slower observers miss are counted in the log
PATIENCE: Final = 5.0  # seconds for waiting calls at the end

EventOf = Callable[[int], Awaitable[Event | None]]


class Observers:
    """Calls the plugins that observe. Use as `async with Observers(...) as observers`.

    An event is read from the log when its turn comes, so that only numbers wait.
    """

    def __init__(self, plugins: Plugins, event_of: EventOf) -> None:
        self._plugins = plugins
        self._event_of = event_of
        self._waiting: deque[tuple[str, str, Any]] = deque()
        self._missed = 0
        self._bell = asyncio.Event()
        self._closing = False

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call `hook` with its one argument, soon."""
        [(name, value)] = arguments.items()
        if not self._plugins.implements(hook):
            return
        if len(self._waiting) >= MOST_WAITING:
            self._missed += 1
            return
        self._waiting.append((hook, name, value))
        self._bell.set()

    @property
    def waiting(self) -> int:
        """How many calls are still to be made."""
        return len(self._waiting)

    def tell_recorded(self, numbers: Iterable[int]) -> None:
        """Call `event_recorded` for the events with these numbers."""
        for number in numbers:
            self.tell("event_recorded", event=number)

    async def __aenter__(self) -> Observers:
        self._task = asyncio.create_task(self._run(), name="observers")
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closing = True
        self._bell.set()
        _, late = await asyncio.wait([self._task], timeout=PATIENCE)
        if late:
            log.warning("observers.late", waiting=len(self._waiting))
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=bool(late))

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._bell.clear()
                await self._bell.wait()
                continue
            hook, name, value = self._waiting.popleft()
            if hook == "event_recorded":
                value = await self._event(value)
            if value is not None:
                await self._plugins.observe(hook, **{name: value})
            if self._missed and not self._waiting:
                log.warning("observers.missed", calls=self._missed, hint="an observer of a plugin is too slow")
                self._missed = 0

    async def _event(self, number: int) -> Event | None:
        """The event with that number; None if the state cannot be read now, or no longer has it."""
        try:
            return await self._event_of(number)
        except StateError as error:
            self._missed += 1
            log.warning("observers.not_read", sequence=number, error=str(error))
            return None
