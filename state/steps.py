"""What runs the steps of a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

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
