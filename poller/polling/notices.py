"""Notices about the health of a source, as one sentence and in detail. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from poller.events.cloudevents import iso
from poller.rendering.sentences import clause
from state.notices import Notice

NAMED: Final = 10  # units or endpoints named in one notice


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The failure that begins an episode. Times are Unix seconds."""

    endpoint: str
    unit: str
    reason: str
    status: int | None
    failures: int
    since: float
    next_try: float
    now: float


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """A span in which an endpoint, or a single unit of it, could not be read."""

    endpoint: str
    since: float  # Unix seconds
    unit: str | None = None


def source_fails(source: str, failure: Failure, *, how: str, failing: Sequence[tuple[str, str, str]]) -> Notice:
    """The whole source fails; `failing` lists endpoint, unit and reason of each failing unit."""
    named = [{"endpoint": endpoint, "unit": unit, "reason": reason} for endpoint, unit, reason in failing[:NAMED]]
    return Notice(
        kind="source.failing",
        subject=f"sources/{source}",
        summary=f"Source {source} fails: {how}: {clause(failure.reason)}. "
        f"It is tried again at {iso(failure.next_try)}.",
        detail={"scope": "source", **_told(failure), "failing": named},
        time=failure.now,
    )


def endpoint_fails(source: str, failure: Failure, *, how: str) -> Notice:
    """One endpoint fails while the rest of its source is polled."""
    return Notice(
        kind="source.failing",
        subject=f"sources/{source}",
        summary=f"Endpoint {source}/{failure.endpoint} {how}: {clause(failure.reason)}. "
        f"It is tried again at {iso(failure.next_try)}; the other endpoints are polled as usual.",
        detail={"scope": "endpoint", **_told(failure)},
        time=failure.now,
    )


def source_recovered(source: str, *, since: float, now: float, reason: str, missed: Sequence[Missed]) -> Notice:
    """The whole source can be polled again."""
    names = [gone.endpoint for gone in missed]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    unseen = f"; not read meanwhile: {', '.join(names[:NAMED])}{more}" if names else ""
    return Notice(
        kind="source.recovered",
        subject=f"sources/{source}",
        summary=f"Source {source} is back after {_span(now - since)}{unseen}.",
        detail={"scope": "source", "reason": reason, **_lasted(since, now), "missed": _missed(missed, now)},
        time=now,
    )


def endpoint_recovered(
    source: str, endpoint: str, *, since: float, now: float, reason: str, missed: Sequence[Missed]
) -> Notice:
    """One endpoint can be polled again."""
    told = {"scope": "endpoint", "endpoint": endpoint, "reason": reason}
    return Notice(
        kind="source.recovered",
        subject=f"sources/{source}",
        summary=f"Endpoint {source}/{endpoint} is back after {_span(now - since)}.",
        detail={**told, **_lasted(since, now), "missed": _missed(missed, now)},
        time=now,
    )


def gap(source: str, endpoint: str, *, since: float, now: float) -> Notice:
    """An endpoint can be read again after a gap."""
    return Notice(
        kind="gap",
        subject=f"endpoints/{source}/{endpoint}",
        summary=f"Endpoint {source}/{endpoint} could not be read for {_span(now - since)}, from {iso(since)} to "
        f"{iso(now)}: objects that were created and deleted in that time are not known.",
        detail={"from": iso(since), "to": iso(now), "seconds": _whole(now - since)},
        time=now,
    )


def stands_still(source: str, *, since: float, now: float, last_poll: float | None) -> Notice:
    """A stall: nothing is polled although something is due."""
    polled = None if last_poll is None else iso(last_poll)
    told = {"scope": "stall", "reason": "nothing is polled although something is due", "last_poll": polled}
    return Notice(
        kind="source.failing",
        subject=f"sources/{source}",
        summary=f"Source {source} is not polled: something has been due for {_span(now - since)}, and the budget "
        "allows it, but no call was sent.",
        detail={**told, "since": iso(since), "seconds": _whole(now - since)},
        time=now,
    )


def goes_on(source: str, *, since: float, now: float) -> Notice:
    """A source that was not polled is polled again."""
    return Notice(
        kind="source.recovered",
        subject=f"sources/{source}",
        summary=f"Source {source} is polled again after {_span(now - since)} without a poll.",
        detail={"scope": "stall", **_lasted(since, now)},
        time=now,
    )


def budget_throttled(budget: str, *, now: float, until: float, reason: str) -> Notice:
    """The server wants no calls for a time: it refused one because there were too many, or asked for a pause."""
    return Notice(
        kind="budget.throttled",
        subject=f"budgets/{budget}",
        summary=f"Budget {budget} is throttled: {clause(reason)}. No call is sent before {iso(until)}; "
        f"`poller resume {budget}` ends the pause.",
        detail={"reason": reason, "until": iso(until)},
        time=now,
    )


def _told(failure: Failure) -> dict[str, Any]:
    return {
        "reason": failure.reason,
        "status": failure.status,
        "endpoint": failure.endpoint,
        "unit": failure.unit,
        "failures": failure.failures,
        "since": iso(failure.since),
        "next_try": iso(failure.next_try),
    }


def _missed(missed: Sequence[Missed], now: float) -> list[dict[str, Any]]:
    return [
        {"endpoint": gone.endpoint, "from": iso(gone.since), "to": iso(now), "seconds": _whole(now - gone.since)}
        | ({} if gone.unit is None else {"unit": gone.unit})
        for gone in missed
    ]


def _lasted(since: float, now: float) -> dict[str, Any]:
    return {"since": iso(since), "until": iso(now), "seconds": _whole(now - since)}


def _whole(seconds: float) -> int:
    return max(round(seconds), 0)


def _span(seconds: float) -> str:
    """A span for people: 7380.0 as "2 h 3 min"."""
    whole = _whole(seconds)
    for unit, size, part, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {part}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"
