"""Lives of the poller on one state: the real engine and store, which crash and begin again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from poller.config.models import Config
from poller.hooks.loading import Plugins
from poller.hooks.payloads import Polled
from poller.operations.gathering import Live, Watched, status
from poller.operations.status import EndpointStatus
from poller.polling.endpoint import status_of
from poller.polling.engine import Engine
from poller.polling.threads import AtOnce
from state.sqlite.connection import transaction
from state.sqlite.read_status import StatusReader
from state.sqlite.store import Reader, Store
from tests.truth.loop import LoopClock
from tests.truth.upstream import Upstream


class Crash(BaseException):
    """The process is gone."""


class Nobody:
    """Hears nothing."""

    def recorded(self, numbers: list[int]) -> None:
        pass

    def polled(self, poll: Polled) -> None:
        pass


class Writes:
    """The store's steps, each at once: none is ever under way."""

    def __init__(self, step: Callable[..., Awaitable[Any]]) -> None:
        self._step = step

    async def __call__(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._step(partial(step, *args, **kwargs))

    async def read(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._step(partial(step, *args, **kwargs), reads=True)

    async def unhurried(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._step(partial(step, *args, **kwargs), may_lag=True)  # a recording


class Life:
    """One life of the poller, from opening the state to closing it, well or not."""

    def __init__(self, path: Path, config: Config, upstream: Upstream, look: Callable[[Store, Engine], None]) -> None:
        self.path = path
        clock = LoopClock()
        self.store = Store.open(path, now=clock.now())
        self.engine = Engine(
            config,
            Plugins(),
            store=self.store,
            write=Writes(self._write),
            clock=clock,
            listener=Nobody(),
            transport=upstream,
            apart=lambda _: AtOnce(),
        )
        self._look = look
        self._crash_in = -1  # writes until then
        self._crash_kind = ""
        self._conflicts = range(0)  # of the recordings from now on: which of them find another base
        self._recordings = 0
        self._wreck: Path | None = None

    async def open(self) -> Self:
        """Begin to watch. May crash."""
        await self.engine.open()
        return self

    async def work(self, until: float, *, done: Callable[[], bool] = lambda: False) -> None:
        """Poll until then. Raises Crash when that is what is to happen."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        loops = list(self.engine.loops.values())
        for poll_loop in loops:
            poll_loop.poke = changed.set
        while loop.time() < until and not done():
            changed.clear()
            for poll_loop in loops:
                await poll_loop.wake()
                if poll_loop.tasks.failure is not None:
                    raise poll_loop.tasks.failure
            due = min(poll_loop.next_at() for poll_loop in loops) - loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), max(0.001, min(due, until - loop.time())))

    def crash(self, kind: str, writes: int) -> None:
        """Crash at one of the next writes: before it, inside it, or after it and before anybody knows."""
        self._crash_kind, self._crash_in = kind, writes

    def conflict(self, recordings: int, times: int) -> None:
        """Let so many recordings, after the next ones, find that somebody else has recorded meanwhile."""
        self._conflicts = range(self._recordings + recordings, self._recordings + recordings + times)

    def endpoints(self) -> dict[str, EndpointStatus]:
        """How each endpoint is shown to the operator, by name."""
        sources = self.engine.sources
        live = Live(
            budgets={},
            sources={name: active.health.snapshot() for name, active in sources.items()},
            endpoints={
                (name, w.name): Watched(**status_of(w))
                for name, active in sources.items()
                for w in active.endpoints.values()
            },
        )
        s = self.store
        reader = Reader(
            db=s.db,
            log=s.log,
            polls=s.poll_reader,
            leases=s.leases,
            deliveries=s.delivery_reader,
            sums=StatusReader(s.db),
        )
        shown = status(reader, self.engine.config, now=asyncio.get_running_loop().time(), live=live)
        return {one.endpoint: one for one in shown.endpoints}

    async def close(self) -> None:
        """End well."""
        await self.engine.close()
        self.store.group.commit()
        self.store.close()

    async def bury(self) -> None:
        """End after a crash; what its tasks still do, nobody sees. The state is as it was at the crash."""
        assert self._wreck is not None
        for poll_loop in self.engine.loops.values():
            await poll_loop.tasks.finish(0.0)
        self.store.close()
        for suffix in ("", "-wal"):
            shutil.move(f"{self._wreck}{suffix}", f"{self.path}{suffix}")
        Path(f"{self.path}-shm").unlink(missing_ok=True)

    async def _write(self, step: Callable[[], Any], *, may_lag: bool = False, reads: bool = False) -> Any:
        if self._wreck is not None:
            raise Crash
        if reads:
            return step()
        kind, self._crash_in = self._crash_kind if self._crash_in == 0 else "", self._crash_in - 1
        if kind == "before":
            self._die()
        if kind == "inside":
            self._interrupt(13)
        try:
            result = self._run(step, may_lag=may_lag)
        except sqlite3.OperationalError:
            if self._wreck is None:
                raise
            raise Crash from None
        finally:
            if kind == "inside":
                self._interrupt(0)
        if kind and self._wreck is None:
            self._die()
        self._look(self.store, self.engine)
        return result

    def _run(self, step: Callable[[], Any], *, may_lag: bool) -> Any:
        """As the daemon's writer does: what is silent waits for the next commit, at the longest one can think of."""
        if may_lag:
            self.store.group.begin()
            if self._recordings in self._conflicts:
                with transaction(self.store.db) as conn:
                    conn.execute("UPDATE endpoints SET revision = revision + 1")
            self._recordings += 1
        result = step()
        if not (may_lag and result.is_silent):
            self.store.group.commit()
        return result

    def _interrupt(self, every: int) -> None:
        conn = self.store.db.conn
        left = 20

        def count_down() -> int:
            nonlocal left
            left -= 1
            if left == 0 and conn.in_transaction:
                self._copy()
            return int(left <= 0 and self._wreck is not None)

        conn.set_progress_handler(count_down if every else None, every)

    def _die(self) -> None:
        self._copy()
        raise Crash

    def _copy(self) -> None:
        """The files as they are at this moment: what kill -9 leaves."""
        self._wreck = Path(f"{self.path}.wreck")
        shutil.copy(self.path, self._wreck)
        shutil.copy(f"{self.path}-wal", f"{self._wreck}-wal")
