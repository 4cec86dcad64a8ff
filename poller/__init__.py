"""What plugin authors import."""

import pluggy

from poller.budget import Limit
from poller.sinks import Attempt, Gone, Receipt, Refused, Rejected, RetryLater, Sink
from poller.sources import Endpoint, Page, PageError, Position, Source
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
    "hookimpl",
]
