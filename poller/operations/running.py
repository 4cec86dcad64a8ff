"""The app of this process as a `Program`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from poller.app import App
from poller.config.models import Config
from poller.operations.commands import execute_or_post
from poller.operations.delays import Delays
from poller.operations.gathering import status
from poller.operations.history import History
from poller.operations.live import live_of, plan_of
from poller.operations.program import Answer, Live
from poller.operations.status import Status
from poller.planner.report import Report, WhatIf
from state.errors import PollerError
from state.store import Reader


class RunningProgram:
    """Implements `Program` with an app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.history = History(app.clock.now)
        self.delays = Delays()
        app.news.poll_ears.append(self.history.polled)
        app.news.attempt_ears.append(self.delays.attempted)

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self._app.config

    @property
    def outage(self) -> PollerError | None:
        """Why the state cannot be written."""
        return self._app.write.outage

    def now(self) -> float:
        """The program's time, in Unix seconds."""
        return self._app.clock.now()

    def sample_budgets(self) -> None:
        """Remember the current use of the budgets."""
        steady = self._app.clock.steady()
        loops = self._app.engine.loops
        self.history.sample({name: poll_loop.budget.usage(steady) for name, poll_loop in loops.items()})

    def live(self, plan: Report | None = None) -> Live:
        """What only the running program knows."""
        return live_of(self._app, plan)

    def plan(self, what_if: WhatIf | None = None) -> Report:
        """Expectations of the planners."""
        return plan_of(self._app, what_if)

    def status(self, reader: Reader, live: Live) -> Status:
        """The whole status."""
        return status(reader, self._app.config, now=self._app.clock.now(), live=live)

    async def execute(self, name: str, args: Mapping[str, Any]) -> Answer:
        """Execute a command now."""
        return await execute_or_post(self._app, name, args)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever something was recorded or delivered."""
        self._app.deliverer.ears.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._app.deliverer.ears.remove(listener)
