"""Pure: what an operator is told about the health of a source, in one sentence and in detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from poller.events.cloudevents import iso
from state.notices import Notice

NAMED: Final = 10  # units or endpoints that one notice names


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The failure that begins an episode. Times are Unix seconds."""

    endpoint: str
    unit: str
    reason: str
    status: int | None
    failures: int
    since: float
    next_try: float
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """What could not be seen until now; a single unit where the others of its endpoint could."""

    endpoint: str
    since: float  # Unix seconds
    unit: str | None = None


def source_fails(source: str, failure: Failure, *, how: str, failing: Sequence[tuple[str, str, str]]) -> Notice:
    """The whole source fails; `failing` are endpoint, unit and reason of all that does."""
    named = [{"endpoint": endpoint, "unit": unit, "reason": reason} for endpoint, unit, reason in failing[:NAMED]]
    return Notice(
        kind="source.failing",
        subject=f"sources/{source}",
        summary=f"Source {source} fails: {how}: {failure.reason}. It is tried again at {iso(failure.next_try)}.",
        detail={"scope": "source", **_told(failure), "failing": named},
        time=failure.now,
    )


def endpoint_fails(source: str, failure: Failure, *, how: str) -> Notice:
    """One endpoint fails and the rest of its source goes on."""
    return Notice(
        kind="source.failing",
        subject=f"sources/{source}",
        summary=f"Endpoint {source}/{failure.endpoint} {how}: {failure.reason}. "
        f"It is tried again at {iso(failure.next_try)}; the other endpoints go on.",
        detail={"scope": "endpoint", **_told(failure)},
        time=failure.now,
    )


def source_recovered(source: str, *, since: float, now: float, reason: str, missed: Sequence[Missed]) -> Notice:
    """The whole source is back."""
    names = [gone.endpoint for gone in missed]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    unseen = f"; not seen meanwhile: {', '.join(names[:NAMED])}{more}" if names else ""
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
    """One endpoint is back."""
    told = {"scope": "endpoint", "endpoint": endpoint, "reason": reason}
    return Notice(
        kind="source.recovered",
        subject=f"sources/{source}",
        summary=f"Endpoint {source}/{endpoint} is back after {_span(now - since)}.",
        detail={**told, **_lasted(since, now), "missed": _missed(missed, now)},
        time=now,
    )


def gap(source: str, endpoint: str, *, since: float, now: float) -> Notice:
    """An endpoint is seen again that could not be seen."""
    return Notice(
        kind="gap",
        subject=f"endpoints/{source}/{endpoint}",
        summary=f"Endpoint {source}/{endpoint} could not be seen for {_span(now - since)}, from {iso(since)} to "
        f"{iso(now)}: what came and went in between is not known.",
        detail={"from": iso(since), "to": iso(now), "seconds": _whole(now - since)},
        time=now,
    )


def stands_still(source: str, *, since: float, now: float, last_poll: float | None) -> Notice:
    """Nothing is polled though something is due."""
    polled = None if last_poll is None else iso(last_poll)
    told = {"scope": "stall", "reason": "nothing is polled though something is due", "last_poll": polled}
    return Notice(
        kind="source.failing",
        subject=f"sources/{source}",
        summary=f"Source {source} stands still: something is due for {_span(now - since)}, the budget allows it, and "
        "no call left.",
        detail={**told, "since": iso(since), "seconds": _whole(now - since)},
        time=now,
    )


def goes_on(source: str, *, since: float, now: float) -> Notice:
    """A source that stood still is polled again."""
    return Notice(
        kind="source.recovered",
        subject=f"sources/{source}",
        summary=f"Source {source} is polled again after it stood still for {_span(now - since)}.",
        detail={"scope": "stall", **_lasted(since, now)},
        time=now,
    )


def budget_throttled(budget: str, *, now: float, until: float, reason: str) -> Notice:
    """The server wants no call for a time: it refused one because there were too many, or said so beforehand."""
    return Notice(
        kind="budget.throttled",
        subject=f"budgets/{budget}",
        summary=f"Budget {budget} is throttled: {reason}. No call of it leaves before {iso(until)}; "
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
    """7380.0 -> "2 h 3 min"."""
    whole = _whole(seconds)
    for unit, size, part, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {part}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"
