"""`poller check`: is the configuration right, and what may its keys see?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import click

from poller.app import App
from poller.changes.page import read
from poller.cli.context import Chosen
from poller.config.models import Config
from poller.daemon.daemon import opened
from poller.hooks.loading import Plugins
from poller.operations.commands import run_command
from poller.operations.planners import check_promises
from poller.polling.boundary import failed_poll, reason_of
from poller.polling.poll import unwelcome
from poller.polling.source import Run
from state.lock import StateLock

HINTS: Final = {
    301: "write the address that it names",
    302: "write the address that it names; a login page is no API",
    401: "are the credentials right, and not ended?",
    403: "this key may not see it: give it the right, or name only endpoints that it may see",
    404: "is the path right? what is asked for is base_url and path, one after the other",
    429: "it passes by itself: a daemon waits it out",
}


@click.command()
@click.option("--online", is_flag=True, help="Ask each source once: what may this key see?")
@click.pass_obj
def check(chosen: Chosen, online: bool) -> int:
    """Validate the configuration, and with --online the credentials.

    Example: poller check --online
    """
    config, plugins = chosen.load()
    check_promises(config)
    for failed in plugins.failed:
        click.echo(f"Warning: plugin {failed.name}: {failed.error} ({failed.origin})", err=True)
    for source in config.sources.values():
        names = ", ".join(endpoint.name for endpoint in source.chosen(source.build().endpoints()))
        limits = ", ".join(str(limit) for limit in config.budgets[source.budget].limits)
        click.echo(f"source {source.name} ({source.plugin}): {names}; at most {limits}")
    for subscription in config.subscriptions:
        click.echo(f"subscription {subscription.name} ({subscription.plugin}): {', '.join(subscription.types)}")
    if not config.subscriptions:
        click.echo("Warning: no subscription: events are recorded and delivered to nobody", err=True)
    return asyncio.run(_online(config, plugins)) if online else 0


async def _online(config: Config, plugins: Plugins) -> int:
    if StateLock(config.poller.state).holder() is not None:
        await run_command(config, plugins, "probe", {})
        click.echo("the running daemon asks every source at once: `poller status` says what comes of it")
        return 0
    failed = 0
    async with opened(config, plugins) as app:
        for name in app.engine.runs:
            failed += await _asked(app, name)
    return 1 if failed else 0


async def _asked(app: App, name: str) -> int:
    """Log in, discover, and read the beginning of one list; a limit or an outage is a warning."""
    run = app.engine.runs[name]
    w = next(w for w in run.watchings.values() if not w.is_child)
    endpoint = w.watch.endpoint
    try:
        await _discover(run)
        response = await run.ask(run.source.request(endpoint, endpoint.first))
        if not response.is_success:
            raise unwelcome(response)
        page = run.source.page(endpoint, endpoint.first, response)
        reading = read(w.watch, page.objects, {})
    except Exception as error:
        if (failure := failed_poll(error, source=name)) is None:
            raise
        status = getattr(failure, "status", None)
        return _complain(f"sources.{name}: {endpoint.name}: {reason_of(failure)}", failure.hint, status)
    click.echo(f"source {name}: {endpoint.name} answers, {len(page.objects)} objects on its first page")
    for note in reading.notes:
        click.echo(f"Warning: sources.{name}: {endpoint.name}: {note}", err=True)
    return 0


async def _discover(run: Run) -> None:
    steps = run.source.discover()
    with contextlib.suppress(StopIteration):
        request = next(steps)
        while True:
            request = steps.send(await run.ask(request))


def _complain(text: str, hint: str | None, status: int | None) -> int:
    passing = status == 429 or (status or 0) >= 500
    click.echo(f"{'Warning' if passing else 'Error'}: {text}", err=True)
    if hint := hint or HINTS.get(status or 0):
        click.echo(f"Try:   {hint}", err=True)
    return 0 if passing else 1
