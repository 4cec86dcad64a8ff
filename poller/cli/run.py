"""`poller run`: the daemon in the foreground."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import click

from poller.cli.context import CliContext
from poller.hooks.slow_calls import SlowCalls
from poller.late import late

if TYPE_CHECKING:
    import poller.cli.process as process
    import poller.daemon.daemon as daemon
    import poller.daemon.logs as logs
else:  # loaded once SIGHUP ends nothing any more: this takes most of a start
    process, daemon, logs = late("poller.cli.process"), late("poller.daemon.daemon"), late("poller.daemon.logs")


@click.command()
@click.option("--listen", metavar="HOST:PORT", help='Instead of the file\'s `listen`; "" for none.')
@click.pass_obj
def run(context: CliContext, listen: str | None) -> None:
    """Poll and deliver in the foreground until stopped; SIGHUP reloads the configuration.

    Several workers may share one PostgreSQL database, each with its own address.

    Example: poller run --config /etc/poller/poller.toml
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # one that comes early waits until the daemon can reload
    with SlowCalls(threading.main_thread()), logs.kept():
        logs.configure("info", "auto")  # until the file says how
        config, plugins = context.load(listen=listen, worker=True)
        logs.configure(config.poller.log_level, config.poller.log_format)
        plugins.log_failures()
        process.run_coroutine(daemon.run_daemon(config, plugins, listen=listen))
