"""Spans of OpenTelemetry: one for each poll, recording and attempt where it is set up, and no trace of it elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from poller.tracing import span
from tests.support.command_line import Run, Shop

EXPORTER = InMemorySpanExporter()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What was exported since; the provider of a process is set once."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
        trace.set_tracer_provider(provider)
    EXPORTER.clear()
    yield EXPORTER
    EXPORTER.clear()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [one for one in spans.get_finished_spans() if one.name == name]


def test_a_poll_a_recording_and_a_delivery_are_spans(
    spans: InMemorySpanExporter, poller: Run, shop: Shop, tmp_path: Path
) -> None:
    shop.configure(tmp_path)
    poller("once")
    shop.items = [{"id": 1, "name": "Quince"}, *shop.items[1:]]
    spans.clear()
    poller("once")

    poll, record = named(spans, "poll")[0], named(spans, "record")[-1]
    [deliver] = named(spans, "deliver")
    assert [(poll.attributes or {})[f"poller.{name}"] for name in ("source", "endpoint")] == ["shop", "items"]
    assert (record.attributes or {})["poller.source"] == "shop"
    about = dict(deliver.attributes or {})
    assert (about["poller.subscription"], about["poller.sequence"], about["poller.attempt"]) == ("file", 1, 1)
    assert "poller.failure" not in about


def test_a_failure_is_an_error_by_its_type_alone(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError), span("poll", source="shop"):
        raise ValueError("token=secret")

    [one] = named(spans, "poll")
    assert (one.attributes or {})["poller.failure"] == "ValueError"
    assert (one.status.is_ok, one.status.description, len(one.events)) == (False, None, 0)


def test_where_nobody_set_it_up_it_is_not_imported() -> None:
    code = (
        "import sys, poller.cli.run, poller.daemon.daemon\nfrom poller.tracing import span\n"
        "with span('poll', source='x') as note: note(status='200')\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout == "[]\n"
