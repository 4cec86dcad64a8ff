"""`poller check`: is the configuration right, and what may its keys see?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import click
import msgspec

from poller.app import opened
from poller.cli.context import CliContext
from poller.cli.daemon_client import DaemonClient
from poller.cli.findings import PATIENCE, inspected, report
from poller.cli.output import print_json, say
from poller.config.load import load
from poller.config.models import Config, SourceConfig
from poller.config.schema import schema_of
from poller.hooks.loading import Plugins, attempted, load_plugins
from poller.operations.advice import advice
from poller.operations.commands import run_command
from poller.operations.inspection import Inspection, inspect_all
from poller.operations.planners import check_promises
from poller.options.problems import ConfigError
from state.lock import StateLock


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
        say(f"Warning: plugin {failed.name}: {failed.error} ({failed.origin})", err=True)
    for source in config.sources.values():
        names = ", ".join(_endpoints(source))
        limits = ", ".join(str(limit) for limit in config.budgets[source.budget].limits)
        say(f"source {source.name} ({source.plugin}): {names}; at most {limits}")
    for subscription in config.subscriptions:
        say(f"subscription {subscription.name} ({subscription.plugin}): {', '.join(subscription.types)}")
    for finding in advice(config):
        hint = f"; {finding.hint}" if finding.hint else ""
        say(f"Warning: {finding.about}: {finding.what}{hint}", err=True)
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
    failed = 0
    if StateLock(config.poller.state).holder() is not None:
        for label in labels:
            answer = await run_command(config, plugins, "inspect", {"endpoint": label}, timeout=PATIENCE)
            failed += report(msgspec.convert(answer, Inspection))
        await run_command(config, plugins, "probe", {})
        return 1 if failed else 0
    async with opened(config, plugins) as app:
        async for found in inspect_all(app.engine.sources.values()):
            failed += report(found)
    return 1 if failed else 0
