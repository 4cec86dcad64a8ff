"""The engine in use, and its replacement by another one after a reload, an outage or a change of the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import structlog

from poller.config.models import Config
from state.errors import Unavailable
from state.leases import Lease
from state.steps import Session, Steps, Writer

if TYPE_CHECKING:  # what is built elsewhere
    from poller.polling.engine import Engine
    from poller.polling.loop import PollLoop

log = structlog.get_logger("poller")


class OpenedEngine(NamedTuple):
    """An engine, and the session of the state that ends with it."""

    engine: Engine
    session: Session

    async def abandon(self) -> None:
        """End both without writing to the state."""
        self.session.close()
        await self.engine.abandon()


class Engines:
    """One engine at a time. `build` makes an engine whose steps a session runs."""

    def __init__(self, config: Config, write: Writer, *, build: Callable[[Config, Steps], Engine]) -> None:
        self.is_polling = False  # False: the engine is over, and the state is to be read again
        self.changing = asyncio.Lock()  # one engine is replaced by another, or the state is waited for
        self._write = write
        self._build = build
        self._moved = 0.0  # seconds by which the clock was set since the engine was opened
        self._in_use = self.beside(config)

    @property
    def engine(self) -> Engine:
        """What polls."""
        return self._in_use.engine

    @property
    def is_stranded(self) -> bool:
        """Whether nothing is polled, and nobody is about to change that."""
        return not (self.is_polling or self.changing.locked())

    def beside(self, config: Config) -> OpenedEngine:
        """An engine for a configuration beside the one in use, in a separate session."""
        session = self._write.session()
        return OpenedEngine(self._build(config, session), session)

    def use(self, opened: OpenedEngine) -> None:
        """Poll with another engine from now on; the one before is closed."""
        self._moved = 0.0
        self._in_use = opened
        self.is_polling = True

    async def open(self) -> None:
        """Open the first engine. Raises PollerError."""
        await self.engine.open()
        self.is_polling = True

    async def close(self) -> None:
        """End the engine; if the state can be written, save what it has learned."""
        self.is_polling = False
        try:
            await self.engine.close()
        except Unavailable as error:
            log.warning("planner.not_saved", error=str(error), hint="what it learned in the last minute is forgotten")
        finally:
            self._in_use.session.close()

    async def abandon(self) -> None:
        """End the engine without writing to the state."""
        self.is_polling = False
        await self._in_use.abandon()

    async def pause(self) -> None:
        """End the engine without writing to the state, until `resume`."""
        async with self.changing:
            await self.abandon()

    async def resume(self) -> None:
        """Go on from what the state says, after a pause. Raises PollerError."""
        async with self.changing:
            if not self.is_polling:
                await self.reopen()

    async def reopen(self, *, moved: float = 0.0) -> None:
        """Open an engine of the same configuration. `moved`: seconds by which the clock was just set."""
        self._moved += moved
        opened = self.beside(self.engine.config)
        try:
            await opened.engine.open(self.engine, moved=self._moved)
        except BaseException:
            await opened.abandon()
            raise
        self.use(opened)

    async def adopt(self, lease: Lease) -> PollLoop | None:
        """Poll a budget that this worker has leased; None if the engine is just being replaced."""
        if self.changing.locked() or not self.is_polling:
            return None
        engine = self.engine
        poll_loop = await engine.adopt(lease)
        return poll_loop if engine is self.engine else None
