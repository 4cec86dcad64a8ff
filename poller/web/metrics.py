"""The status as Prometheus metrics; docs/metrics.md describes each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from poller.operations.delays import Delays, Histogram
from poller.operations.program import Live
from poller.operations.status import Owned, Status, WorkerStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUDGET = ["budget"]
WINDOW = ["budget", "limit"]
ENDPOINT = ["source", "endpoint"]
SUBSCRIPTION = ["subscription"]
WORKER = ["worker"]
STATES = ("active", "failing", "paused", "disabled")

Values = Iterable[tuple[Sequence[str], float | None]]
Histograms = Iterable[tuple[Sequence[str], Histogram]]


def exposition(status: Status, live: Live, delays: Delays) -> bytes:
    """All metrics as text."""
    families = [*_program(status), *_workers(status, live), *_budgets(status, live), *_endpoints(status, live)]
    families += _delivery(status)
    registry = CollectorRegistry()
    registry.register(_Now([*families, *_delays(delays)]))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Now(Collector):
    """The values at this moment."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _gauge(name: str, what: str, labels: Sequence[str], values: Values) -> Metric:
    family = GaugeMetricFamily(f"poller_{name}", what, labels=labels)
    for label, value in values:
        if value is not None:
            family.add_metric(label, value)
    return family


def _counter(name: str, what: str, labels: Sequence[str], values: Values) -> Metric:
    family = CounterMetricFamily(f"poller_{name}", what, labels=labels)
    for label, value in values:
        if value is not None:
            family.add_metric(label, value)
    return family


def _histogram(
    name: str, what: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(f"poller_{name}", what, labels=labels)
    for label, one in values:
        family.add_metric(label, one.buckets(), one.sum)
    return family


def _program(status: Status) -> Iterator[Metric]:
    version = [((metadata.version("poller"),), 1.0)]
    yield _gauge("build_info", "1, with the version that runs.", ["version"], version)
    writable = [((), float(status.state_error is None))]
    yield _gauge("state_writable", "1 while the state can be written.", [], writable)
    refused = [((), float(status.config_error is not None))]
    yield _gauge("configuration_refused", "1 while the file of the latest reload is refused.", [], refused)
    yield _gauge("plugins_failed", "Plugins that failed.", [], [((), float(len(status.plugins_failed)))])


def _workers(status: Status, live: Live) -> Iterator[Metric]:
    """Who shares the database. On a file there is nothing to tell."""
    if not live.is_shared:
        return
    yield _gauge("workers", "Workers on this database.", [], [((), len(status.workers))])
    differs = [((), float(status.config_differs))]
    yield _gauge("configuration_differs", "1 while workers run different configurations.", [], differs)
    rows = [((one.name,), one) for one in status.workers]
    yield _gauge("worker_budgets", "Budgets that a worker owns.", WORKER, [(at, len(w.budgets)) for at, w in rows])
    owned = [(at, len(w.subscriptions)) for at, w in rows]
    yield _gauge("worker_subscriptions", "Subscriptions that a worker owns.", WORKER, owned)
    yield _gauge("worker_lag", "Events that its subscriptions were not given.", WORKER, [(at, w.lag) for at, w in rows])
    left = [(at, w.lease_left_s) for at, w in rows]
    yield _gauge("worker_lease_left_seconds", "Until its leases run out, unless it renews them.", WORKER, left)
    lacks = [(at, len(w.lacks)) for at, w in rows]
    yield _gauge("worker_lacks", "Budgets and subscriptions that a worker cannot open.", WORKER, lacks)
    leases = [((f"{kind}/{o.name}",), o.epoch) for w in status.workers for kind, o in _owned(w)]
    yield _gauge("lease_epoch", "The epoch of a lease: it rises with every owner.", ["lease"], leases)


def _owned(one: WorkerStatus) -> Iterator[tuple[str, Owned]]:
    yield from (("budget", budget) for budget in one.budgets)
    yield from (("subscription", subscription) for subscription in one.subscriptions)


def _delays(delays: Delays) -> Iterator[Metric]:
    seen = "Seconds from the last poll without a change to the poll that showed it, of events since the start."
    yield _histogram("detection_delay_seconds", seen, ENDPOINT, [*delays.seen.items()])
    delivered = [((name,), one) for name, one in delays.delivered.items()]
    given = "Seconds from a change being seen to its delivery, of deliveries since the start."
    yield _histogram("delivery_delay_seconds", given, SUBSCRIPTION, delivered)


def _budgets(status: Status, live: Live) -> Iterator[Metric]:
    views = live.budgets.items()
    windows = [((name, usage.rate), usage) for name, view in views for usage in view.usage]
    yield _counter("calls", "Calls sent since the start.", BUDGET, [((n,), v.calls) for n, v in views])
    yield _counter(
        "refused_calls", "Calls answered 429 since the start.", BUDGET, [((n,), v.refused) for n, v in views]
    )
    yield _counter("polls", "Polls and look-ups begun since the start.", BUDGET, [((n,), v.polls) for n, v in views])
    yield _gauge("budget_used", "Calls that count in a window now.", WINDOW, [(at, u.used) for at, u in windows])
    yield _gauge("budget_remaining", "Calls left in a window now.", WINDOW, [(at, u.remaining) for at, u in windows])
    yield _gauge("budget_limit", "Calls that a window allows.", WINDOW, [(at, u.limit.calls) for at, u in windows])
    throttled = [((n,), float(v.throttled_until is not None)) for n, v in views]
    yield _gauge("budget_throttled", "1 while the server wants no call.", BUDGET, throttled)
    mine = [row for row in status.sources if not live.is_shared or row.name in live.sources]
    sources = [((row.name,), float(row.state == "ok")) for row in mine]
    yield _gauge("source_ok", "1 while nothing is wrong with a source.", ["source"], sources)


def _endpoints(status: Status, live: Live) -> Iterator[Metric]:
    """Every endpoint; of workers that share a database, each reports those that it polls itself."""
    rows = [((row.source, row.endpoint), row) for row in status.endpoints]
    if live.is_shared:
        rows = [(at, row) for at, row in rows if at in live.endpoints]

    def of(key: str) -> Values:
        return [(at, getattr(row, key)) for at, row in rows]

    yield _gauge("endpoint_objects", "Objects known.", ENDPOINT, of("objects"))
    yield _gauge("endpoint_units", "Units polled.", ENDPOINT, of("units"))
    yield _gauge("endpoint_failing_units", "Units whose latest poll failed.", ENDPOINT, of("failing"))
    yield _gauge("endpoint_suspects", "Objects that may be gone.", ENDPOINT, of("suspects"))
    yield _gauge("endpoint_unlisted", "Objects not listed that answer at their own URL.", ENDPOINT, of("unlisted"))
    held = [(at, float(row.held is not None)) for at, row in rows]
    yield _gauge("endpoint_held", "1 while an endpoint is held.", ENDPOINT, held)
    complete = [(at, float(row.state == "ok")) for at, row in rows]
    yield _gauge("endpoint_ok", "1 while its list is known to be complete and can be asked.", ENDPOINT, complete)
    yield _gauge(
        "endpoint_staleness_seconds", "Age of the unit that was polled longest ago.", ENDPOINT, of("staleness_s")
    )
    yield _gauge(
        "endpoint_expected_delay_seconds", "Expected time until a change is seen.", ENDPOINT, of("expected_delay_s")
    )
    measured = "Mean time until a change was seen, over the last day."
    yield _gauge("endpoint_measured_delay_seconds", measured, ENDPOINT, of("measured_delay_s"))
    late = "95th percentile of that time."
    yield _gauge("endpoint_measured_delay_p95_seconds", late, ENDPOINT, of("measured_delay_p95_s"))
    sweeps = [(at, None if row.last_sweep is None else row.last_sweep.timestamp()) for at, row in rows]
    yield _gauge("endpoint_last_sweep_timestamp_seconds", "When the latest sweep ended.", ENDPOINT, sweeps)


def _delivery(status: Status) -> Iterator[Metric]:
    rows = [((row.name,), row) for row in status.subscriptions]

    def of(key: str) -> Values:
        return [(at, getattr(row, key)) for at, row in rows]

    yield _counter("events", "Events ever recorded.", [], [((), status.last_seq)])
    yield _gauge("subscription_lag", "Events not delivered yet.", SUBSCRIPTION, of("lag"))
    yield _gauge("subscription_pending", "Deliveries that wait.", SUBSCRIPTION, of("pending"))
    yield _gauge("subscription_dead", "Dead letters.", SUBSCRIPTION, of("dead"))
    oldest = [(at, row.oldest_waiting_s or 0.0) for at, row in rows]
    yield _gauge("subscription_oldest_waiting_seconds", "Age of the oldest event not delivered.", SUBSCRIPTION, oldest)
    states = [((*at, state), float(row.state == state)) for at, row in rows for state in STATES]
    yield _gauge("subscription_state", "1 for the current state.", ["subscription", "state"], states)
