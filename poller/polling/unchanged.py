"""Unchanged polls: the times of polls that found nothing new, which are still to be written."""

from __future__ import annotations

from collections.abc import Iterable

from poller.polling.endpoint import WatchedEndpoint
from poller.polling.source import ActiveSource
from state.polls import UnitTimes

Times = list[tuple[WatchedEndpoint, dict[int, UnitTimes]]]


def take_unchanged(sources: Iterable[ActiveSource]) -> Times:
    """Take the unwritten unchanged polls from their endpoints."""
    found = []
    for active in sources:
        for w in active.endpoints.values():
            if w.unchanged:
                found.append((w, w.unchanged))
                w.unchanged = {}
    return found


def give_back(times: Times) -> None:
    """Return polls to their endpoints after writing them failed."""
    for w, found in times:
        w.unchanged = found | w.unchanged
