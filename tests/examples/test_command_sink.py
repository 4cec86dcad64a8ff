"""The one-file plugin of the examples: loaded from a folder, run against real programs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from poller import Attempt, Event, Receipt, Rejected, RetryLater
from poller.hooks.loading import Plugins
from poller.sinks.protocol import Refused
from poller.testing import make_event

EXAMPLE = Path(__file__).parents[2] / "examples" / "command-sink"
FIRST = Attempt(number=1, delivery_id="7")


ONE, TWO = (make_event({"id": number}, endpoint="projects", seq=number) for number in (1, 2))


@pytest.fixture(scope="module")
def sink_class() -> Any:
    plugins = Plugins()
    plugins.load_folder(EXAMPLE)
    assert plugins.failed == []
    return plugins.sinks["command"]


async def run(sink_class: Any, code: str, *events: Event, **keys: Any) -> Receipt:
    options = sink_class.Options.model_validate({"command": [sys.executable, "-c", code], **keys})
    async with sink_class("labels", options) as sink:
        receipt: Receipt = await sink.deliver(events or [ONE], FIRST)
    return receipt


async def test_the_program_reads_the_events_one_a_line(sink_class: Any) -> None:
    code = "import sys, json; print(*(json.loads(line)['subject'] for line in sys.stdin))"

    assert await run(sink_class, code, ONE, TWO) == Receipt(status="exit 0", text="projects/1 projects/2\n")


async def test_the_program_knows_which_event_it_is(sink_class: Any) -> None:
    code = "import os; print(os.environ['POLLER_EVENT_ID'], os.environ['POLLER_ATTEMPT'])"

    assert (await run(sink_class, code)).text == f"{ONE.id} 1\n"


@pytest.mark.parametrize(("status", "raised"), [(75, RetryLater), (65, Rejected), (1, Refused), (2, Refused)])
async def test_the_exit_status_says_what_happens_next(sink_class: Any, status: int, raised: type[Exception]) -> None:
    with pytest.raises(raised) as failure:
        await run(sink_class, f"print('no'); raise SystemExit({status})")

    assert failure.value.receipt == Receipt(status=f"exit {status}", text="no\n")  # type: ignore[attr-defined]


async def test_a_program_that_hangs_is_killed_with_its_children(sink_class: Any) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"

    with pytest.raises(RetryLater) as failure:
        async with asyncio.timeout(20):
            await run(sink_class, code, timeout="300ms")
    assert failure.value.receipt.status == "timeout"


async def test_a_program_that_is_not_there_is_tried_again(sink_class: Any) -> None:
    with pytest.raises(RetryLater) as failure:
        await run(sink_class, "", command=["/nowhere/print-label"])

    assert failure.value.receipt.status == "not started"


async def test_a_program_that_does_not_read_has_the_event_nevertheless(sink_class: Any) -> None:
    assert (await run(sink_class, "pass", *[make_event({"id": number}) for number in range(2000)])).status == "exit 0"
