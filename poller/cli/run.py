"""`poller run`: the daemon in the foreground."""

from __future__ import annotations

import asyncio

import click

from poller.cli.context import CliContext
from poller.daemon.daemon import run_daemon
from poller.daemon.logs import configure


@click.command()
@click.pass_obj
def run(context: CliContext) -> None:
    """Poll and deliver in the foreground until stopped; SIGHUP reloads the configuration.

    Example: poller run --config /etc/poller/poller.toml
    """
    config, plugins = context.load()
    configure(config.poller.log_level, config.poller.log_format)
    plugins.log_failures()
    asyncio.run(run_daemon(config, plugins))
