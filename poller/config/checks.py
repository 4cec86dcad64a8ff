"""Checks of a whole configuration: names that must exist, expressions and plugins that must work, budgets' limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from poller.budget.limits import Limit
from poller.config.models import BudgetConfig, Config, SourceConfig
from poller.events.filters import Expression, ExpressionError, event_rule, object_rule
from poller.hooks.loading import attempted
from poller.options.problems import Problem, dotted, nearest
from poller.sources.protocol import PageError
from state.leases import budget_lease, subscription_lease

UNDOCUMENTED: Final = (Limit(1, 1.0),)  # the limit of an API that documents none


class Checks:
    """Checks of one configuration that concern more than one table; adds to `problems` what it finds."""

    def __init__(self, config: Config, problems: list[Problem]) -> None:
        self.config = config
        self.problems = problems

    def connected(self, names: Iterable[str], *, reveal: bool) -> Config:
        """Check references between tables, and give every source a budget and every budget limits."""
        self.check_names(names)
        if reveal:
            for source in self.config.sources.values():
                if budget_lease(source.budget) not in self.config.lacks:
                    self.check_endpoints(source)
            self.check_sinks()
            self.check_expressions()
        budgets = dict(self.config.budgets)
        for source in self.config.sources.values():
            if source.budget not in budgets and source.budget != source.name:
                hint = (
                    nearest(source.budget, self.config.budgets)
                    if self.config.budgets
                    else f"add [budgets.{source.budget}]"
                )
                self.wrong(
                    "sources", source.name, "budget", what=f"the budget {source.budget!r} does not exist", hint=hint
                )
            budgets.setdefault(source.budget, BudgetConfig())
        limited = {name: _limited(name, budget, self.config.sources.values()) for name, budget in budgets.items()}
        return self.config.model_copy(update={"budgets": limited})

    def wrong(self, *path: str, what: str, hint: str | None = None) -> None:
        """Note one problem."""
        self.problems.append(Problem(key=dotted(path), what=what, hint=hint))

    def check_names(self, names: Iterable[str]) -> None:
        known, seen = set(names), set()
        for subscription in self.config.subscriptions:
            at = ("subscriptions", subscription.name)
            if subscription.name in seen:
                self.wrong(
                    *at, what="another subscription already has this name", hint="give each subscription a unique name"
                )
            seen.add(subscription.name)
            for name in subscription.sources:
                if name not in known:
                    self.wrong(*at, "sources", what=f"the source {name!r} does not exist", hint=nearest(name, known))

    def check_expressions(self) -> None:
        """Check that every CEL expression can be evaluated."""
        for subscription in self.config.subscriptions:
            if subscription.where is not None:
                self.expression(event_rule, subscription.where, "subscriptions", subscription.name, "where")
        for source in self.config.sources.values():
            for name, endpoint in source.endpoints.items():
                if endpoint.deleted_when is not None:
                    at = ("sources", source.name, "endpoints", name, "deleted_when")
                    self.expression(object_rule, endpoint.deleted_when, *at)

    def expression(self, compiled: Callable[[str], Expression], text: str, *at: str) -> None:
        try:
            compiled(text).refuse_other_types()
        except ExpressionError as error:
            self.wrong(*at, what=str(error), hint=error.hint)

    def check_sinks(self) -> None:
        """Check that each sink can be built with its options. A sink is opened only when its first event is
        delivered.
        """
        for subscription in self.config.subscriptions:
            if subscription.options is not None and subscription_lease(subscription.name) not in self.config.lacks:
                _, error = attempted(subscription.build)
                if error is not None:
                    what = f"the plugin {subscription.plugin!r} cannot be set up: {error}"
                    self.wrong("subscriptions", subscription.name, what=what, hint="fix the plugin")

    def check_endpoints(self, source: SourceConfig) -> None:
        """Check that the plugin accepts its options and offers the endpoints that are named."""
        if source.options is None:
            return
        try:
            offered = [endpoint.name for endpoint in source.build().endpoints()]
        except PageError as error:
            self.wrong("sources", source.name, what=str(error), hint="fix the plugin")
            return
        for name in source.endpoints:
            if name not in offered:
                what = f"the plugin {source.plugin!r} has no endpoint {name!r}"
                self.wrong("sources", source.name, "endpoints", name, what=what, hint=nearest(name, offered))


def _limited(name: str, budget: BudgetConfig, sources: Iterable[SourceConfig]) -> BudgetConfig:
    """Give a budget without limits, for each window, the strictest limit that the plugins of its sources document."""
    if budget.limits:
        return budget
    strictest: dict[float, int] = {}
    for source in sources:
        documented = getattr(source.cls, "limits", None) or UNDOCUMENTED
        for limit in documented if source.budget == name else ():
            strictest[limit.seconds] = min(limit.calls, strictest.get(limit.seconds, limit.calls))
    limits = tuple(Limit(calls, seconds) for seconds, calls in sorted(strictest.items()))
    return budget.model_copy(update={"limits": limits or UNDOCUMENTED})
