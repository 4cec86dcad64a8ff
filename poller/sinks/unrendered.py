"""What becomes of events for which a template cannot be rendered."""

from __future__ import annotations

from collections.abc import Sequence

from poller.sinks.protocol import Receipt, Rejected, TooLarge
from state.records import Event


def unrendered(events: Sequence[Event], error: Exception) -> Rejected:
    """What to raise instead: of several events halves are tried, until only the one at fault is a dead letter.

    A text may be too long for a digest and not for its events, or fail on the data of one of them.
    """
    kind = TooLarge if len(events) > 1 else Rejected
    return kind(Receipt(status="template", text=str(error)))
