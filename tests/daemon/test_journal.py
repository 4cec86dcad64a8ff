"""The journal says each episode once, in a sentence for people, and sums up every hour."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
import structlog

from poller.daemon.journal import Count, Journal, hour
from poller.daemon.logs import _journal_line, _sentence_first
from poller.operations.running import RunningProgram
from poller.operations.status import EndpointStatus, Status, SubscriptionStatus
from tests.polling.test_episodes import town
from tests.support.command_line import Shop
from tests.support.daemon import running_daemon, wait_for

WELL = Status(
    time=datetime(2027, 1, 15, tzinfo=UTC),
    running=True,
    log_id="1",
    last_seq=9,
    endpoints=(EndpointStatus(source="shop", endpoint="items", state="ok"),),
    subscriptions=(SubscriptionStatus(name="crm", state="active", lag=3, dead=1),),
)


def test_an_hour_is_one_line() -> None:
    assert hour(WELL, Count(calls=360, events=1)) == (
        "The latest hour: 360 calls, 1 event. Now: 3 to deliver, 1 dead letter, all is well."
    )
    ill = replace(
        WELL,
        endpoints=(replace(WELL.endpoints[0], state="held"),),
        subscriptions=(replace(WELL.subscriptions[0], state="failing"),),
    )
    assert hour(ill, Count(calls=1, refused=1)) == (
        "The latest hour: 1 call, 1 of them refused with 429, 0 events. "
        "Now: 3 to deliver, 1 dead letter, shop/items held; subscription crm failing."
    )


def test_calls_that_a_reload_counts_anew_are_not_negative() -> None:
    assert Count(calls=5, events=8).since(Count(calls=100, refused=2, events=3)) == Count(calls=5, events=5)


def test_a_line_of_the_journal_begins_with_its_sentence() -> None:
    line = _sentence_first(None, "", {"level": "warning", "event": "source.failing", "summary": "It fails.", "seq": 4})

    assert _journal_line(None, "", line) == "<4>It fails. [source.failing] seq=4"


def sentences(log: str, name: str) -> list[str]:
    rows = [orjson.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [row["summary"] for row in rows if row["event"] == name]


def test_the_first_sweep_an_outage_and_its_end_are_one_sentence_each(shop: Shop, tmp_path: Path) -> None:
    config = shop.configure(tmp_path, listen="127.0.0.1:0")
    with running_daemon(config) as daemon:
        wait_for("the first sweep", lambda: sentences(daemon.log, "sweep.first"))
        shop.answer = (403, b"no", "text/plain")
        wait_for("the outage", lambda: sentences(daemon.log, "source.failing"))
        shop.answer = None
        url = wait_for("the URL", daemon.url)
        httpx.post(f"{url}/api/v1/probe")
        wait_for("its end", lambda: sentences(daemon.log, "source.recovered"))

    assert sentences(daemon.log, "sweep.first") == [
        "The first sweep of shop/items is complete: 2 objects in 1 unit; changes are reported from now on."
    ]
    (failing,) = sentences(daemon.log, "source.failing")
    assert failing.startswith("Endpoint shop/items is refused: ")
    assert len(sentences(daemon.log, "source.recovered")) == 1


async def test_the_same_failure_of_the_same_unit_is_said_once(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(60)
        with structlog.testing.capture_logs() as logs:
            t.shop.failing = {"/items?2": 500}
            await w.run(300)
            t.shop.failing = {"/items?2": 502}
            await w.run(300)

    failed = [entry for entry in logs if entry["event"] == "poll.failed"]
    assert [entry["error"].partition(": ")[2][:3] for entry in failed if entry["log_level"] == "warning"] == [
        "500",
        "502",
    ]
    assert len(failed) > 2


async def test_a_note_that_every_sweep_repeats_is_said_once(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(60)
        with structlog.testing.capture_logs() as logs:
            for edit in range(10):  # an edit each time, or the page would not be read
                t.shop.items[3] = {"name": "no id", "edit": edit}
                await w.run(60)

    assert len([entry for entry in logs if entry["event"] == "page.odd"]) == 1


async def test_every_hour_is_summed_up_from_what_was_done_in_it(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        journal = Journal(RunningProgram(w.app))
        journal.open()
        await w.run(60)
        with structlog.testing.capture_logs() as logs:
            await journal.sum_up()
            await journal.sum_up()

    calls = w.poll_loop.limiter.calls
    assert [entry["summary"].partition(". ")[0] for entry in logs if entry["event"] == "poller.hour"] == [
        f"The latest hour: {calls} calls, 0 events",
        "The latest hour: 0 calls, 0 events",
    ]


async def test_a_quiet_time_is_nothing_but_its_summary_in_the_log(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        journal = Journal(RunningProgram(w.app))
        journal.open()
        await w.run(120)  # the first sweep
        with structlog.testing.capture_logs() as logs:
            for _ in range(10):
                await w.run(60)
                await journal.tell_notices()
            await journal.sum_up()

    assert [entry["event"] for entry in logs if entry["log_level"] != "debug"] == ["poller.hour"]


async def test_a_notice_is_told_once_and_not_again_after_a_restart(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        for expected in (["source.failing"], []):
            async with t.watched() as w:
                journal = Journal(RunningProgram(w.app))
                journal.open()
                t.shop.failing = {"/items": 403}
                await w.run(60)
                with structlog.testing.capture_logs() as logs:
                    await journal.tell_notices()
                    await journal.tell_notices()
                assert [entry["event"] for entry in logs] == expected
