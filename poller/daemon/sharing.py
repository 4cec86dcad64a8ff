"""Distribution of leases among workers that share a state: an even part each, with as few moves as possible. Pure.

Every worker computes the same result from the same view. If two views differ for a moment, nothing happens twice,
because only one worker can take a lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from state.leases import Worker, WorkerState


def shared_out(names: Sequence[str], owners: Mapping[str, Worker], workers: Sequence[WorkerState]) -> dict[str, Worker]:
    """The worker that should own each lease of `names`; leases that no worker can own are left out.

    Owned leases stay, up to an even part for each worker. Each of the others goes to the worker with the fewest that
    can own it.
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
