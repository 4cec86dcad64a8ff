"""Leases: which worker owns a budget or a subscription, and under which epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NewType

import msgspec

Worker = NewType("Worker", str)  # the name of one process among those that share a state

LOCAL: Final = Worker("local")  # the one worker of a state that a single process holds
CONFIGURATION: Final = "configuration "  # before a digest, a key in `meta`: since when it is the newest
FOREVER: Final = float("inf")  # duration of a lease that no other worker can take


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The ownership of one budget or subscription. Each owner has a higher epoch than the one before it."""

    name: str  # "budget/office", "subscription/crm"
    worker: Worker
    epoch: int
    until: float  # Unix seconds of the store's clock; no other worker takes it before

    @property
    def subject(self) -> str:
        """The name of the budget or of the subscription."""
        return self.name.partition("/")[2]


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as the others see it."""

    name: Worker
    version: str  # of the program
    digest: str  # of its configuration
    listen: str  # address of its API; "": none
    lacks: tuple[str, ...] = ()  # leases that it cannot take, because it lacks their secrets
    since: float = 0.0  # Unix seconds of the store's clock: when it was first seen
    is_reloaded: bool = False  # it has just read its configuration again, which makes that the newest
    left: float = 0.0  # seconds until its leases run out, unless it renews them


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of a state, and what each owns, at one moment."""

    workers: tuple[WorkerState, ...]  # those that are alive, the oldest first
    owners: Mapping[str, Lease]  # by lease: leases of workers that are alive
    newest: str = ""  # of the digests of these workers, the one that was taken over last


def budget_lease(budget: str) -> str:
    """The name of the lease of a budget."""
    return f"budget/{budget}"


def subscription_lease(subscription: str) -> str:
    """The name of the lease of a subscription."""
    return f"subscription/{subscription}"
