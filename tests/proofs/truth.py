"""Thousands of random runs of a model API that misbehaves, each judged by a subscriber who believes the log alone.

    python -m tests.proofs.truth [--runs 20000] [--seconds 3000] [--processes 2] [--first-seed 0] [--faults 1]
    python -m tests.proofs.truth --seed 17            the runs of one seed
    python -m tests.proofs.truth --again 'JSON'       one run, as it was printed when it failed

Each seed gives 50 runs, always the same ones. A run that fails is made as small as can be, and printed with the command
that tries it again; after `--faults` of them the proof ends. Exit status 1 where something was untrue, or where there
was too little time for all runs.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

import msgspec
import structlog

from tests.truth.draw import is_possible, run_of
from tests.truth.run import prove
from tests.truth.world import TRAITS, Run, read, smaller, written

AT_ONCE: Final = 50  # runs of one seed
SHRINKING: Final = 60.0  # seconds
NAMES: Final = re.compile(r"\{[^}]*\}|\[.*?\]|\S*[\d/]\S*|\b(None|edit|name|twin)\b|[^a-z ]| (?= )", re.ASCII)
LEAST: Final = 0.01  # of all runs: how often each trait must have been met


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is not true, as small as can be."""

    number: int  # of the run of which it was made
    run: str  # as it is tried again
    why: str


class Tried(msgspec.Struct, kw_only=True):
    """What came of the runs of some seeds."""

    runs: int = 0  # true ones
    calls: int = 0
    events: int = 0
    traits: Counter[str] = msgspec.field(default_factory=Counter)  # runs in which the API misbehaved so
    acts: Counter[str] = msgspec.field(default_factory=Counter)  # runs in which that happened
    faults: list[Fault] = msgspec.field(default_factory=list)

    def add(self, other: Tried) -> None:
        """Count more runs."""
        self.runs, self.calls, self.events = (
            self.runs + other.runs,
            self.calls + other.calls,
            self.events + other.events,
        )
        self.traits.update(other.traits)
        self.acts.update(other.acts)
        self.faults += other.faults


def tried(number: int, examples: int = AT_ONCE) -> Tried:
    """Try the runs of one seed, and make each one that is untrue as small as can be."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.freeze()  # what is imported stays
    found = Tried()
    for one in range(number * AT_ONCE, number * AT_ONCE + examples):
        run = run_of(one)
        try:
            judge = prove(*run)
        except Exception:  # noqa: BLE001 - whatever it is, this run is not true
            smallest = _smallest(run, _kind_of(_untrue(run)))
            why = _untrue(smallest) or "only once: it depends on what ran before"
            found.faults.append(Fault(number=one, run=written(smallest), why=why))
            continue
        found.runs += 1
        found.calls += judge.calls
        found.events += len(judge.told)
        found.traits.update(judge.met)
        found.acts.update({step.kind if step.act == "fault" else step.act for step in run[1]} - {"wait"})
    return found


def _smallest(run: Run, kind: str) -> Run:
    """A run that fails in the same way, and of which no part can be left out."""
    until = time.monotonic() + SHRINKING
    while (less := next((one for one in smaller(run) if _fails(one, kind)), None)) is not None:
        run = less
        if time.monotonic() > until:
            break
    return run


def _fails(run: Run, kind: str) -> bool:
    return is_possible(run) and (why := _untrue(run)) is not None and _kind_of(why) == kind


def _kind_of(why: str | None) -> str:
    """What is wrong, without the objects, times and numbers of the case."""
    return "" if why is None else NAMES.sub("", why)


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
    parser.add_argument("--faults", type=int, default=1, help="runs that are untrue, after which the proof ends")
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
        _report(found.faults)
        return int(bool(found.faults))
    total = _try_many(given.runs, given.seconds, given.processes, given.first_seed, given.faults)
    return _summed(total, given.runs)


def _try_many(wanted: int, seconds: float, processes: int, first: int, faults: int) -> Tried:
    began, total = time.monotonic(), Tried()
    for found in _all(first, processes):
        total.add(found)
        spent = time.monotonic() - began
        print(f"{total.runs:6} runs, {total.calls:8} calls, {total.events:7} events, {spent:5.0f} s", flush=True)
        _report(found.faults)
        if len(total.faults) >= faults or total.runs >= wanted or spent > seconds:
            break
    return total


def _summed(total: Tried, wanted: int) -> int:
    """Print what was tried, and give the exit status."""
    _print_counts("runs in which the API misbehaved so", total.traits)
    _print_counts("runs in which this happened", total.acts)
    rare = [name for name in TRAITS if total.traits[name] < LEAST * total.runs]
    truth = f"and {len(total.faults)} that are not" if total.faults else "no other"
    if rare:
        print(f"too rarely: {', '.join(rare)}")
    print(f"{total.runs} of {wanted} runs that are true, {truth}")
    return 0 if total.runs >= wanted and not rare and not total.faults else 1


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


def _report(faults: Sequence[Fault]) -> None:
    for one in faults:
        again = f"python -m tests.proofs.truth --again '{one.run}'"
        print(f"\nRun {one.number} is UNTRUE: {one.why}\nTry it again:\n\n    {again}\n", flush=True)


def _print_counts(title: str, counts: Counter[str]) -> None:
    print(f"{title}:")
    for name, number in counts.most_common():
        print(f"  {number:6}  {name}")


if __name__ == "__main__":
    sys.exit(main())
