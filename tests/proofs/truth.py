"""Thousands of random runs of a model API that misbehaves, each judged by a subscriber who believes the log alone.

    python -m tests.proofs.truth [--runs 20000] [--seconds 3000] [--processes 2] [--first-seed 0]
    python -m tests.proofs.truth --seed 17            the runs of one seed
    python -m tests.proofs.truth --again 'JSON'       one run, as it was printed when it failed

Each seed gives 50 runs, always the same ones. What fails is made as small as can be, and printed with the command that
tries it again. Exit status 1 where something was untrue, or where there was too little time for all runs.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Final

import msgspec
import structlog

from tests.truth.draw import run_of
from tests.truth.run import prove
from tests.truth.world import TRAITS, Run, read, smaller, written

AT_ONCE: Final = 50  # runs of one seed
SHRINKING: Final = 60.0  # seconds
LEAST: Final = 0.01  # of all runs: how often each trait must have been met


class Tried(msgspec.Struct, kw_only=True):
    """What came of the runs of some seeds."""

    runs: int = 0
    calls: int = 0
    events: int = 0
    traits: Counter[str] = msgspec.field(default_factory=Counter)  # runs in which the API misbehaved so
    acts: Counter[str] = msgspec.field(default_factory=Counter)  # runs in which that happened
    failed: str | None = None  # the smallest run that is untrue, as it is tried again
    why: str = ""

    def add(self, other: Tried) -> None:
        """Count more runs."""
        self.runs, self.calls, self.events = (
            self.runs + other.runs,
            self.calls + other.calls,
            self.events + other.events,
        )
        self.traits.update(other.traits)
        self.acts.update(other.acts)


def tried(number: int, examples: int = AT_ONCE) -> Tried:
    """Try the runs of one seed, and make the first one that is untrue as small as can be."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.freeze()  # what is imported stays
    found = Tried()
    for run in map(run_of, range(number * AT_ONCE, number * AT_ONCE + examples)):
        try:
            judge = prove(*run)
        except Exception:  # noqa: BLE001 - whatever it is, this run is not true
            smallest = _smallest(run)
            found.failed, found.why = written(smallest), _untrue(smallest) or "only once: it depends on what ran before"
            break
        found.runs += 1
        found.calls += judge.calls
        found.events += len(judge.told)
        found.traits.update(judge.met)
        found.acts.update({step.kind if step.act == "fault" else step.act for step in run[1]} - {"wait"})
    return found


def _smallest(run: Run) -> Run:
    """A run that fails as well, and of which no part can be left out."""
    until = time.monotonic() + SHRINKING
    while (less := next((one for one in smaller(run) if _fits_all(one) and _untrue(one)), None)) is not None:
        run = less
        if time.monotonic() > until:
            break
    return run


def _fits_all(run: Run) -> bool:
    return all(TRAITS[name].fits(run[0]) for name in run[0].traits)


def _untrue(run: Run) -> str | None:
    """Why a run is not true; None: it is."""
    try:
        prove(*run)
    except Exception as error:  # noqa: BLE001 - what is wrong with it is the result
        return "".join(traceback.format_exception_only(error)).strip()
    return None


def main() -> int:
    """Try what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=3000.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, help="the runs of one seed alone")
    parser.add_argument("--again", metavar="JSON", help="one run alone")
    given = parser.parse_args()
    if given.again is not None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        prove(*read(given.again))
        print("true")
        return 0
    if given.seed is not None:
        found = tried(given.seed)
        return _report(found) if found.failed is not None else 0
    return _try_many(given.runs, given.seconds, given.processes, given.first_seed)


def _try_many(wanted: int, seconds: float, processes: int, first: int) -> int:
    began, total = time.monotonic(), Tried()
    for found in _all(first, processes):
        total.add(found)
        spent = time.monotonic() - began
        print(f"{total.runs:6} runs, {total.calls:8} calls, {total.events:7} events, {spent:5.0f} s", flush=True)
        if found.failed is not None:
            return _report(found)
        if total.runs >= wanted or spent > seconds:
            break
    _print_counts("runs in which the API misbehaved so", total.traits)
    _print_counts("runs in which this happened", total.acts)
    rare = [name for name in TRAITS if total.traits[name] < LEAST * total.runs]
    print(f"{total.runs} of {wanted} runs, all true" + (f"; too rarely: {', '.join(rare)}" if rare else ""))
    return 0 if total.runs >= wanted and not rare else 1


def _all(first: int, processes: int) -> Iterator[Tried]:
    if processes == 1:
        yield from map(tried, count(first))
        return
    with multiprocessing.Pool(processes) as pool:
        waiting = [pool.apply_async(tried, (first + number,)) for number in range(processes)]
        for number in count(first + processes):
            done = next((one for one in waiting if one.ready()), None)
            while done is None:
                time.sleep(0.05)
                done = next((one for one in waiting if one.ready()), None)
            waiting.remove(done)
            yield done.get()
            waiting.append(pool.apply_async(tried, (number,)))


def _report(found: Tried) -> int:
    print(f"\nUNTRUE: {found.why}\nTry it again:\n\n    python -m tests.proofs.truth --again '{found.failed}'\n")
    return 1


def _print_counts(title: str, counts: Counter[str]) -> None:
    print(f"{title}:")
    for name, number in counts.most_common():
        print(f"  {number:6}  {name}")


if __name__ == "__main__":
    sys.exit(main())
