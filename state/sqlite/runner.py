"""Runners of the steps of a state file: a separate thread, or at once on the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol


class Runner(Protocol):
    """Runs calls one after the other."""

    def submit(self, work: Callable[[], None], /) -> None:
        """Run `work` now, or when its turn comes."""
        ...

    def close(self) -> None:
        """Return when all submitted work is done."""
        ...


class StoreThread:
    """A thread that runs calls one after the other. It costs half of an executor, which makes a future for each."""

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
    """Runs each call at once on the caller's thread: for a virtual clock, where nothing may happen in between."""

    def submit(self, work: Callable[[], None], /) -> None:
        """See `Runner`."""
        work()

    def close(self) -> None:
        """See `Runner`."""
