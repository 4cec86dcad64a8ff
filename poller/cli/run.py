"""`poller run`: the daemon in the foreground."""

from __future__ import annotations

import click

from poller.cli.context import CliContext
from poller.cli.process import run_coroutine
from poller.daemon.daemon import run_daemon
from poller.daemon.logs import configure


@click.command()
@click.option("--listen", metavar="HOST:PORT", help='Instead of the file\'s `listen`; "" for none.')
@click.pass_obj
def run(context: CliContext, listen: str | None) -> None:
    """Poll and deliver in the foreground until stopped; SIGHUP reloads the configuration.

    Several workers may share one PostgreSQL database, each with its own address.

    Example: poller run --config /etc/poller/poller.toml
    """
    config, plugins = context.load(listen=listen, worker=True)
    configure(config.poller.log_level, config.poller.log_format)
    plugins.log_failures()
    run_coroutine(run_daemon(config, plugins, listen=listen))
