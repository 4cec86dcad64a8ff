"""Public names for plugin authors."""

import pluggy

from poller.budget.limits import Limit
from poller.sinks.protocol import Attempt, Gone, Receipt, Refused, Rejected, RetryLater, Sink, TooLarge
from poller.sources.protocol import Endpoint, Page, PageError, Position, Source
from state.records import Change, Event

hookimpl = pluggy.HookimplMarker("poller")

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
