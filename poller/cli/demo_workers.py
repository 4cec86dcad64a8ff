"""`poller demo --workers`: several workers on one PostgreSQL; one is killed in the middle, and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from poller.operations.status import Status, WorkerStatus, parse
from state.deliveries import SubscriptionLedger
from state.errors import PollerError
from state.open import open_reader
from state.place import DatabaseUrl
from state.records import Event

PATIENCE: Final = 120.0  # seconds for the first sweep, for a takeover, and for what is still to be delivered
MOVING: Final = 5  # events that may be on their way while everything works
BUDGET: Final = "demo"
RECEIVED: Final = "received.jsonl"  # what the subscription `file` was given


@dataclass(slots=True, kw_only=True)
class Running:
    """One worker as a process, and where it answers."""

    process: subprocess.Popen[bytes]
    url: str

    def status(self) -> Status | None:
        """How everything is, as this worker shows it; None while it does not answer."""
        try:
            return parse(
                httpx.get(f"{self.url}/api/v1/status", trust_env=False, timeout=10.0).raise_for_status().json()
            )
        except httpx.HTTPError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was killed, and what came of it."""

    killed: WorkerStatus
    heir: str  # who polls since
    seconds: float  # until then
    events: Sequence[Event]
    received: Sequence[Mapping[str, Any]]  # in the order of their arrival
    books: Sequence[SubscriptionLedger]

    @property
    def missing(self) -> int:
        """Events that the receiver was not given, those that still wait left out."""
        given = {one["id"] for one in self.received}
        waiting = sum(one.pending + one.unread for one in self.books if one.subscription == "file")
        return max(0, len([one for one in self.events if one.id not in given]) - waiting)

    @property
    def twice(self) -> int:
        """Deliveries that came again, under the same id."""
        return len(self.received) - len({one["id"] for one in self.received})

    @property
    def gaps(self) -> int:
        """Objects of which a version is missing, or came before an earlier one."""
        last: dict[str, int] = {}
        wrong = set()
        for one in self._first():
            place = f"{one['source']}/{one['subject']}"
            if one["data"]["version"] != last.get(place, 0) + 1:
                wrong.add(place)
            last[place] = one["data"]["version"]
        return len(wrong)

    def _first(self) -> Iterator[Mapping[str, Any]]:
        """Every event at its first arrival."""
        seen: set[str] = set()
        for one in self.received:
            if one["id"] not in seen:
                seen.add(one["id"])
                yield one

    @property
    def is_well(self) -> bool:
        """Whether nothing was lost and everything came in order."""
        return not (self.missing or self.gaps) and all(one.balanced for one in self.books)


def run_workers(config: Path, state: DatabaseUrl, number: int, *, seconds: float, console: Console) -> Outcome:
    """Start the workers, let them run for `seconds` after the first sweep, and kill one in the middle."""
    with _started(config, number) as workers:
        for place, one in enumerate(workers, start=1):
            console.print(f"Worker {place}:  {one.url}", highlight=False)
        console.print("Ctrl-C ends.", style="dim")
        _until("the first sweep", workers, _is_swept)
        console.print(
            "First sweep complete. Each worker owns a part; one of them is about to be killed.", highlight=False
        )
        time.sleep(seconds / 2)
        killed, heir, took = _kill_owner(workers, console)
        time.sleep(seconds / 2)
        _until("the deliveries", workers, _is_delivered)
        for one in workers:
            one.process.terminate()
        for one in workers:
            one.process.wait(PATIENCE)
    with open_reader(state) as reader:
        return Outcome(
            killed=killed,
            heir=heir,
            seconds=took,
            events=reader.log.read(limit=1_000_000),
            received=_received(config.parent / RECEIVED),
            books=reader.deliveries.ledger(),
        )


def _received(path: Path) -> list[dict[str, Any]]:
    """What was delivered, in the order of its arrival; nothing if there is no file yet."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def show(outcome: Outcome, refused: int, out: Console) -> None:
    """Print what was killed, and what was lost."""
    table = Table(title="What the workers did", show_header=False)
    owned = [f"budget {one.name}" for one in outcome.killed.budgets]
    owned += [f"subscription {one.name}" for one in outcome.killed.subscriptions]
    table.add_row("killed", f"{outcome.killed.name}, which owned {', '.join(owned)}")
    table.add_row("taken over", f"after {outcome.seconds:.1f} s, by {outcome.heir}")
    table.add_row("events", f"{len(outcome.events)}")
    table.add_row("lost", f"{outcome.missing}")
    table.add_row("out of order", f"{outcome.gaps}")
    table.add_row("came twice", f"{outcome.twice} (under the same id, as `at least once` says)")
    table.add_row("refused (429)", f"{refused}")
    balanced = all(one.balanced for one in outcome.books)
    table.add_row("books", "balance" if balanced else "do not balance: this is a bug")
    out.print(table)


@contextlib.contextmanager
def _started(config: Path, number: int) -> Iterator[list[Running]]:
    workers: list[Running] = []
    try:
        workers.extend(_start(config, place) for place in range(number))
        yield workers
    finally:
        for one in workers:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()


def _start(config: Path, place: int) -> Running:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [sys.executable, "-P", "-m", "poller.cli", "--config", str(config), "run", "--listen", address]
    with (config.parent / f"worker{place}.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, process_group=0)
    return Running(process=process, url=f"http://{address}")


def _kill_owner(workers: list[Running], console: Console) -> tuple[WorkerStatus, str, float]:
    """Kill the worker that polls with SIGKILL, and wait until another one polls."""
    status = _until("a worker that polls", workers, lambda found: _owner(found) is not None)
    owner = _owner(status)
    assert owner is not None
    [victim] = [one for one in workers if one.url == f"http://{owner.listen}"]
    victim.process.send_signal(signal.SIGKILL)
    victim.process.wait()
    workers.remove(victim)
    console.print(f"Killed {owner.name} ({victim.url}), which polled.", highlight=False)
    began = time.monotonic()
    after = _until("a takeover", workers, lambda found: (heir := _owner(found)) is not None and heir.name != owner.name)
    heir = _owner(after)
    assert heir is not None
    took = time.monotonic() - began
    console.print(f"{heir.name} took over after {took:.1f} s.", highlight=False)
    return owner, heir.name, took


def _owner(status: Status) -> WorkerStatus | None:
    return next((one for one in status.workers if any(budget.name == BUDGET for budget in one.budgets)), None)


def _is_swept(status: Status) -> bool:
    return bool(status.endpoints) and all(one.last_sweep is not None for one in status.endpoints)


def _is_delivered(status: Status) -> bool:
    """Whether nearly everything was delivered; not all, because the office keeps changing."""
    return status.last_seq >= MOVING and all(one.lag < MOVING for one in status.subscriptions)


def _until(what: str, workers: Sequence[Running], is_so: Any) -> Status:
    """The status that the first worker shows once it is so. Raises PollerError."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if (ended := next((one for one in workers if one.process.poll() is not None), None)) is not None:
            raise PollerError(f"the worker at {ended.url} ended unexpectedly", hint="is psycopg installed?")
        status = workers[0].status()
        if status is not None and is_so(status):
            return status
        time.sleep(0.1)
    raise PollerError(f"waited {PATIENCE:.0f} s in vain for {what}")
