"""The thread that writes the store, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from state.errors import Unavailable
from state.sqlite.commits import Group
from state.sqlite.runner import Runner
from state.sqlite.step_queue import StepQueue
from state.steps import P, S, T


class Writer:
    """Runs steps of the store one after the other on a separate thread (or on `runner`, where no commit waits).

    After `share_commits`, steps that wait at the same time share one synced commit. A step that fails is undone alone,
    and a step that reports anything is answered only after the commit.

    Once a step has failed because the state cannot be written, an *outage* lasts: every step is refused at once with
    the same `Unavailable`, until `probe` has written something again.
    """

    def __init__(self, runner: Runner | None = None) -> None:
        self.queue = StepQueue(runner)

    def share_commits(self, group: Group) -> None:
        """Let steps that wait at the same time share one commit from now on."""
        self.queue.commits.group = group

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done: asyncio.Future[T] = self.queue.ask(partial(step, *args, **kwargs))
        return await done  # a step runs to its end even if nobody waits for it any more

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        done: asyncio.Future[T] = self.queue.ask(partial(step, *args, **kwargs), reads=True)
        return await done

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`."""
        done: asyncio.Future[S] = self.queue.ask(partial(step, *args, **kwargs), may_lag=self.queue.may_lag)
        return await done

    async def urgent(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `state.steps.Writer`: a file has one writer, so the step waits for its turn."""
        return await self(step, *args, **kwargs)

    @property
    def outage(self) -> Unavailable | None:
        """Why the state cannot be written; None if the latest step could write it."""
        return self.queue.commits.outage

    async def until_outage(self) -> Unavailable:
        """Wait until the state cannot be written, and return the error."""
        while (outage := self.queue.commits.outage) is None:
            self.queue.failing.clear()
            await self.queue.failing.wait()
        return outage

    async def probe(self, step: Callable[[], None]) -> None:
        """Run one step in spite of an outage, which ends if the step succeeds. Raises Unavailable if it fails."""
        await self.queue.ask(step, is_probe=True)

    async def end(self, close: Callable[[], None]) -> None:
        """Commit finished steps and run a last step, which closes the file, also during an outage."""
        with contextlib.suppress(Unavailable):
            await self(lambda: None)
        await self.queue.ask(close, is_probe=True)

    def session(self) -> Session:
        """A session of this writer for one owner of memory."""
        return Session(self)

    def on_news(self, hear: Callable[[str], None]) -> None:
        """See `state.steps.Writer`: no other process writes the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.queue.close()


class Session:
    """A session of the writer for one owner of memory, which contains results that are not committed yet.

    If such a step is lost, memory is ahead of the state: the session is over, and each further step of it is refused
    with `Unavailable`. Its owner reads the state again, in a new session.
    """

    def __init__(self, writer: Writer) -> None:
        self._queue = writer.queue
        self._lost = writer.queue.commits.lost
        self._closed = False

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done: asyncio.Future[T] = self._queue.ask(partial(step, *args, **kwargs), refused=self.refused)
        return await done

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        done: asyncio.Future[T] = self._queue.ask(partial(step, *args, **kwargs), reads=True, refused=self.refused)
        return await done

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`."""
        done: asyncio.Future[S] = self._queue.ask(
            partial(step, *args, **kwargs), may_lag=self._queue.may_lag, refused=self.refused
        )
        return await done

    def close(self) -> None:
        """Refuse every further step, including those that wait."""
        self._closed = True

    def refused(self, lost: int) -> Unavailable | None:
        """Why a step of this session is refused, or None. `lost`: the writer's current count."""
        if self._closed or lost != self._lost:
            return Unavailable("an earlier step that this one depends on is not in the state: it is read again")
        return None
