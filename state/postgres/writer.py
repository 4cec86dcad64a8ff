"""Runs steps on a few threads, each with its own connection, so that the event loop never waits.

Steps under one lease keep their order, and so do those of one session and the session after it. Others may overlap:
each is a separate transaction, and a step that only reads sees what was committed before it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from state.errors import Unavailable
from state.postgres.listening import Listening
from state.postgres.step_runner import StepRunner, UnderWay
from state.steps import P, S, T


class Writer:
    """Steps of one store. See `state.steps.Writer`."""

    def __init__(self, url: str) -> None:
        self.runner = StepRunner()
        self._listening = Listening(url)

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.runner.run(partial(step, *args, **kwargs))

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        return await self.runner.run(partial(step, *args, **kwargs))

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`: a silent recording itself tells the database not to wait for its disk."""
        return await self.runner.run(partial(step, *args, **kwargs))

    async def urgent(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `state.steps.Writer`: runs on one of the connections for leases."""
        return await self.runner.run_urgently(partial(step, *args, **kwargs))

    @property
    def outage(self) -> Unavailable | None:
        """See `state.steps.Writer`."""
        return self.runner.outage

    async def until_outage(self) -> Unavailable:
        """See `state.steps.Writer`."""
        while (outage := self.runner.outage) is None:
            self.runner.failing.clear()
            await self.runner.failing.wait()
        return outage

    async def probe(self, step: Callable[[], None]) -> None:
        """See `state.steps.Writer`."""
        await self.runner.probe(step)

    def session(self) -> Session:
        """See `state.steps.Writer`."""
        return Session(self)

    def on_news(self, hear: Callable[[str], None]) -> None:
        """See `state.steps.Writer`."""
        self._listening.begin(asyncio.get_running_loop(), hear)

    async def end(self, close: Callable[[], None]) -> None:
        """Run a last step, which closes the connections, also during an outage."""
        await asyncio.to_thread(self._listening.end)
        await self.runner.close(close)


class Session:
    """A session of the writer. See `state.steps.Session`."""

    def __init__(self, writer: Writer) -> None:
        self._runner = writer.runner
        self._under_way = UnderWay()

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._runner.run(partial(step, *args, **kwargs), self._under_way)

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        return await self._runner.run(partial(step, *args, **kwargs), self._under_way)

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`."""
        return await self._runner.run(partial(step, *args, **kwargs), self._under_way)

    def close(self) -> None:
        """Refuse every further step, including those that wait; the next session begins after those under way."""
        self._runner.end(self._under_way)
