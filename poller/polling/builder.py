"""Builds budgets with their sources, clients and rules from the configuration, without reading the state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import httpx

from poller.budget.budget import Budget
from poller.budget.limiter import CallRecords, RateLimiter
from poller.clock import Clock
from poller.config.models import BudgetConfig, SourceConfig
from poller.hooks.loading import Plugins, said
from poller.planner.planner import Planner
from poller.polling.ask import asked_again_for_a_moment, asked_again_if_refused, obeyed_in_text
from poller.polling.boundary import reason_of
from poller.polling.budget_work import BudgetWork
from poller.polling.budgets import BuiltEndpoint, PolledBudget
from poller.polling.call_steps import CallSteps
from poller.polling.deletions import Deletions
from poller.polling.fetch import Fetcher, unwelcome
from poller.polling.health import SourceHealth
from poller.polling.loop import PollLoop
from poller.polling.poll import Polling, do
from poller.polling.rules import rules_of, shape_of
from poller.polling.source import ActiveSource, Discovery, PollTimes
from poller.polling.source_calls import SourceCalls
from poller.polling.stall import StallWatch
from poller.polling.threads import Apart
from poller.polling.turn import Turns
from poller.sources.transport import Network, build_client, fetch
from state.errors import PollerError
from state.store import CallStore


class Builder:
    """Builds what an engine polls. No call of a budget leaves after `valid_until`, in steady time."""

    def __init__(
        self,
        plugins: Plugins,
        polling: Polling,
        *,
        calls: CallStore,
        transport: httpx.AsyncBaseTransport | None,
        apart: Callable[[str], Apart],
        valid_until: Callable[[], float] | None,
    ) -> None:
        self._plugins = plugins
        self._polling = polling
        self._clock: Clock = polling.clock
        self._calls = calls
        self._transport = transport  # None: the network
        self._apart = apart  # the thread for plugin code, by source
        self._valid_until = valid_until

    def budget(self, name: str, config: BudgetConfig) -> PolledBudget:
        """Build a budget that has no sources yet."""
        clock = self._clock
        budget = Budget(name, config.limits, share=config.share, concurrency=config.concurrency)
        steps = CallSteps(name, self._calls, self._polling.recorder.steps, clock)
        records = CallRecords(spend=steps.spend, flush=steps.flush, throttle=steps.throttle)
        limiter = RateLimiter(budget, clock, records)
        limiter.valid_until = self._valid_until
        planner = Planner([], now=clock.now())
        work = BudgetWork(name, planner, self._polling.in_flight, clock, do=partial(do, self._polling))
        poll_loop = PollLoop(name, planner=planner, limiter=limiter, clock=clock, queue=work)
        steps.budget = PolledBudget(poll_loop=poll_loop, work=work)
        return steps.budget

    def add(self, budget: PolledBudget, source: SourceConfig) -> None:
        """Build a source of a budget. Raises PollerError if its plugin or a rule is unusable."""
        try:
            self._add(budget, source)
        except PollerError:
            raise
        except Exception as error:  # plugin code may raise anything, and the source is to blame
            raise PollerError(
                f"sources.{source.name}: cannot be set up: {said(error)}", hint="poller check says the same"
            ) from error

    def _add(self, budget: PolledBudget, config: SourceConfig) -> None:
        source = config.build()
        poll_loop, recorder = budget.poll_loop, self._polling.recorder
        apart = self._apart(config.name)
        calls, asks_first = SourceCalls(source, apart), source.asks_first()
        client = build_client(_network_of(config), limiter=poll_loop.limiter, auth=calls.auth, inner=self._transport)
        budget.clients.append(client)
        ask = asked_again_if_refused(obeyed_in_text(partial(fetch, client), poll_loop.limiter))
        ask_on = asked_again_for_a_moment(ask, self._clock, refused=partial(_refused, poll_loop))
        steps = recorder.steps
        fetcher = Fetcher(calls, ask, ask_on, store=recorder.store, steps=steps, clock=self._clock, apart=apart)
        active = ActiveSource(
            config=config,
            source=calls,
            poll_loop=poll_loop,
            fetcher=fetcher,
            turns=Turns(recorder, apart),
            deletions=Deletions(fetcher, recorder, apart, self._clock),
            health=SourceHealth(config.name),
            stall=StallWatch(config.name),
            discovery=Discovery(is_needed=asks_first, is_done=not asks_first),
            times=PollTimes(self._clock.now()),
            apart=apart,
        )
        budget.sources[config.name] = active
        budget.built[config.name] = [
            BuiltEndpoint(
                rules_of(config, endpoint, self._plugins),
                shape_of(source, endpoint, config.endpoint(endpoint.name)),
            )
            for endpoint in config.chosen(source.endpoints())
        ]


def _refused(poll_loop: PollLoop, response: httpx.Response) -> None:
    """Note a refused call that is repeated, to be reported like any other."""
    poll_loop.pauses.repeats(reason_of(unwelcome(response)))


def _network_of(config: SourceConfig) -> Network:
    return Network(
        source=config.name,
        timeout=config.timeout,
        most=config.max_answer,
        verify=config.verify,
        ca_file=config.ca_file,
        proxy=config.proxy,
    )
