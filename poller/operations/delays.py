"""Histograms of delays since the daemon started: until changes are seen, and until events are delivered."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from poller.hooks.payloads import AttemptFinished
from state.status import SeenDelay

BOUNDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)  # seconds


class Histogram:
    """Counts of spans by upper bound, and their sum."""

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def add(self, span: float) -> None:
        """Count a span; a negative one, caused by a clock that was set back, counts as zero."""
        span = max(0.0, span)
        self._counts[bisect_left(BOUNDS, span)] += 1
        self.sum += span

    def buckets(self) -> list[tuple[str, float]]:
        """How many spans are within each bound, in the form of Prometheus: the last bucket counts all."""
        found, total = [], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Delays:
    """The histograms of one daemon. `begin` sets the event of the log after which they begin."""

    def __init__(self) -> None:
        self.seen_upto: int | None = None  # number of the latest counted event; None: not begun
        self._seen: dict[tuple[str, str], Histogram] = {}
        self._delivered: dict[str, Histogram] = {}

    @property
    def seen(self) -> Mapping[tuple[str, str], Histogram]:
        """By source and endpoint: from the last poll without a change to the poll that showed it."""
        return self._seen

    @property
    def delivered(self) -> Mapping[str, Histogram]:
        """By subscription: from an event being seen to its delivery."""
        return self._delivered

    def begin(self, last_seq: int) -> None:
        """Begin to count with the events after this number."""
        self.seen_upto = last_seq

    def count(self, found: Iterable[SeenDelay]) -> None:
        """Count events of the log, in order. Events that were counted before are skipped."""
        for one in found:
            if self.seen_upto is not None and one.seq <= self.seen_upto:
                continue
            self.seen_upto = one.seq
            if one.delay is not None:
                self._seen.setdefault((one.source, one.endpoint), Histogram()).add(one.delay)

    def attempted(self, attempt: AttemptFinished) -> None:
        """Count what an attempt has delivered; replays and redeliveries are left out."""
        if attempt.state != "delivered" or not attempt.is_in_order:
            return
        histogram = self._delivered.setdefault(attempt.subscription, Histogram())
        for job in attempt.jobs:
            histogram.add(attempt.attempt.at + attempt.attempt.latency - job.event.time)
