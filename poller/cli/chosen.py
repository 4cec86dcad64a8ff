"""What the command line was told before its command: which configuration."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from poller.app import open_app
from poller.config import load
from poller.loading import Plugins, load_plugins
from poller.plan import Situation
from poller.tables import Config
from state.lock import StateLock


@dataclass(slots=True)
class Chosen:
    """Where the configuration is; None: where it is looked for."""

    path: Path | None = None

    def load(self, *, reveal: bool = True) -> tuple[Config, Plugins]:
        """The configuration and the plugins that it was checked against. Raises ConfigError.

        Without `reveal`, secrets that are not there are no error: for commands that only look.
        """
        plugins = load_plugins()
        return load(self.path, plugins, reveal=reveal), plugins

    def situations(self) -> list[Situation]:
        """How the planners of this state stand. Raises Held where a daemon runs on it: its API has the plan then."""
        return asyncio.run(_situations(*self.load()))


async def _situations(config: Config, plugins: Plugins) -> list[Situation]:
    with StateLock(config.poller.state).held():
        async with open_app(config, plugins) as app:
            now = app.clock.now()
            shares = {name: budget.share for name, budget in config.budgets.items()}
            return [
                Situation(budget=name, limits=lane.budget.limits, share=shares[name], planner=lane.planner, now=now)
                for name, lane in app.engine.lanes.items()
            ]
