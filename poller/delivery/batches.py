"""How many events one attempt carries: by count and by bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from state.deliveries import Job

BATCH_BYTES: Final = 1_000_000  # bytes of JSON in a digest, unless the sink states another limit
BATCH_EVENTS: Final = 1000  # events in one digest


def batches(jobs: Sequence[Job], max_bytes: int) -> Iterator[tuple[Job, ...]]:
    """The jobs in order, in batches of at most `max_bytes`; a larger event is alone."""
    batch: list[Job] = []
    size = 0
    for job in jobs:
        if batch and size + len(job.event.raw) > max_bytes:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(job)
        size += len(job.event.raw)
    if batch:
        yield tuple(batch)


def halves(jobs: Sequence[Job]) -> tuple[tuple[Job, ...], tuple[Job, ...]]:
    """Two parts of about the same number of events, in order."""
    middle = len(jobs) // 2
    return tuple(jobs[:middle]), tuple(jobs[middle:])
