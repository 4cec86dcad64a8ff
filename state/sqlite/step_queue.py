"""Queue of the steps of a state file: requested on the event loop, run on the thread of the store."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from state.errors import Unavailable
from state.sqlite import commits
from state.sqlite.commits import SharedCommits, Step
from state.sqlite.runner import Runner, StoreThread

MOMENT: Final = 0.02  # seconds that a commit without a waiter may be delayed


class StepQueue:
    """Waiting steps and those under way. The result of a step is reported on the loop that requested it."""

    def __init__(self, runner: Runner | None) -> None:
        self.commits = SharedCommits()
        self.may_lag = runner is None  # a step may be answered before its commit
        self.failing = asyncio.Event()  # set when a step was answered during an outage
        self._runner = runner or StoreThread()
        self._lock = threading.Lock()
        self._waiting: list[Step] = []
        self._working = False
        self._timer: asyncio.TimerHandle | None = None

    def ask(
        self,
        call: Callable[[], Any],
        *,
        may_lag: bool = False,
        reads: bool = False,
        is_probe: bool = False,
        refused: Callable[[int], Unavailable | None] = lambda _: None,
    ) -> asyncio.Future[Any]:
        """Run a step when its turn comes, even if nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        step = Step(call=call, done=done, may_lag=may_lag, reads=reads, is_probe=is_probe, refused=refused)
        with self._lock:
            self._waiting.append(step)
            begin, self._working = not self._working, True
        if begin:
            # Other steps that are requested in this turn of the loop share the commit.
            loop.call_soon(self._runner.submit, partial(self._work, loop))
        return step.done

    def close(self) -> None:
        """Return when all requested steps are done."""
        if self._timer is not None:
            self._timer.cancel()
        self._runner.close()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run waiting steps until there are none."""
        while steps := self._taken():
            self.commits.run(steps)
            with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody waits for these any more
                loop.call_soon_threadsafe(self._answer, steps)

    def _taken(self) -> list[Step]:
        most = commits.TOGETHER
        with self._lock:
            steps, self._waiting = self._waiting[:most], self._waiting[most:]
            self._working = bool(steps)
            return steps

    def _answer(self, steps: list[Step]) -> None:
        if self.commits.outage is not None:
            self.failing.set()
        for step in steps:
            step.answer()
        if self.commits.is_open and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOMENT, self._hurry)

    def _hurry(self) -> None:
        """Commit finished steps. If that fails, the next step reports it."""
        self._timer = None
        if self.commits.is_open:
            self.ask(lambda: None).add_done_callback(asyncio.Future.exception)
