"""`poller demo`: the sandbox, a daemon and the console on this machine, without an account."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from poller.cli.demo_postgres import postgres
from poller.cli.demo_workers import RECEIVED, run_workers, show
from poller.cli.process import run_coroutine
from poller.config.load import load
from poller.daemon.daemon import Daemon, run_daemon
from poller.daemon.logs import configure
from poller.hooks.loading import load_plugins
from poller.options.quantities import parse_duration
from poller.rendering.counting import counted
from state.errors import PollerError

PORT = 8765
LIMITS = "10/s,450/min"
PACE = 1.0  # changes per second
SIZES = ("customers=30", "projects=12", "time_entries=400", "invoices=24", "expenses=60")
ENDPOINTS = ("customers", "projects", "project_members", "time_entries", "invoices", "invoice_details", "expenses")

SHARED_FOR = 30.0  # seconds after the first sweep
SHARED_SINKS = f"""\
name = "file"
plugin = "jsonl"
path = "{RECEIVED}"

[[subscriptions]]
name = "audit"
plugin = "jsonl"
path = "audit.jsonl"
"""

CONFIG = """\
[poller]
state = "poller.db"
listen = "{listen}"

[budgets.demo]
limits = [{limits}]

[sources.acme]
plugin = "nutcache"
budget = "demo"
server = "{server}"
access_token = "{token}"
{endpoints}

[[subscriptions]]
name = "console"
plugin = "console"
format = "{style}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The server that the demo started."""

    server: str
    origin: str
    token: str


@click.command()
@click.option("--for", "seconds", metavar="DURATION", help="End after this time, with a summary: 20s, 5m.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help='Address of API and dashboard; "" for none. Default: 127.0.0.1:8765, or a free port.',
)
@click.option("--json", "as_json", is_flag=True, help="Print events as CloudEvents, one per line.")
@click.option(
    "--workers",
    type=click.IntRange(2, 9),
    help="So many workers on one PostgreSQL, which it starts; one is killed in the middle.",
)
def demo(seconds: str | None, listen: str | None, as_json: bool, workers: int | None) -> int:
    """Poll a sandbox with generated changes: shows events as they are found, a dashboard, and the delays.

    Example: poller demo --for 20s
    """
    limit = None if seconds is None else _seconds(seconds)
    if workers is not None:
        return _demo_workers(workers, SHARED_FOR if limit is None else limit)
    configure("warning", "console" if sys.stderr.isatty() else "auto")
    with tempfile.TemporaryDirectory(prefix="poller-demo-") as folder, _sandbox() as sandbox:
        path = Path(folder) / "poller.toml"
        path.write_text(
            _config(sandbox, _free_address() if listen is None else listen, "json" if as_json else "text"),
            encoding="utf-8",
        )
        plugins = load_plugins()
        config = load(path, plugins)
        console = Console(stderr=True)
        console.print(f"Sandbox:   {sandbox.server}, at most {LIMITS.replace(',', ' and ')}", highlight=False)
        report: dict[str, Any] = {}

        async def until(daemon: Daemon) -> None:
            await _watch(daemon, sandbox, console, limit, report)

        run_coroutine(run_daemon(config, plugins, until=until))
        _print(report, Console(stderr=as_json))
    return 0


def _demo_workers(number: int, seconds: float) -> int:
    """The office, watched by several workers on one database."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="poller-demo-") as folder, postgres() as state, _sandbox() as sandbox:
        path = Path(folder) / "poller.toml"
        config = _config(sandbox, "127.0.0.1:0", "text").replace('"poller.db"', f'"{state.url}"')
        config = config.replace('name = "console"\nplugin = "console"\nformat = "text"\n', SHARED_SINKS)
        path.write_text(config, encoding="utf-8")
        console.print(f"Sandbox:   {sandbox.server}, at most {LIMITS.replace(',', ' and ')}", highlight=False)
        outcome = run_workers(path, state, number, seconds=seconds, console=console)
        refused = httpx.get(f"{sandbox.origin}/_sandbox/calls", trust_env=False).json()["refused"]
        show(outcome, refused, Console())
    return 0 if outcome.is_well else 1


def _free_address() -> str:
    """The usual address, or any free port if another program uses it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{PORT}"


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from error


def _config(sandbox: Sandbox, listen: str, style: str) -> str:
    endpoints = "\n".join(f'[sources.acme.endpoints.{name}]\nabsent_for = "1s"' for name in ENDPOINTS)
    limits = ", ".join(f'"{rate}"' for rate in LIMITS.split(","))
    return CONFIG.format(
        listen=listen, limits=limits, server=sandbox.server, token=sandbox.token, endpoints=endpoints, style=style
    )


@contextlib.contextmanager
def _sandbox() -> Iterator[Sandbox]:
    """The sandbox in a separate process, which ends with the demo."""
    # -P: modules in the current folder cannot replace those of Poller.
    command = [sys.executable, "-P", "-m", "poller.cli", "sandbox", "--port", "0"]
    command += ["--pace", str(PACE), "--limits", LIMITS]
    for size in SIZES:
        command += ["--size", size]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0)
        try:
            yield _introduced(process, errors)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _introduced(process: subprocess.Popen[str], errors: IO[str]) -> Sandbox:
    told: dict[str, str] = {}
    for line in process.stdout or ():
        name, _, value = line.strip().partition(" ")
        told[name] = value.strip()
        if name == "calls":
            server = told["server"]
            return Sandbox(
                server=server, origin=told["calls"].removesuffix("/_sandbox/calls"), token=told["access_token"]
            )
    process.wait()
    errors.seek(0)
    last = next((line.strip() for line in reversed(errors.readlines()) if line.strip()), "no output")
    raise PollerError(f"the sandbox did not start (exit status {process.returncode}): {last}")


async def _watch(
    daemon: Daemon, sandbox: Sandbox, console: Console, limit: float | None, report: dict[str, Any]
) -> None:
    """Report the progress of the first sweep, wait, and collect the results."""
    while daemon.url is None and daemon.app.config.poller.listen and not daemon.stop.is_set():
        await asyncio.sleep(0.01)
    if daemon.url is not None:
        console.print(f"Dashboard: {daemon.url}", highlight=False)
    console.print("Ctrl-C ends.", style="dim")
    engine = daemon.app.engine
    started = asyncio.get_running_loop().time()
    with (
        console.status("first sweep: everything is read once, without events")
        if console.is_terminal
        else contextlib.nullcontext()
    ):
        while not daemon.stop.is_set() and _unswept(engine):
            await asyncio.sleep(0.1)
    swept_at = daemon.app.clock.now()
    took = asyncio.get_running_loop().time() - started
    console.print(f"First sweep complete after {took:.1f} s. Changes from now on:", highlight=False)
    try:
        left = None if limit is None else max(0.0, limit - (asyncio.get_running_loop().time() - started))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(daemon.stop.wait(), left)
    finally:
        await _take_stock(daemon, sandbox, swept_at, report)


def _unswept(engine: Any) -> bool:
    return any(w.state.last_sweep is None for run in engine.sources.values() for w in run.endpoints.values())


async def _take_stock(daemon: Daemon, sandbox: Sandbox, swept_at: float, report: dict[str, Any]) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        journal = (await client.get(f"{sandbox.origin}/_sandbox/journal", params={"after": 0})).json()
        report["sandbox"] = (await client.get(f"{sandbox.origin}/_sandbox/calls")).json()
    app = daemon.app
    events = await app.write(app.store.log.read, limit=1_000_000)
    poll_loop = app.engine.loops["demo"]
    report["calls"] = poll_loop.tasks.begun
    report["usage"] = [
        (usage.rate, usage.used, usage.remaining) for usage in poll_loop.budget.usage(app.clock.steady())
    ]
    report["events"] = events
    report["delays"] = _delays(journal, events, swept_at)


def _delays(journal: Any, events: Any, swept_at: float) -> list[float]:
    """Seconds from each change in the journal to the first event of that object at or after it."""
    entries = journal["entries"] if isinstance(journal, dict) else journal
    seen: dict[str, list[float]] = {}
    for event in events:
        seen.setdefault(event.subject, []).append(event.time)
    delays = []
    for entry in entries:
        key = entry["id"] if not isinstance(entry["id"], list) else ":".join(map(str, entry["id"]))
        later = [at for at in seen.get(f"{entry['resource']}/{key}", ()) if at >= entry["at"] >= swept_at]
        if later:
            delays.append(min(later) - entry["at"])
    return delays


def _print(report: dict[str, Any], out: Console) -> None:
    if not report:
        return
    table = Table(title="What the demo did", show_header=False)
    kinds: dict[str, int] = {}
    for event in report["events"]:
        kind = event.type.rpartition(".")[2]
        kinds[kind] = kinds.get(kind, 0) + 1
    table.add_row("calls", str(report["calls"]) + "".join(f"; {used} of {rate}" for rate, used, _ in report["usage"]))
    table.add_row("refused (429)", str(report["sandbox"]["refused"]))
    table.add_row(
        "events", f"{len(report['events'])} " + " ".join(f"{kind}={count}" for kind, count in sorted(kinds.items()))
    )
    delays = sorted(report["delays"])
    if delays:
        p95 = delays[min(len(delays) - 1, int(len(delays) * 0.95))]
        changes = counted(len(delays), "change")
        text = f"median {statistics.median(delays):.1f} s, 95 % below {p95:.1f} s ({changes} of the journal)"
        table.add_row("detection delay", text)
    out.print(table)
