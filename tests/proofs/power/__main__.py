"""A recorded run whose power goes at every sync, and at moments in between: what was told before is never lost.

    python -m tests.proofs.power [--lives 3] [--changes 200] [--samples 2] [--seconds 900] [--seed 1]

Exit status 1 where a promise was broken, or there was too little time for every sync.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from tests.proofs.power.disk import Disk, Image, Sync, Write
from tests.proofs.power.judge import Bench, Promises
from tests.proofs.power.run import STATE, Called, Entry, Mark, Recording, record

EVERY: Final = 10  # syncs, after each of which the program also goes on until it knows everything


@dataclass(slots=True)
class Tried:
    """What came of the power losses that were tried."""

    syncs: int = 0
    losses: int = 0
    gone_on: int = 0
    faults: list[str] = field(default_factory=list)
    is_complete: bool = False  # every sync was tried


async def try_losses(
    recording: Recording, folder: Path, *, samples: int, seed: int, until: float, every: int = EVERY
) -> Tried:
    """Let the power go after every sync and, `samples` times each, at some moment before the next one."""
    bench, disk, promises, chance, tried = Bench(folder, recording), Disk(), Promises(), random.Random(seed), Tried()

    async def lose(image: Image, what: str, *, goes_on: bool = False) -> None:
        tried.losses += 1
        tried.gone_on += goes_on
        found = await bench.faults(image, promises, goes_on=goes_on)
        tried.faults += [f"{what} {tried.syncs}: {fault}" for fault in found]

    for stretch in _stretches(recording.entries):
        moments = Counter(chance.randrange(1, len(stretch) + 1) for _ in range(samples if stretch else 0))
        for number, entry in enumerate(stretch, 1):
            if isinstance(entry, Mark):
                promises.add(entry)
            else:
                disk.do(entry)
            for _ in range(moments[number]):
                await lose(disk.some(chance), "with some writes after sync")
        # What was told until here must be in what is on the disk since the latest sync.
        await lose(disk.least(), "after sync", goes_on=tried.syncs % every == 0)
        tried.syncs += 1
        if tried.syncs % 100 == 0:
            print(f"{tried.syncs:6} syncs, {tried.losses:6} losses", flush=True)
        if time.monotonic() > until or len(tried.faults) > 20:
            return tried
    tried.is_complete = True
    return tried


def _stretches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The run, cut before every sync: each part begins with one."""
    part: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Sync):
            yield part
            part = []
        part.append(entry)
    yield part


async def _prove(given: argparse.Namespace) -> Tried:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name:
        run, bench = Path(name) / "run", Path(name) / "bench"
        run.mkdir()
        recording = await record(run, lives=given.lives, changes=given.changes, seed=given.seed)
        syncs = sum(isinstance(entry, Sync) for entry in recording.entries)
        writes = sum(isinstance(entry, Write) for entry in recording.entries)
        calls = sum(isinstance(entry, Called) for entry in recording.entries)
        checkpoints = sum(isinstance(entry, Sync) and entry.name == STATE for entry in recording.entries)
        print(
            f"recorded: {writes} writes, {syncs} syncs ({checkpoints} of the database itself), {calls} calls, "
            f"{recording.api.changes} changes",
            flush=True,
        )
        until = time.monotonic() + given.seconds
        return await try_losses(recording, bench, samples=given.samples, seed=given.seed, until=until)


def memory_folder() -> Path | None:
    """A folder in memory, where there is one: what is proved here is not this machine's disk."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


def main() -> int:
    """Record, let the power go, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=3)
    parser.add_argument("--changes", type=int, default=200, help="of the API, in each of them")
    parser.add_argument("--samples", type=int, default=2, help="losses between two syncs")
    parser.add_argument("--seconds", type=float, default=900.0, help="in which all must be tried")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    tried = asyncio.run(_prove(given))
    for fault in tried.faults[:20]:
        print(f"BROKEN: {fault[:300]}")
    print(
        f"{tried.losses} power losses, after {tried.syncs} syncs and in between; {tried.gone_on} went on to the end; "
        f"{len(tried.faults)} promises broken"
    )
    if not tried.is_complete:
        print("not every sync was tried")
    return 0 if tried.is_complete and not tried.faults else 1


if __name__ == "__main__":
    sys.exit(main())
