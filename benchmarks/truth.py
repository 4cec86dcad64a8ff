"""`make prove`: thousands of random runs of a model API, each judged by a subscriber who believes the log alone.

Two processes, a quarter of an hour at most; hypothesis shrinks what it finds to the smallest run. The same numbers give
the same runs: `python -m benchmarks.truth 250 17` tries the 250 examples of seed 17 again.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from typing import Final

import structlog
from hypothesis import HealthCheck, given, seed, settings

from tests.truth.run import prove
from tests.truth.world import Step, World, runs

EXAMPLES: Final = 5_000
AT_ONCE: Final = 50  # examples of one seed
SECONDS: Final = 840.0


def tried(number: int, examples: int = AT_ONCE) -> tuple[int, int]:
    """Try examples of one seed; return how many runs that was and how many calls were answered in them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    calls: list[int] = []

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(runs())
    def attempt(run: tuple[World, list[Step]]) -> None:
        calls.append(prove(*run).calls)

    attempt()
    return len(calls), sum(calls)


def main() -> int:
    """Try until it is enough, or time is over; 1 where something was untrue or there was too little time."""
    if len(sys.argv) == 3:
        print(*tried(int(sys.argv[2]), int(sys.argv[1])))
        return 0
    began, runs_done, calls = time.monotonic(), 0, 0
    with multiprocessing.Pool(2) as pool:
        for done, asked in pool.imap_unordered(tried, range(EXAMPLES // AT_ONCE)):
            runs_done, calls = runs_done + done, calls + asked
            spent = time.monotonic() - began
            print(f"{runs_done:5} runs, {calls:7} calls, {spent:4.0f} s", flush=True)
            if spent > SECONDS:
                pool.terminate()
                break
    print(f"{'enough' if runs_done >= EXAMPLES else 'not enough'}: {runs_done} of {EXAMPLES} runs, all true")
    return 0 if runs_done >= EXAMPLES else 1


if __name__ == "__main__":
    sys.exit(main())
