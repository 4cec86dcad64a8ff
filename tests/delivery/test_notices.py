"""What operators are told of a subscription: what happened to which event, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from poller.delivery import notices
from poller.delivery.notices import ANSWER_SHOWN
from poller.sinks.protocol import Receipt
from state.deliveries import Job, SinkHealth
from state.notices import Notice
from state.records import Event
from tests.support.bench import make_event

NOON = 1_790_000_000.0  # 2026-09-21T14:13:20Z
NO = Receipt(status="503", text="busy")


def event(number: int = 1) -> Event:
    return Event(**{**vars(make_event(number)), "seq": 100 + number})


def job(number: int) -> Job:
    return Job(id=number, event=event(number), attempts=0, retries=0, refusals=0)


def failing(*, receipt: Receipt = NO) -> Notice:
    return notices.failing("crm", event(), 7, receipt, 5, probe=NOON + 60.0, now=NOON)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (failing, "subscription.failing"),
        (
            lambda: notices.recovered("crm", event(), 7, NO, SinkHealth(failures=9), now=NOON),
            "subscription.recovered",
        ),
        (lambda: notices.disabled("crm", event(), 7, NO, now=NOON), "subscription.disabled"),
        (lambda: notices.dead("crm", job(1), 7, NO, now=NOON), "delivery.dead"),
    ],
)
def test_a_notice_names_its_subscription_the_event_and_the_attempt_with_its_answer(
    make: Callable[[], Notice], kind: str
):
    notice = make()
    assert (notice.kind, notice.subject, notice.time) == (kind, "subscriptions/crm", NOON)
    assert {name: notice.detail[name] for name in ("event", "sequence", "type", "attempt", "status", "answer")} == {
        "event": "event-1",
        "sequence": 101,
        "type": "shop.items.updated",
        "attempt": 7,
        "status": "503",
        "answer": "busy",
    }
    assert notice.detail["next"]


def test_a_failing_subscription_is_told_with_its_next_probe_and_how_to_try_at_once():
    notice = failing()

    assert notice.summary == "Subscription crm fails: 5 attempts in a row, the latest answer 503."
    assert notice.detail["next"].startswith("the next probe is sent at 2026-09-21T14:14:20")
    assert "all other deliveries are kept" in notice.detail["next"]
    assert notice.detail["next"].endswith("`poller resume crm` tries at once")


def test_a_recovered_subscription_is_told_with_how_often_it_had_failed():
    notice = notices.recovered("crm", event(), 7, NO, SinkHealth(failures=9), now=NOON)

    assert notice.summary == "Subscription crm accepts events again, after 9 failed attempts."
    assert notice.detail["next"] == "kept deliveries are sent now"


def test_a_disabled_subscription_is_told_with_the_command_that_enables_it():
    notice = notices.disabled("crm", event(), 7, Receipt(status="410"), now=NOON)

    assert notice.summary == "Subscription crm is disabled: its receiver answered 410 and wants no more events."
    assert notice.detail["next"] == "its events are kept; `poller resume crm` enables it again"


@pytest.mark.parametrize(("number", "words"), [(1, "1 attempt"), (2, "2 attempts")])
def test_a_dead_letter_is_told_with_what_it_was(number: int, words: str):
    notice = notices.dead("crm", job(1), number, NO, now=NOON)

    what = "event 101 (shop.items.updated, items/1)"
    assert notice.summary == f"Subscription crm has a dead letter: {what}, given up after {words}, the last 503."
    assert notice.detail["delivery"] == 1
    assert "`poller redeliver 1` sends it again" in notice.detail["next"]
    assert "`poller redeliver --subscription crm` all dead letters" in notice.detail["next"]
    assert "only after a delivery has succeeded" in notice.detail["next"]


def test_events_that_were_dropped_are_counted():
    notice = notices.dropped("crm", 12, now=NOON)

    assert (notice.kind, notice.subject, notice.time) == ("subscription.disabled", "subscriptions/crm", NOON)
    assert "12 events could not be delivered within the retention time" in notice.summary
    assert notice.detail == {"dropped": 12, "next": "`poller resume crm` enables it again"}


def test_a_test_event_names_the_subscription_that_it_tests():
    notice = notices.ping("crm", now=NOON)

    assert (notice.kind, notice.subject, notice.time) == ("ping", "subscriptions/crm", NOON)
    assert notice.summary == "A test of subscription crm."
    assert notice.detail == {}


def test_of_a_long_answer_the_beginning_is_shown():
    text = "".join(str(place % 10) for place in range(900))

    assert failing(receipt=Receipt(status="503", text=text)).detail["answer"] == text[:ANSWER_SHOWN]


def test_an_answer_that_ends_in_a_period_ends_no_sentence_twice():
    refused = Receipt(status="550 No such mailbox.")

    assert failing(receipt=refused).summary.endswith("the latest answer 550 No such mailbox.")
    assert notices.dead("crm", job(1), 7, refused, now=NOON).summary.endswith("the last 550 No such mailbox.")
