"""A daemon with two sources that have separate budgets: what one of them does must not delay the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from poller.app import open_app, sweep_once
from poller.config.load import load
from poller.daemon.daemon import Daemon
from poller.daemon.systemd import Notifier
from poller.hooks.loading import load_plugins
from poller.operations.commands import execute
from tests.support.living import World, until, world

REST = """[sources.slow]
plugin = "rest"
budget = "slow"
base_url = "{slow}"
[sources.slow.endpoints.things]
path = "/things"
"""

CONFIG = """
[poller]
state = "poller.db"
listen = ""
[budgets.slow]
limits = ["1000/s"]
[budgets.quick]
limits = ["1000/s"]
{source}
[sources.quick]
plugin = "rest"
budget = "quick"
base_url = "{quick}"
[sources.quick.endpoints.things]
path = "/things"
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{quick}/hook"
allow_private = true
"""


@asynccontextmanager
async def two_sources(
    folder: Path, plugin: object, *, source: str = REST, sweeps: bool = True, end: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Daemon, World, World]]:
    """A daemon with a plugin, and the worlds of the sources `slow` (configured by `source`) and `quick`.

    With `sweeps`, their baselines are complete. `end` is called before the daemon is stopped.
    """
    async with world() as slow, world() as quick:
        path = folder / "poller.toml"
        path.write_text(CONFIG.format(source=source.format(slow=slow.url), quick=quick.url))
        plugins = load_plugins(lazily=True)
        plugins.add("odd", plugin)
        async with open_app(load(path, plugins), plugins) as app:
            if sweeps:
                assert await sweep_once(app) == []
            daemon = Daemon(app, reload=lambda: load(path, plugins), notifier=Notifier({}))
            running = asyncio.create_task(daemon.run())
            try:
                yield daemon, slow, quick
            finally:
                end()
                daemon.stop.set()
                await running


async def goes_on(daemon: Daemon, *, commands: int) -> None:
    """Wait until commands were executed and `quick` was polled more often than that."""
    tasks = daemon.app.engine.loops["quick"].tasks
    begun = tasks.begun
    for _ in range(commands):
        await execute(daemon.app, "pause", {"subscription": "hook"})
        await execute(daemon.app, "resume", {"subscription": "hook"})
    await until("more polls of it", lambda: tasks.begun > begun + commands)


def sizes(quick: World, source: str, number: int) -> list[int]:
    """The sizes of one thing in the received events of a source."""
    wanted = f"/sources/{source}", f"things/{number}"
    return [
        event["data"]["object"]["size"] for event in quick.received if (event["source"], event["subject"]) == wanted
    ]
