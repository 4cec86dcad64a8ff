"""Commits of a state file: steps that wait at the same time share one, and a step that fails is undone alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from state.errors import Unavailable
from state.sqlite.failures import translated

TOGETHER: Final = 64  # steps that share one commit, at most


class Group(Protocol):
    """A transaction that several steps share."""

    def begin(self) -> None:
        """Begin: what steps write from now on is committed together."""
        ...

    def commit(self) -> None:
        """Commit it."""
        ...


class Apart:
    """For steps that commit by themselves: it does nothing."""

    def begin(self) -> None:
        """See `Group`."""

    def commit(self) -> None:
        """See `Group`."""


class Step(msgspec.Struct, kw_only=True):
    """One requested step and its result."""

    call: Callable[[], Any]
    done: asyncio.Future[Any]
    may_lag: bool
    reads: bool = False
    is_probe: bool = False
    refused: Callable[[int], Unavailable | None] = lambda _: None  # why it is refused, given how often steps were lost
    result: Any = None
    error: BaseException | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it may be answered before its commit."""
        return self.error is None and (self.reads or (self.may_lag and self.result.is_silent))

    def run(self) -> None:
        """Run it, on the thread of the store."""
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the step
            self.error = translated(error)

    def answer(self) -> None:
        """Give the result to the waiting task, on the loop's thread."""
        if self.done.cancelled():
            if self.error is not None and not isinstance(self.error, Unavailable):  # which is reported anyway
                told = {"message": "a step of the store failed that nobody waits for", "exception": self.error}
                self.done.get_loop().call_exception_handler(told)
        elif self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


class SharedCommits:
    """The open commit, and the results of earlier ones. Everything here runs on the thread of the store.

    A step that reports anything is answered only after its commit.
    """

    def __init__(self) -> None:
        self.group: Group = Apart()
        self.is_open = False  # a group is still to be committed
        self.lost = 0  # how often steps were answered but could not be committed
        self.outage: Unavailable | None = None  # why the latest step could not write the state
        self._lagging = 0  # steps of the open group that were answered

    def run(self, steps: list[Step]) -> None:
        """Run steps, and commit what they wrote unless the commit may wait."""
        writes = sum(not step.reads for step in steps)
        if not writes or (not self.is_open and len(steps) == 1 and not steps[0].may_lag):
            for step in steps:
                self._do(step)
            return
        try:
            self.group.begin()
            for step in steps:
                self._do(step)
            self.is_open = self._lagging + writes < TOGETHER and all(step.is_silent for step in steps)
            if self.is_open:
                self._lagging += writes
            else:
                self.group.commit()
                self._lagging = 0
        except BaseException as error:  # noqa: BLE001 - the commit failed: handed to whoever awaits these steps
            self._not_committed(steps, error)

    def _do(self, step: Step) -> None:
        """Run one step, unless the state cannot be written or an earlier step that it depends on was lost."""
        refused = self.outage if not step.is_probe else None
        refused = refused or step.refused(self.lost)
        if refused is not None:
            step.error = refused
            return
        step.run()
        if isinstance(step.error, Unavailable):
            self.outage = step.error if step.is_probe else self.outage or step.error
        elif step.is_probe and step.error is None:
            self.outage = None

    def _not_committed(self, steps: list[Step], error: BaseException) -> None:
        """Undo: nothing of these steps is in the state, nor of those that were answered before their commit."""
        error = next((step.error for step in steps if isinstance(step.error, Unavailable)), translated(error))
        if isinstance(error, Unavailable):
            self.outage = error
        self.lost += bool(self._lagging)
        self._lagging, self.is_open = 0, False
        for step in steps:
            step.error = error
