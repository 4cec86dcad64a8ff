"""`poller check`: is the configuration right, and what may its keys see?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import click
import msgspec

from poller.cli.context import CliContext
from poller.cli.daemon_client import DaemonClient, in_path
from poller.cli.output import print_json, say
from poller.config.load import load
from poller.config.models import Config, SourceConfig
from poller.config.schema import schema_of
from poller.daemon.daemon import opened
from poller.hooks.loading import Plugins, attempted, load_plugins
from poller.operations.advice import advice
from poller.operations.commands import run_command
from poller.operations.inspection import Inspection, inspect
from poller.operations.planners import check_promises
from poller.options.problems import ConfigError
from poller.polling.boundary import failed_poll, reason_of
from poller.polling.source import ActiveSource
from poller.rendering.terminal import printable
from state.lock import StateLock

PATIENCE: Final = 60.0  # seconds for the daemon to look at one endpoint
HINTS: Final = {
    301: "write the address that it names",
    302: "write the address that it names; a login page is no API",
    401: "are the credentials right, and not ended?",
    403: "this key may not see it: give it the right, or name only endpoints that it may see",
    404: "is the path right? what is asked for is base_url and path, one after the other",
    429: "it passes by itself: a daemon waits it out",
}


@click.command()
@click.option("--online", is_flag=True, help="Ask for every endpoint: what may this key see, and does the API agree?")
@click.option("--schema", is_flag=True, help="Print the JSON schema of poller.toml for your editor, and check nothing.")
@click.pass_obj
def check(context: CliContext, online: bool, schema: bool) -> int:
    """Validate the configuration, and with --online the credentials.

    Example: poller check --online
    """
    if schema:
        print_json(_schema(context))
        return 0
    with context.daemon() as daemon:
        return _check(context, daemon, online=online)


def _check(context: CliContext, daemon: DaemonClient | None, *, online: bool) -> int:
    config, plugins = _loaded(context, daemon)
    check_promises(config)
    for failed in plugins.failed:
        click.echo(f"Warning: plugin {failed.name}: {failed.error} ({failed.origin})", err=True)
    for source in config.sources.values():
        names = ", ".join(_endpoints(source))
        limits = ", ".join(str(limit) for limit in config.budgets[source.budget].limits)
        click.echo(f"source {source.name} ({source.plugin}): {names}; at most {limits}")
    for subscription in config.subscriptions:
        click.echo(f"subscription {subscription.name} ({subscription.plugin}): {', '.join(subscription.types)}")
    for finding in advice(config):
        hint = f"; {finding.hint}" if finding.hint else ""
        click.echo(f"Warning: {finding.about}: {finding.what}{hint}", err=True)
    if not online:
        return 0
    return asyncio.run(_online(config, plugins)) if daemon is None else _online_beside(daemon)


def _loaded(context: CliContext, daemon: DaemonClient | None) -> tuple[Config, Plugins]:
    """The configuration. Beside a daemon, secrets that only the daemon has are a warning. Raises ConfigError."""
    try:
        return context.load()
    except ConfigError as error:
        if daemon is None:
            raise
        found = context.load(reveal=False)
        for problem in error.problems:
            say(f"Warning: {problem.line(error.file)} (not in this shell; what needs it is not checked)", err=True)
        return found


def _endpoints(source: SourceConfig) -> list[str]:
    """The endpoints that are watched, as far as they are known without asking."""
    offered, _ = attempted(lambda: [endpoint.name for endpoint in source.chosen(source.build().endpoints())])
    return offered if offered is not None else list(source.endpoints)


def _online_beside(daemon: DaemonClient) -> int:
    """Have the daemon look at every endpoint, and ask at once what it had put off."""
    failed = 0
    for row in daemon.get("/api/v1/status")["endpoints"]:
        failed += report(inspected(daemon, row["source"], row["endpoint"]))
    daemon.post("/api/v1/probe")
    return 1 if failed else 0


def inspected(daemon: DaemonClient, source: str, endpoint: str) -> Inspection:
    """What the daemon found when it looked at an endpoint."""
    answer = daemon.post(f"/api/v1/endpoints/{in_path(source, endpoint)}/inspect", timeout=PATIENCE)
    return msgspec.convert(answer, Inspection)


def _schema(context: CliContext) -> dict[str, Any]:
    """The schema with the plugins that are installed, and those of the configured folder where there is one."""
    plugins = load_plugins()
    with contextlib.suppress(ConfigError):
        load(context.path, plugins, reveal=False)
    return schema_of(plugins)


async def _online(config: Config, plugins: Plugins) -> int:
    """Look at every endpoint; by the daemon where one runs, which then asks at once what it had put off."""
    labels = [
        f"{source.name}/{endpoint.name}"
        for source in config.sources.values()
        for endpoint in source.chosen(source.build().endpoints())
    ]
    if StateLock(config.poller.state).holder() is not None:
        failed = 0
        for label in labels:
            answer = await run_command(config, plugins, "inspect", {"endpoint": label}, timeout=PATIENCE)
            failed += report(msgspec.convert(answer, Inspection))
        await run_command(config, plugins, "probe", {})
        return 1 if failed else 0
    async with opened(config, plugins) as app:
        failed = 0
        for active in app.engine.sources.values():
            failed += await _discovered(active)
            for w in active.endpoints.values():
                failed += report(await inspect(active, w)) if active.discovery.is_done else 0
    return 1 if failed else 0


async def _discovered(active: ActiveSource) -> int:
    """Ask what the source must know first. 1 where that fails."""
    try:
        steps = active.source.discover()
        with contextlib.suppress(StopIteration):
            request = next(steps)
            while True:
                request = steps.send(await active.ask(request))
    except Exception as error:
        if (failure := failed_poll(error, source=active.name)) is None:
            raise
        return _complain(f"sources.{active.name}: {reason_of(failure)}", failure.hint, getattr(failure, "status", None))
    active.discovery.is_done = True
    return 0


def report(found: Inspection) -> int:
    """Say what a look at an endpoint found: a line for the list, a warning for each doubt. 1 where it failed."""
    if found.pages:
        click.echo(f"endpoint {printable(found.endpoint)}: {_list_line(found)}")
    for doubt in found.doubts:
        click.echo(f"Warning: {printable(found.endpoint)}: {printable(doubt)}", err=True)
    if found.problem is None:
        return 0
    return _complain(f"{found.endpoint}: {found.problem}", found.hint, found.status)


def _list_line(found: Inspection) -> str:
    first = found.pages[0]
    words = [f"{first.objects} objects on its first page"]
    words.append("no next page" if first.next is None else f"next {printable(first.next)}")
    if first.total is not None:
        words.append(f"total {first.total}")
    if found.calls_per_sweep is not None and found.calls_per_sweep > 1:
        words.append(f"{found.calls_per_sweep} calls a sweep")
    if found.example is not None:
        name = f" {printable(found.example_name)!r}" if found.example_name else ""
        words.append(f"such as {printable(found.example)}{name}")
    if found.item is not None:
        words.append(f"its own URL answers {found.item.status}")
    return ", ".join(words)


def _complain(text: str, hint: str | None, status: int | None) -> int:
    passing = status == 429 or (status or 0) >= 500
    click.echo(f"{'Warning' if passing else 'Error'}: {printable(text)}", err=True)
    if hint := hint or HINTS.get(status or 0):
        click.echo(f"Try:   {hint}", err=True)
    return 0 if passing else 1
