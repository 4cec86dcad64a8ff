"""Protocols for running the steps of a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from state.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class MaybeSilent(Protocol):
    """The result of a step that may have nothing to report."""

    @property
    def is_silent(self) -> bool:
        """Whether nothing that the step wrote is reported to anybody."""
        ...


S = TypeVar("S", bound=MaybeSilent)


class Steps(Protocol):
    """Runs one step of a store and returns its result: a bound method of a store and its arguments, nothing else.

    Steps never overlap and keep their order. Each is one transaction.
    """

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a step that only reads: steps that were answered before their commit may stay uncommitted."""
        ...

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """The same, but a silent step is answered before its commit, which comes with the next step or soon after.

        A crash before that undoes such steps from the last one back, as if they had never begun.
        """
        ...


class Session(Steps, Protocol):
    """Steps of one owner of memory, which contains results that are not committed yet.

    If such a step is lost, memory is ahead of the state: the session is over, and each further step of it is refused
    with `Unavailable`. Its owner reads the state again, in a new session.
    """

    def close(self) -> None:
        """Refuse every further step, including those that wait."""
        ...


class Writer(Steps, Protocol):
    """Runs the steps of one open state, and knows whether the state can be written.

    Once a step has failed because the state cannot be written, an *outage* lasts: every step is refused at once with
    the same `Unavailable`, until `probe` has written something again.
    """

    @property
    def outage(self) -> Unavailable | None:
        """Why the state cannot be written; None if the latest step could write it."""
        ...

    async def until_outage(self) -> Unavailable:
        """Wait until the state cannot be written, and return the error."""
        ...

    async def probe(self, step: Callable[[], None]) -> None:
        """Run one step in spite of an outage, which ends if the step succeeds. Raises Unavailable if it fails."""
        ...

    async def urgent(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step that should not wait for others, if possible, such as a renewal of leases."""
        ...

    def session(self) -> Session:
        """A session of this writer for one owner of memory."""
        ...

    def on_news(self, hear: Callable[[str], None]) -> None:
        """Call `hear`, on the event loop, with what another worker may have written: "log", "deliveries", "commands".

        A call may be superfluous, and a call may be missing.
        """
        ...
