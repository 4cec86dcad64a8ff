"""Public names for plugin authors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from poller.budget.limits import Limit
    from poller.sinks.protocol import Attempt, Gone, Receipt, Refused, Rejected, RetryLater, Sink, TooLarge
    from poller.sources.protocol import Endpoint, Page, PageError, Position, Source
    from state.records import Change, Event

hookimpl = pluggy.HookimplMarker("poller")

_SINKS, _SOURCES, _RECORDS = "poller.sinks.protocol", "poller.sources.protocol", "state.records"
_MODULES = {  # each module is imported when one of its names is used, so that `poller --help` stays quick
    "Attempt": _SINKS,
    "Change": _RECORDS,
    "Endpoint": _SOURCES,
    "Event": _RECORDS,
    "Gone": _SINKS,
    "Limit": "poller.budget.limits",
    "Page": _SOURCES,
    "PageError": _SOURCES,
    "Position": _SOURCES,
    "Receipt": _SINKS,
    "Refused": _SINKS,
    "Rejected": _SINKS,
    "RetryLater": _SINKS,
    "Sink": _SINKS,
    "Source": _SOURCES,
    "TooLarge": _SINKS,
}

__all__ = [
    "Attempt",
    "Change",
    "Endpoint",
    "Event",
    "Gone",
    "Limit",
    "Page",
    "PageError",
    "Position",
    "Receipt",
    "Refused",
    "Rejected",
    "RetryLater",
    "Sink",
    "Source",
    "TooLarge",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    """A public name, imported from its module at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return found
