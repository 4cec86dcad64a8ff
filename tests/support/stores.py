"""The stores that the contract suite runs over, each with what a test has to see beside the protocols."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from state.leases import FOREVER, LOCAL, Lease, Worker, subscription_lease
from state.sqlite.store import Store


class Backend(Protocol):
    """One state, which several workers may open."""

    def open(self) -> Store:
        """The state, as one more worker has it."""
        ...

    def dump(self) -> str:
        """All that is kept, as text."""
        ...

    def work(self, store: Store, step: Callable[[], object]) -> int:
        """How much the store works for a step, as a count that no machine's speed changes."""
        ...

    def close(self) -> None:
        """Close everything."""
        ...


class SqliteBackend:
    """A state file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "poller.db"
        self._stores: list[Store] = []

    def open(self) -> Store:
        store = Store.open(self._path, now=0.0)
        store.db.execute("PRAGMA synchronous = OFF")  # no machine goes down in a test
        self._stores.append(store)
        return store

    def dump(self) -> str:
        conn = self._stores[0].db.conn
        assert conn is not None
        return "\n".join(conn.iterdump())

    def work(self, store: Store, step: Callable[[], object]) -> int:
        conn, ticks = store.db.conn, 0
        assert conn is not None

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        conn.set_progress_handler(tick, 10)
        try:
            step()
        finally:
            conn.set_progress_handler(None, 0)
        return ticks

    def close(self) -> None:
        for store in self._stores:
            store.close()


BACKENDS: dict[str, Callable[[Path], Backend]] = {"sqlite": SqliteBackend}


def own(store: Store, name: str, worker: Worker = LOCAL, *, ttl: float = FOREVER) -> Lease:
    """The lease of a subscription, taken."""
    [lease] = store.leases.take(worker, [subscription_lease(name)], most=1, ttl=ttl)
    return lease
