"""What the dashboard remembers since the daemon started: the latest polls of each endpoint, and the use of budgets.

Nothing is stored: it is empty after a restart. Its size is bounded, however long the daemon runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from poller.budget.windows import Usage
from poller.hooks.payloads import Polled

POLLS: Final = 30  # polls of each endpoint
SAMPLES: Final = 720  # samples of each budget
SAMPLE_EVERY: Final = 5.0  # seconds: an hour of samples


class PollSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One finished poll; `at` is Unix seconds."""

    at: float
    poll: Polled


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Use of the windows of a budget at one moment, in the order of its limits; `at` is Unix seconds."""

    at: float
    used: tuple[int, ...]


class History:
    """The memory of one daemon. Give every poll to `polled`, and call `sample` every SAMPLE_EVERY seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._polls: dict[tuple[str, str], deque[PollSeen]] = {}
        self._samples: dict[str, deque[Sample]] = {}

    def polled(self, poll: Polled) -> None:
        """Remember a poll."""
        seen = self._polls.setdefault((poll.source, poll.endpoint), deque(maxlen=POLLS))
        seen.append(PollSeen(at=self._now(), poll=poll))

    def sample(self, budgets: Mapping[str, Sequence[Usage]]) -> None:
        """Remember the current use of the windows of every budget."""
        at = self._now()
        for name, usage in budgets.items():
            sample = Sample(at=at, used=tuple(one.used for one in usage))
            self._samples.setdefault(name, deque(maxlen=SAMPLES)).append(sample)

    def polls(self, source: str, endpoint: str) -> list[PollSeen]:
        """The latest polls of an endpoint, the latest first."""
        return [*reversed(self._polls.get((source, endpoint), ()))]

    def samples(self, budget: str) -> list[Sample]:
        """The samples of the last hour, in order; only those with as many windows as the latest one."""
        found = [*self._samples.get(budget, ())]
        return [one for one in found if len(one.used) == len(found[-1].used)]
