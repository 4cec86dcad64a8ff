"""`poller once` and `poller poll`: one complete sweep, and the deliveries that are due."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass

import click

from poller.app import sweep_once
from poller.cli.context import CliContext
from poller.cli.names import named
from poller.cli.output import counted, print_json, say
from poller.cli.process import run_coroutine
from poller.config.models import Config
from poller.daemon.logs import configure
from poller.hooks.loading import Plugins
from poller.operations.alone import opened_alone
from poller.operations.retention import purge
from poller.options.problems import find_endpoint
from poller.options.quantities import parse_duration

DELIVER_FOR = "60s"


@click.command()
@click.option("--wait", default=DELIVER_FOR, show_default=True, metavar="DURATION", help="Longest time for deliveries.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def once(context: CliContext, wait: str, as_json: bool) -> int:
    """Sweep every endpoint once, deliver what is due, and exit.

    The first run records a baseline; later runs report what has changed since. Exit status 1 if something could not be
    read.

    Example: poller once
    """
    config, plugins = context.load()
    return _sweep(config, plugins, None, _seconds(wait), as_json=as_json)


@click.command()
@click.argument("endpoint", shell_complete=named("endpoint"))
@click.option("--wait", default=DELIVER_FOR, show_default=True, metavar="DURATION", help="Longest time for deliveries.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def poll(context: CliContext, endpoint: str, wait: str, as_json: bool) -> int:
    """Sweep one ENDPOINT (or SOURCE/ENDPOINT) once, deliver what is due, and exit.

    Example: poller poll acme/projects
    """
    config, plugins = context.load()
    names = [(s.name, e.name) for s in config.sources.values() for e in s.chosen(s.build().endpoints())]
    return _sweep(config, plugins, [find_endpoint(names, endpoint)], _seconds(wait), as_json=as_json)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--wait") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The result of a sweep."""

    calls: int  # including pages of a chain, logins and redirects
    events: int
    pending: int  # deliveries that wait
    baselines: int  # endpoints whose baseline was completed: their first, or a new one on command
    not_seen: list[str]  # what could not be read, and why


def _sweep(
    config: Config, plugins: Plugins, endpoints: Collection[tuple[str, str]] | None, wait: float, *, as_json: bool
) -> int:
    configure("warning", config.poller.log_format)
    plugins.log_failures()
    swept = run_coroutine(_sweep_and_deliver(config, plugins, endpoints, wait))
    if as_json:
        print_json(asdict(swept))
    else:
        _say(swept)
    return 1 if swept.not_seen else 0


async def _sweep_and_deliver(
    config: Config, plugins: Plugins, endpoints: Collection[tuple[str, str]] | None, wait: float
) -> Swept:
    async with opened_alone(config, plugins) as alone:
        app = alone.app
        before = await app.write(app.store.log.last_seq)
        new = [w for run in app.engine.sources.values() for w in run.endpoints.values() if w.state.last_sweep is None]
        with _progress() as progress:
            stuck = await sweep_once(app, endpoints, progress=progress)
        await alone.drain(app.clock.now() + wait)
        await purge(app)
        return Swept(
            calls=sum(poll_loop.limiter.calls for poll_loop in app.engine.loops.values()),
            events=await app.write(app.store.log.last_seq) - before,
            pending=sum(state.pending for state in await app.write(app.store.delivery_reader.subscriptions)),
            baselines=sum(w.state.last_sweep is not None for w in new),
            not_seen=stuck,
        )


def _say(swept: Swept) -> None:
    done = [counted(swept.calls, "call"), counted(swept.events, "event")]
    say(", ".join([*done, *([f"{counted(swept.pending, 'delivery')} pending"] if swept.pending else [])]), err=True)
    if swept.baselines:
        say(f"Baseline of {counted(swept.baselines, 'endpoint')} complete: changes are reported from now on.", err=True)
    for line in swept.not_seen:
        say(f"Error: {line}", err=True)
    if swept.not_seen:
        asks = "" if all(": held, " in line for line in swept.not_seen) else "poller check --online asks each list; "
        say(f"{asks}poller doctor says what to do", err=True)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal; elsewhere a line from time to time."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("sweep"), BarColumn(), MofNCompleteColumn(), TextColumn("units"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("sweep", total=None)
        yield lambda polled, units: bar.update(task, completed=polled, total=units)


def _lines(every: int = 100) -> Callable[[int, int], None]:
    told = 0

    def tell(polled: int, units: int) -> None:
        nonlocal told
        if polled >= told + every:
            told = polled - polled % every
            say(f"sweep: {polled} of {units} units", err=True)

    return tell
