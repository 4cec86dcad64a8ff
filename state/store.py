"""The steps of the data's way. Each is one transaction: values in, values out; no callable, no clock, no connection.

Raised: StateError; Conflict (the base has changed: read and decide again); LeaseLost (another worker owns it: drop
what is held).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from state.leases import Lease, Worker
from state.notices import Notice


class Leases(Protocol):
    """Who owns a budget or a subscription. Times are those of the store."""

    def take(self, worker: Worker, wanted: Sequence[str], *, most: int, ttl: float) -> list[Lease]:
        """At most `most` of the wanted leases that are free, expired, or this worker's own from before a restart."""
        ...

    def renew(self, worker: Worker, *, ttl: float) -> list[Lease]:
        """Every lease that this worker still holds, for `ttl` seconds more."""
        ...

    def give_up(self, leases: Sequence[Lease]) -> None:
        """Let others take them at once. A lease that is already another's stays theirs."""
        ...


class Maintenance(Protocol):
    """What is written beside the data's way."""

    def tell(self, notices: Sequence[Notice]) -> list[int]:
        """Append the notices to the log, each with the next version of its subject; the numbers given."""
        ...
