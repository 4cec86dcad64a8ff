"""How long changes take to be seen and events to be delivered, counted since the daemon started, as histograms."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from poller.hooks.payloads import AttemptFinished
from state.status import SeenDelay

BOUNDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)  # seconds


class Histogram:
    """Counts of spans by the lowest bound that is not below them, and their sum."""

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def add(self, span: float) -> None:
        """Count a span; a negative one, of a clock that was set back, counts as none."""
        span = max(0.0, span)
        self._counts[bisect_left(BOUNDS, span)] += 1
        self.sum += span

    def buckets(self) -> list[tuple[str, float]]:
        """How many spans are within each bound, as Prometheus has them: the last one counts all."""
        found, total = [], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Delays:
    """The histograms of one daemon. `begin` says with which event of the log they begin."""

    def __init__(self) -> None:
        self.seen_upto: int | None = None  # number of the latest event that was counted; None: not begun
        self._seen: dict[tuple[str, str], Histogram] = {}
        self._delivered: dict[str, Histogram] = {}

    @property
    def seen(self) -> Mapping[tuple[str, str], Histogram]:
        """By source and endpoint: from when a change had certainly not happened yet until it was seen."""
        return self._seen

    @property
    def delivered(self) -> Mapping[str, Histogram]:
        """By subscription: from when an event was seen until its receiver had it."""
        return self._delivered

    def begin(self, last_seq: int) -> None:
        """Count the events after this one."""
        self.seen_upto = last_seq

    def count(self, found: Iterable[SeenDelay]) -> None:
        """Count events of the log, in order. What was counted before is not counted again."""
        for one in found:
            if self.seen_upto is not None and one.seq <= self.seen_upto:
                continue
            self.seen_upto = one.seq
            if one.delay is not None:
                self._seen.setdefault((one.source, one.endpoint), Histogram()).add(one.delay)

    def attempted(self, attempt: AttemptFinished) -> None:
        """Count what an attempt has delivered; replays and redeliveries say nothing about delays."""
        if attempt.state != "delivered" or not attempt.is_in_order:
            return
        histogram = self._delivered.setdefault(attempt.subscription, Histogram())
        for job in attempt.jobs:
            histogram.add(attempt.attempt.at + attempt.attempt.latency - job.event.time)
