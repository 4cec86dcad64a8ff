"""`poller check`: is the configuration right, and what may its keys see?"""

from __future__ import annotations

import asyncio

import click

from poller.app import App
from poller.cli.chosen import Chosen
from poller.daemon import opened
from poller.loading import Plugins
from poller.situations import check_promises
from poller.sources import PageError
from poller.tables import Config
from poller.transport import FetchError


@click.command()
@click.option("--online", is_flag=True, help="Ask each source once: what may this key see?")
@click.pass_obj
def check(chosen: Chosen, online: bool) -> int:
    """Validate the configuration, and with --online the credentials.

    Example: poller check --online
    """
    config, plugins = chosen.load()
    check_promises(config)
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
    failed = 0
    async with opened(config, plugins) as app:
        for name in app.engine.runs:
            failed += await _asked(app, name)
    return 1 if failed else 0


async def _asked(app: App, name: str) -> int:
    """Log in, discover, and ask for one list; a limit or an outage is a warning."""
    run = app.engine.runs[name]
    try:
        steps = run.source.discover()
        try:
            request = next(steps)
            while True:
                request = steps.send(await run.ask(request))
        except StopIteration:
            pass
        w = next(w for w in run.watchings.values() if not w.is_child)
        endpoint = w.watch.endpoint
        response = await run.ask(run.source.request(endpoint, endpoint.first))
    except (FetchError, PageError) as error:
        return _complain(name, str(error), getattr(error, "status", None))
    if not response.is_success:
        return _complain(
            name, f"{endpoint.name}: {response.status_code} {response.reason_phrase}", response.status_code
        )
    page = run.source.page(endpoint, endpoint.first, response)
    click.echo(f"source {name}: {endpoint.name} answers, {len(page.objects)} objects on its first page")
    return 0


def _complain(name: str, text: str, status: int | None) -> int:
    passing = status == 429 or (status or 0) >= 500
    click.echo(f"{'Warning' if passing else 'Error'}: sources.{name}: {text}", err=True)
    return 0 if passing else 1
