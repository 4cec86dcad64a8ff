"""What runs the steps of a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from state.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class MaybeSilent(Protocol):
    """The answer of a step that may have nothing to report."""

    @property
    def is_silent(self) -> bool:
        """Whether nobody is told of anything that the step wrote."""
        ...


S = TypeVar("S", bound=MaybeSilent)


class Steps(Protocol):
    """Runs one step of a store and returns its answer: a bound method of a store and its arguments, nothing else.

    Steps never overlap and keep their order. Each is one transaction.
    """

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a step that only reads: what was answered before its commit may stay uncommitted."""
        ...

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """The same, but a silent step is answered before its commit, which comes with the next step or in a moment.

        A crash before that undoes such steps from the last one back, as if they had never begun.
        """
        ...


class Session(Steps, Protocol):
    """Steps of one holder of memory, who knows what was answered and not committed yet.

    Where such a step is lost, the memory is ahead of the state: the session is over, and each further step of it is
    refused with `Unavailable`. Its holder reads the state again, in a new session.
    """

    def close(self) -> None:
        """Refuse every further step, also those that wait."""
        ...


class Writer(Steps, Protocol):
    """Runs the steps of one open state, and knows whether it can be written at present.

    Once a step has failed because the state cannot be written, an *outage* lasts: every step is refused at once with
    the same `Unavailable`, until `probe` has written something again.
    """

    @property
    def outage(self) -> Unavailable | None:
        """Why the state cannot be written at present; None while it can, as far as the latest step has shown."""
        ...

    async def until_outage(self) -> Unavailable:
        """Return what keeps the state from being written, once something does."""
        ...

    async def probe(self, step: Callable[[], None]) -> None:
        """Run one step in spite of an outage, and end it where the step succeeds. Raises Unavailable where not."""
        ...

    async def urgent(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step that must not wait for others where that can be, as a renewal of leases."""
        ...

    def session(self) -> Session:
        """This writer for one holder of memory."""
        ...

    def on_news(self, hear: Callable[[str], None]) -> None:
        """Call `hear`, on the event loop, with what another worker may have written: "log", "deliveries", "commands".

        It may be called in vain, and not be called where it should be.
        """
        ...
