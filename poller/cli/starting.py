"""`poller init` and `poller check`: from nothing to a configuration that works."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from poller.app import App
from poller.cli.chosen import Chosen
from poller.daemon import opened
from poller.loading import Plugins
from poller.situations import check_promises
from poller.sources import PageError
from poller.tables import Config
from poller.transport import FetchError
from state.errors import PollerError

NUTCACHE = """\
# Poller: every key is explained in docs/. Check this file with `poller check --online`.
[poller]
state = "poller.db"
listen = "127.0.0.1:8765"          # API and status page; "" switches them off

[sources.acme]
plugin = "nutcache"
# The local sandbox (`poller sandbox`). For the real service remove these two lines ...
server = "http://127.0.0.1:8764/webapi"
access_token = "sandbox-access-token"
# ... and write:
# access_token = { env = "NUTCACHE_TOKEN" }
# company = "11111111-2222-3333-4444-555555555555"

[[subscriptions]]
name = "console"
plugin = "console"

# [[subscriptions]]
# name = "crm"
# plugin = "http"
# url = "https://crm.example/hooks/poller"
# secret = { env = "CRM_SECRET" }
# types = ["nutcache.projects.*", "*.deleted"]
"""

REST = """\
# Poller: every key is explained in docs/. Check this file with `poller check --online`.
[poller]
state = "poller.db"

[sources.shop]
plugin = "rest"                    # any JSON API, without code
base_url = "https://shop.example/api"
# auth = { type = "bearer", token = { env = "SHOP_TOKEN" } }
[sources.shop.endpoints.items]
path = "/items"
id = "id"
pagination = { type = "page", param = "page", start = 1, size_param = "per_page", size = 100 }
#            { type = "offset", param = "offset", size_param = "limit", size = 100 }
#            { type = "cursor", param = "cursor", next = "$.next" }
#            { type = "link" }   { type = "none" }

[[subscriptions]]
name = "console"
plugin = "console"
"""


@click.command()
@click.option("--source", type=click.Choice(["nutcache", "rest"]), default="nutcache", show_default=True)
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.pass_obj
def init(chosen: Chosen, source: str, force: bool) -> None:
    """Write a commented poller.toml.

    Example: poller init --source rest
    """
    path = chosen.path or Path("poller.toml")
    if path.exists() and not force:
        raise PollerError(f"{path} is there already", hint="poller init --force overwrites it")
    path.write_text(NUTCACHE if source == "nutcache" else REST, encoding="utf-8")
    click.echo(f"wrote {path}; next: poller check --online", err=True)


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
