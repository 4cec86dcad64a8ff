"""The error for events whose template cannot be rendered."""

from __future__ import annotations

from collections.abc import Sequence

from poller.sinks.protocol import Receipt, Rejected, TooLarge
from state.records import Event


def unrendered(events: Sequence[Event], error: Exception) -> Rejected:
    """The error to raise: several events are tried in halves, until only the failing event is a dead letter.

    A text may be too long for a digest but not for its events, or rendering may fail on the data of one of them.
    """
    kind = TooLarge if len(events) > 1 else Rejected
    return kind(Receipt(status="template", text=str(error)))
