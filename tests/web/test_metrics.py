"""The metrics: what they count, and that documentation, alerts and the board name those that exist."""

import re
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from poller.budget.budget import Budget
from poller.budget.limits import Limit
from poller.hooks.payloads import AttemptFinished
from poller.operations.delays import BOUNDS, Delays, Histogram
from poller.operations.program import BudgetView, Live, Watched
from poller.operations.status import (
    BudgetStatus,
    EndpointStatus,
    Owned,
    SourceStatus,
    Status,
    SubscriptionStatus,
    WorkerStatus,
)
from poller.polling.health import HealthReport
from poller.web.metrics import exposition
from state.deliveries import AttemptRow, Job
from state.records import Event
from state.status import SeenDelay

DOCS = Path(__file__).parents[2] / "docs"
NOW = 1_000_000.0
EVENT = Event(
    seq=1, id="a", source="/sources/shop", type="t", subject="items/1", time=NOW, observed_after=None, raw=b"{}"
)
NAME = re.compile(r"\bpoller_[a-z0-9_]+")


def attempt(**fields: object) -> AttemptFinished:
    row = AttemptRow(number=1, at=NOW + 2.0, latency=0.5, status="200")
    given = {"subscription": "crm", "jobs": (Job(id=1, event=EVENT, attempts=0, retries=0, refusals=0),)}
    return AttemptFinished(**{**given, "state": "delivered", "attempt": row, **fields})  # type: ignore[arg-type]


def seen(seq: int, delay: float | None) -> SeenDelay:
    return SeenDelay(seq=seq, source="shop", endpoint="items", delay=delay)


def whole() -> str:
    """An exposition in which everything has a value."""
    at = datetime.fromtimestamp(NOW, UTC)
    endpoint = EndpointStatus(
        source="shop",
        endpoint="items",
        state="ok",
        last_sweep=at,
        staleness_s=1.0,
        expected_delay_s=2.0,
        measured_delay_s=3.0,
        measured_delay_p95_s=4.0,
    )
    worker = WorkerStatus(
        name="one",
        version="1",
        digest="abc",
        listen="",
        since=at,
        lease_left_s=1.5,
        budgets=(Owned(name="shop", epoch=3),),
        subscriptions=(Owned(name="crm", epoch=4),),
    )
    status = Status(
        time=at,
        running=True,
        log_id="x",
        last_seq=7,
        budgets=(BudgetStatus(name="shop", limits=()),),
        sources=(SourceStatus(name="shop", state="ok"),),
        endpoints=(endpoint,),
        subscriptions=(SubscriptionStatus(name="crm", state="active"),),
        workers=(worker,),
    )
    usage = Budget("shop", [Limit(5, 1.0)], share=1.0).usage(0.0)
    live = Live(
        budgets={"shop": BudgetView(usage=usage, throttled_until=None)},
        sources={"shop": HealthReport(state="ok")},
        endpoints={("shop", "items"): Watched()},
        is_shared=True,
    )
    delays = Delays()
    delays.begin(0)
    delays.count([seen(1, 0.2)])
    delays.attempted(attempt())
    return exposition(status, live, delays).decode()


def test_a_histogram_counts_each_span_within_every_bound_above_it() -> None:
    histogram = Histogram()
    for span in (0.05, 0.1, 7.0, 1e9, -5.0):
        histogram.add(span)

    buckets = dict(histogram.buckets())
    assert (buckets["0.1"], buckets["5.0"], buckets["10.0"], buckets["86400.0"], buckets["+Inf"]) == (3, 3, 4, 4, 5)
    assert len(buckets) == len(BOUNDS) + 1


def test_events_are_counted_once_and_only_those_since_the_start() -> None:
    delays = Delays()
    delays.begin(10)
    delays.count([seen(10, 1.0), seen(11, 1.0), seen(12, None)])
    delays.count([seen(11, 1.0), seen(13, 2.0)])

    assert delays.seen_upto == 13
    assert delays.seen["shop", "items"].buckets()[-1] == ("+Inf", 2.0)
    assert delays.seen["shop", "items"].sum == 3.0


def test_a_delivery_counts_from_when_its_event_was_seen_and_replays_do_not() -> None:
    delays = Delays()
    for one in (attempt(), attempt(state="pending"), attempt(state="dead"), attempt(is_in_order=False)):
        delays.attempted(one)

    assert delays.delivered["crm"].sum == pytest.approx(2.5)
    assert delays.delivered["crm"].buckets()[-1] == ("+Inf", 1.0)


def test_a_state_that_cannot_be_written_and_a_refused_file_are_numbers() -> None:
    text = whole()

    assert "poller_state_writable 1.0" in text
    assert "poller_configuration_refused 0.0" in text


def families() -> set[str]:
    """The names that are exposed, as queries write them, without the suffixes of histograms."""
    kinds = dict(re.findall(r"^# TYPE (poller_\w+) (\w+)$", whole(), re.MULTILINE))
    return {name for name, kind in kinds.items() if not name.endswith("_created")}


def test_every_metric_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `(poller_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))

    assert documented == families()


@pytest.mark.parametrize("file", ["alerts.yml", "poller.json"])
def test_alerts_and_board_ask_for_metrics_that_there_are(file: str) -> None:
    text = (DOCS / "grafana" / file).read_text()
    if file == "poller.json":
        text = " ".join(target["expr"] for panel in orjson.loads(text)["panels"] for target in panel.get("targets", ()))
    named = {re.sub("_bucket$", "", name) for name in NAME.findall(text)}

    assert named - families() == set()
    assert len(named) > 10
