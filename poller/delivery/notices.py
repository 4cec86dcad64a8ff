"""Notices about subscriptions: each is sent once per episode and explains itself. Pure."""

from __future__ import annotations

from typing import Any

from poller.events.cloudevents import iso
from poller.rendering.counting import counted
from poller.rendering.sentences import clause
from poller.sinks.protocol import Receipt
from state.deliveries import Job, SinkHealth
from state.notices import Notice
from state.records import Event

ANSWER_SHOWN = 500  # characters of an answer in a notice


def failing(
    name: str, event: Event, number: int, receipt: Receipt, failures: int, *, probe: float, now: float
) -> Notice:
    """The notice that the breaker has opened, until `probe`."""
    next_ = f"the next probe is sent at {iso(probe)} at the earliest, further ones at growing intervals; "
    next_ += "a probe is an ordinary attempt of a delivery, and may be its last; all other deliveries are kept; "
    next_ += f"`poller resume {name}` tries at once"
    summary = f"Subscription {name} fails: {failures} attempts in a row, the latest answer {clause(receipt.status)}."
    return _notice("failing", name, summary, event, number, receipt, next_, now)


def recovered(name: str, event: Event, number: int, receipt: Receipt, health: SinkHealth, *, now: float) -> Notice:
    """The notice that a probe has succeeded."""
    summary = f"Subscription {name} accepts events again, after {health.failures} failed attempts."
    return _notice("recovered", name, summary, event, number, receipt, "kept deliveries are sent now", now)


def disabled(name: str, event: Event, number: int, receipt: Receipt, *, now: float) -> Notice:
    """The notice that the receiver wants no more events."""
    summary = f"Subscription {name} is disabled: its receiver answered {receipt.status} and wants no more events."
    return _notice("disabled", name, summary, event, number, receipt, f"its events are kept; {_resume(name)}", now)


def dead(name: str, job: Job, number: int, receipt: Receipt, *, now: float) -> Notice:
    """The notice that an event was given up."""
    event = job.event
    what = f"event {event.seq} ({event.type}, {event.subject})"
    attempts = counted(number, "attempt")
    next_ = f"`poller redeliver {job.id}` sends it again, `poller redeliver --subscription {name}` all dead letters; "
    next_ += "the next dead letter is reported only after a delivery has succeeded"
    return Notice(
        kind="delivery.dead",
        subject=f"subscriptions/{name}",
        summary=f"Subscription {name} has a dead letter: {what}, given up after {attempts}, "
        f"the last {clause(receipt.status)}.",
        detail={"delivery": job.id, **_detail(event, number, receipt, next_)},
        time=now,
    )


def dropped(name: str, events: int, *, now: float) -> Notice:
    """The notice that events were dropped because they were not delivered in time."""
    what = counted(events, "event")
    return Notice(
        kind="subscription.disabled",
        subject=f"subscriptions/{name}",
        summary=f"Subscription {name} is disabled: {what} could not be delivered within the retention time.",
        detail={"dropped": events, "next": _resume(name)},
        time=now,
    )


def ping(name: str, *, now: float) -> Notice:
    """A test event, sent on command."""
    return Notice(
        kind="ping", subject=f"subscriptions/{name}", summary=f"A test of subscription {name}.", detail={}, time=now
    )


def _resume(name: str) -> str:
    return f"`poller resume {name}` enables it again"


def _notice(
    kind: str, name: str, summary: str, event: Event, number: int, receipt: Receipt, next_: str, now: float
) -> Notice:
    return Notice(
        kind=f"subscription.{kind}",
        subject=f"subscriptions/{name}",
        summary=summary,
        detail=_detail(event, number, receipt, next_),
        time=now,
    )


def _detail(event: Event, number: int, receipt: Receipt, next_: str) -> dict[str, Any]:
    return {
        "event": event.id,
        "sequence": event.seq,
        "type": event.type,
        "attempt": number,
        "status": receipt.status,
        "answer": receipt.text[:ANSWER_SHOWN],
        "next": next_,
    }
