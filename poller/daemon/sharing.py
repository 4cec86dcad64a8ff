"""Who is to own what among workers that share a state: an even part each, with as few moves as possible. Pure.

Every worker computes the same from the same view. Where two views differ for a moment nothing happens twice: a lease
is taken by one worker only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from state.leases import Worker, WorkerState


def shared_out(names: Sequence[str], owners: Mapping[str, Worker], workers: Sequence[WorkerState]) -> dict[str, Worker]:
    """By lease of `names`, the worker that is to own it; one that no worker can own is left out.

    What is owned stays, up to an even part for each worker. The rest goes to whoever has least by then and can own it.
    """
    if not workers:
        return {}
    able = {worker.name: frozenset(worker.lacks) for worker in workers}
    even = -(-len(names) // len(workers))
    wanted: dict[str, Worker] = {}
    loads: Counter[Worker] = Counter({worker.name: 0 for worker in workers})
    for name in sorted(names):
        owner = owners.get(name)
        if owner in able and name not in able[owner] and loads[owner] < even:
            wanted[name] = owner
            loads[owner] += 1
    for name in sorted(set(names) - set(wanted)):
        can = [worker.name for worker in workers if name not in able[worker.name]]
        if can:
            least = min(can, key=lambda worker: (loads[worker], worker))
            wanted[name] = least
            loads[least] += 1
    return wanted
