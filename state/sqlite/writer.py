"""The one thread on which the store is written, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self

from state.errors import Unavailable
from state.sqlite.failures import translated
from state.steps import P, S, Steps, T

Write = Steps


class Runner(Protocol):
    """Runs what it is given, one after the other."""

    def submit(self, work: Callable[[], None], /) -> None:
        """Run `work` now, or when its turn comes."""
        ...

    def close(self) -> None:
        """Return when all that was given is done."""
        ...


class Group(Protocol):
    """What lets steps share one commit."""

    def begin(self) -> None:
        """What steps write from now on is committed together."""
        ...

    def commit(self) -> None:
        """Commit it."""
        ...


class Apart:
    """Steps that each see to their own commit."""

    def begin(self) -> None:
        """See `Group`."""

    def commit(self) -> None:
        """See `Group`."""


TOGETHER = 64  # steps that share one commit, at most
MOMENT = 0.02  # seconds for which a commit waits that nobody waits for


class Writer:
    """Steps of the store, one after the other, on a thread of their own (or on `runner`, where no commit waits).

    Steps that wait at the same time share one synced commit once `group` is set; each is undone alone where it
    fails, and none that tells anything is answered before the commit.

    Once a step has failed because the state cannot be written, an *outage* lasts: every step is refused at once with
    the same `Unavailable`, until `probe` has written something again.
    """

    def __init__(self, runner: Runner | None = None) -> None:
        self.group: Group = Apart()
        self._runner = runner or StoreThread()
        self._may_lag = runner is None
        self._lock = threading.Lock()
        self._waiting: list[_Step] = []
        self._working = False
        self._is_open = False  # there is a group that is still to be committed
        self._lagging = 0  # steps of it that were answered
        self._lost = 0  # times that steps were answered and could not be committed
        self._outage: Unavailable | None = None
        self._failing = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done: asyncio.Future[T] = self._asked(partial(step, *args, **kwargs))
        return await done  # a step goes on to its end also when nobody waits for it any more

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        done: asyncio.Future[T] = self._asked(partial(step, *args, **kwargs), reads=True)
        return await done

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`."""
        done: asyncio.Future[S] = self._asked(partial(step, *args, **kwargs), may_lag=self._may_lag)
        return await done

    async def urgent(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `state.steps.Writer`: a file has one writer, so it waits for its turn."""
        return await self(step, *args, **kwargs)

    @property
    def outage(self) -> Unavailable | None:
        """Why the state cannot be written at present; None while it can, as far as the latest step has shown."""
        return self._outage

    async def until_outage(self) -> Unavailable:
        """Return what keeps the state from being written, once something does."""
        while (outage := self._outage) is None:
            self._failing.clear()
            await self._failing.wait()
        return outage

    async def probe(self, step: Callable[[], None]) -> None:
        """Run one step in spite of an outage, and end it where the step succeeds. Raises Unavailable where not."""
        await self._asked(step, is_probe=True)

    async def end(self, close: Callable[[], None]) -> None:
        """Commit what waits for it and run a last step, which closes the file, also during an outage."""
        with contextlib.suppress(Unavailable):
            await self(lambda: None)
        await self._asked(close, is_probe=True)

    def session(self) -> Session:
        """This writer for one holder of memory."""
        return Session(self)

    def on_news(self, hear: Callable[[str], None]) -> None:
        """See `state.steps.Writer`: nobody else writes the file."""

    def _asked(
        self,
        call: Callable[[], Any],
        *,
        may_lag: bool = False,
        reads: bool = False,
        is_probe: bool = False,
        session: Session | None = None,
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        step = _Step(call=call, done=done, may_lag=may_lag, reads=reads, is_probe=is_probe, session=session)
        with self._lock:
            self._waiting.append(step)
            begin, self._working = not self._working, True
        if begin:
            # What else is asked for in this turn of the loop shares the commit.
            loop.call_soon(self._runner.submit, partial(self._work, loop))
        return step.done

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do what waits, until nothing does."""
        while steps := self._taken():
            self._run(steps)
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for these any more
                loop.call_soon_threadsafe(self._answer, steps)

    def _taken(self) -> list[_Step]:
        with self._lock:
            steps, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            self._working = bool(steps)
            return steps

    def _run(self, steps: list[_Step]) -> None:
        writes = sum(not step.reads for step in steps)
        if not writes or (not self._is_open and len(steps) == 1 and not steps[0].may_lag):
            for step in steps:
                self._do(step)
            return
        try:
            self.group.begin()
            for step in steps:
                self._do(step)
            self._is_open = self._lagging + writes < TOGETHER and all(step.is_silent for step in steps)
            if self._is_open:
                self._lagging += writes
            else:
                self.group.commit()
                self._lagging = 0
        except BaseException as error:  # noqa: BLE001 - the commit failed: handed to whoever awaits these steps
            self._not_committed(steps, error)

    def _do(self, step: _Step) -> None:
        """Run one step, unless the state cannot be written or what the step rests on was lost."""
        refused = self._outage if not step.is_probe else None
        if step.session is not None:
            refused = refused or step.session.refused(self._lost)
        if refused is not None:
            step.error = refused
            return
        step.run()
        if isinstance(step.error, Unavailable):
            self._outage = self._outage or step.error
        elif step.is_probe and step.error is None:
            self._outage = None

    def _not_committed(self, steps: list[_Step], error: BaseException) -> None:
        """Nothing of these steps is in the state, nor of those that were answered before their commit."""
        error = next((step.error for step in steps if isinstance(step.error, Unavailable)), translated(error))
        if isinstance(error, Unavailable):
            self._outage = error
        self._lost += bool(self._lagging)
        self._lagging, self._is_open = 0, False
        for step in steps:
            step.error = error

    def _answer(self, steps: list[_Step]) -> None:
        if self._outage is not None:
            self._failing.set()
        for step in steps:
            step.answer()
        if self._is_open and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOMENT, self._hurry)

    def _hurry(self) -> None:
        """Commit what waits for it. Where that fails, whoever asks next is told."""
        self._timer = None
        if self._is_open:
            self._asked(lambda: None).add_done_callback(asyncio.Future.exception)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._runner.close()


class Session:
    """The writer as one holder of memory has it, who knows what was answered and not committed yet.

    Where such a step is lost, the memory is ahead of the state: the session is over, and each further step of it is
    refused with `Unavailable`. Its holder reads the state again, in a new session.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lost = writer._lost
        self._closed = False

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done: asyncio.Future[T] = self._writer._asked(partial(step, *args, **kwargs), session=self)
        return await done

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        done: asyncio.Future[T] = self._writer._asked(partial(step, *args, **kwargs), reads=True, session=self)
        return await done

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`."""
        may_lag = self._writer._may_lag
        done: asyncio.Future[S] = self._writer._asked(partial(step, *args, **kwargs), may_lag=may_lag, session=self)
        return await done

    def close(self) -> None:
        """Refuse every further step, also those that wait."""
        self._closed = True

    def refused(self, lost: int) -> Unavailable | None:
        """Why a step of this session is not run, if it is not. `lost`: as the writer counts it by now."""
        if self._closed or lost != self._lost:
            return Unavailable("what this step rests on is not in the state: it is read again")
        return None


@dataclass(slots=True, kw_only=True)
class _Step:
    call: Callable[[], Any]
    done: asyncio.Future[Any]
    may_lag: bool
    reads: bool = False
    is_probe: bool = False
    session: Session | None = None
    result: Any = None
    error: BaseException | None = None

    @property
    def is_silent(self) -> bool:
        """It may be answered before its commit."""
        return self.error is None and (self.reads or (self.may_lag and self.result.is_silent))

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the step
            self.error = translated(error)

    def answer(self) -> None:
        """Tell whoever awaits it, on the loop's thread."""
        if self.done.cancelled():
            if self.error is not None:
                told = {"message": "a step of the store failed that nobody waits for", "exception": self.error}
                self.done.get_loop().call_exception_handler(told)
        elif self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


class StoreThread:
    """A thread that runs one work after the other. Half the cost of an executor's, which makes a future of each."""

    def __init__(self) -> None:
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None], /) -> None:
        """See `Runner`."""
        self._works.put(work)

    def close(self) -> None:
        """See `Runner`."""
        self._works.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work()


class Inline:
    """Runs each work at once on the caller's thread: for a virtual clock, where nothing may happen by the way."""

    def submit(self, work: Callable[[], None], /) -> None:
        """See `Runner`."""
        work()

    def close(self) -> None:
        """See `Runner`."""
