"""`poller check`: whether the configuration is valid, and what its keys may see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
import msgspec

from poller.cli.context import CliContext
from poller.cli.daemon_client import DaemonClient
from poller.cli.findings import HINTS, PATIENCE, REFUSED, inspected, report
from poller.cli.output import print_json, say
from poller.cli.process import run_coroutine
from poller.config.load import load
from poller.config.models import Config, SourceConfig
from poller.config.schema import schema_of
from poller.hooks.loading import Plugins, attempted, load_plugins
from poller.operations.advice import advice
from poller.operations.alone import opened_alone
from poller.operations.doctor import of_start
from poller.operations.inspection import Inspection, inspect_all
from poller.operations.planners import check_promises
from poller.operations.run_command import run_command
from poller.options.problems import ConfigError
from state.open import holder


@click.command()
@click.option("--online", is_flag=True, help="Also ask every endpoint: may this key see it, and does the answer fit?")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of poller.toml for your editor, and check nothing.")
@click.pass_obj
def check(context: CliContext, online: bool, as_json: bool, schema: bool) -> int:
    """Validate the configuration; with --online also ask every endpoint once.

    Example: poller check --online
    """
    if schema:
        print_json(_schema(context))
        return 0
    with context.daemon() as daemon:
        if as_json:
            return _as_json(context, daemon, online=online)
        config, plugins, found = _found(context, daemon)
        for line in _lines(config):
            say(line)
        for warning in found:
            say(f"Warning: {warning}", err=True)
        failed = [report(one) for one in _looks(config, plugins, daemon)] if online else []
        return 1 if any(failed) else 0


def _as_json(context: CliContext, daemon: DaemonClient | None, *, online: bool) -> int:
    """The findings as one JSON document, also for a configuration that is not valid."""
    try:
        config, plugins, found = _found(context, daemon)
    except ConfigError as error:
        print_json({"valid": False, "problems": [asdict(one) for one in error.problems], "warnings": []})
        return 2
    looks = list(_looks(config, plugins, daemon)) if online else []
    shown = {"valid": True, "problems": [], "warnings": found, "endpoints": [msgspec.to_builtins(one) for one in looks]}
    print_json(shown)
    return 1 if any(one.problem for one in looks) else 0


def _found(context: CliContext, daemon: DaemonClient | None) -> tuple[Config, Plugins, list[str]]:
    """The configuration and the warnings about it. Raises ConfigError."""
    config, plugins, warnings = _loaded(context, daemon)
    check_promises(config)
    warnings += [f"plugin {one.name}: {one.error} ({one.origin})" for one in plugins.failed]
    warnings += [
        f"plugin {one.name}: it has no hook, so it does nothing by itself ({one.origin})"
        for one in plugins.loaded
        if not one.hooks
    ]
    for finding in advice(config):
        warnings.append(f"{finding.about}: {finding.what}" + (f"; {finding.hint}" if finding.hint else ""))
    return config, plugins, warnings


def _lines(config: Config) -> Iterator[str]:
    for source in config.sources.values():
        names = ", ".join(_endpoints(source))
        limits = ", ".join(str(limit) for limit in config.budgets[source.budget].limits)
        yield f"source {source.name} ({source.plugin}): {names}; at most {limits}"
    for subscription in config.subscriptions:
        yield f"subscription {subscription.name} ({subscription.plugin}): {', '.join(subscription.types)}"


def _looks(config: Config, plugins: Plugins, daemon: DaemonClient | None) -> Iterator[Inspection]:
    """An inspection of every endpoint. A running daemon makes it, and then polls at once what it had deferred."""
    if daemon is None:
        yield from run_coroutine(_online(config, plugins))
        return
    for row in daemon.get("/api/v1/status")["endpoints"]:
        found = inspected(daemon, row["source"], row["endpoint"])
        if found.status == REFUSED and found.hint is None and (kept := of_start(config, row["source"])):
            found.hint = f"{HINTS[REFUSED]} {kept[0].upper()}{kept[1:]}"
        yield found
    daemon.post("/api/v1/probe")


def _loaded(context: CliContext, daemon: DaemonClient | None) -> tuple[Config, Plugins, list[str]]:
    """The configuration. Beside a daemon, secrets that only the daemon has cause a warning. Raises ConfigError."""
    try:
        return *context.load(), []
    except ConfigError as error:
        if daemon is None:
            raise
        found = context.load(reveal=False)
        return *found, [
            f"{one.line(error.file)} (missing in this shell; keys that need it are not checked)"
            for one in error.problems
        ]


def _endpoints(source: SourceConfig) -> list[str]:
    """The configured endpoints, as far as they are known without a call."""
    offered, _ = attempted(lambda: [endpoint.name for endpoint in source.chosen(source.build().endpoints())])
    return offered if offered is not None else list(source.endpoints)


def _schema(context: CliContext) -> dict[str, Any]:
    """The schema with the keys of installed plugins and of those in the configured folder."""
    plugins = load_plugins()
    with contextlib.suppress(ConfigError):
        load(context.path, plugins, reveal=False)
    return schema_of(plugins)


async def _online(config: Config, plugins: Plugins) -> list[Inspection]:
    """An inspection of every endpoint, by the process that holds the state."""
    if holder(config.poller.state) is None:
        async with opened_alone(config, plugins) as alone:
            return [found async for found in inspect_all(alone.app.engine.sources.values())]
    labels = [
        f"{source.name}/{endpoint.name}"
        for source in config.sources.values()
        for endpoint in source.chosen(source.build().endpoints())
    ]
    found = []
    for label in labels:
        answer = await run_command(config, plugins, "inspect", {"endpoint": label}, timeout=PATIENCE)
        found.append(msgspec.convert(answer, Inspection))
    await run_command(config, plugins, "probe", {})
    return found
