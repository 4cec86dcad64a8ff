"""The running program as pages and commands see it: what only it knows, and its commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from poller.budget.windows import Usage
from poller.config.models import Config
from poller.hooks.loading import Failed
from poller.operations.delays import Delays
from poller.operations.history import History
from poller.operations.status import Status
from poller.planner.feasibility import Infeasible
from poller.polling.health import HealthReport
from state.errors import PollerError
from state.store import Reader

if TYPE_CHECKING:
    from poller.planner.report import Report, WhatIf

Answer = dict[str, Any]  # result of a command; `summary` is one sentence that says what was done


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """A budget's current state."""

    usage: tuple[Usage, ...]
    throttled_until: float | None  # Unix seconds
    polls: int = 0  # polls begun since the start
    calls: int = 0  # calls sent since the start, including logins and redirects
    refused: int = 0  # calls answered 429 since the start
    infeasible: Infeasible | None = None  # a `max_staleness` that it cannot keep


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What only the running program knows of an endpoint."""

    in_doubt_since: float | None = (
        None  # Unix seconds: since when it is being counted, because most objects are missing
    )
    notes: Mapping[str, str] = msgspec.field(default_factory=dict)
    ignore_candidates: Sequence[str] = ()


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What only the running program knows, at one moment."""

    budgets: Mapping[str, BudgetView]
    sources: Mapping[str, HealthReport]
    endpoints: Mapping[tuple[str, str], Watched]
    expected_delays: Mapping[tuple[str, str], float] = msgspec.field(default_factory=dict)  # seconds
    last_polls: Mapping[str, float | None] = msgspec.field(default_factory=dict)
    failed_plugins: Sequence[Failed] = ()
    state_error: str | None = None
    config_error: str | None = None
    is_shared: bool = False  # other workers run on the same state: what they own is in the state alone


class Program(Protocol):
    """A running poller. Call everything on its event loop, except `status`, which reads the state."""

    @property
    def config(self) -> Config:
        """The configuration in use."""
        ...

    @property
    def outage(self) -> PollerError | None:
        """Why the state cannot be written; None while it can."""
        ...

    @property
    def history(self) -> History:
        """The latest polls, and the use of budgets, since the start."""
        ...

    @property
    def delays(self) -> Delays:
        """Delays until changes were seen and events delivered, since the start."""
        ...

    def now(self) -> float:
        """The program's time, in Unix seconds."""
        ...

    def sample_budgets(self) -> None:
        """Remember the current use of the budgets; called every SAMPLE_EVERY seconds."""
        ...

    def live(self, plan: Report | None = None) -> Live:
        """What only the running program knows; `plan` avoids asking the planners again."""
        ...

    def plan(self, what_if: WhatIf | None = None) -> Report:
        """Expectations of the planners."""
        ...

    def status(self, reader: Reader, live: Live) -> Status:
        """The whole status. Blocks; may be called from any thread. Raises StateError."""
        ...

    async def execute(self, name: str, args: Mapping[str, Any]) -> Answer:
        """Execute a command now. Raises PollerError."""
        ...

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever something was recorded or delivered."""
        ...

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        ...
