"""Rows of tables as records, for every store that keeps them in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import UNSET

from state.deliveries import Delivery, Job, SinkHealth, SubscriptionState
from state.polls import EndpointState, Marks, Presence, Snapshot, Suspect, UnitState
from state.records import Event

EVENT: Final = "seq, id, source, type, subject, time, observed_after, data"  # the columns of `event_of`

_PENDING: Final = (
    "SELECT 1 FROM lanes l CROSS JOIN deliveries d WHERE l.subscription = s.id AND d.subscription = s.id "
    "AND d.lane = l.lane AND d.state = 'pending'"
)

_ENDPOINT_FIELDS: Final = EndpointState.__struct_fields__
_UNIT_FIELDS: Final = UnitState.__struct_fields__
ENDPOINT: Final = ", ".join(_ENDPOINT_FIELDS)
UNIT: Final = ", ".join(_UNIT_FIELDS)


def room(limit: str, now: str) -> str:
    """SQL for how many more deliveries of a subscription `s` may become pending, as `PENDING_LIMIT` says."""
    return f"""CASE
WHEN s.pending < {limit} - {limit} / 20 OR s.pending >= 10 * {limit}
    OR (SELECT count(*) FROM ({_PENDING} AND l.due > {now} LIMIT {limit} / 2) p) < {limit} / 2
THEN {limit} - s.pending
ELSE {limit} - (SELECT count(*) FROM ({_PENDING} AND l.due <= {now} LIMIT {limit}) p) END"""


def event_of(row: Sequence[Any]) -> Event:
    """The record of a row of EVENT."""
    seq, id_, source, type_, subject, time, observed_after, data = row
    return Event(
        seq=seq,
        id=id_,
        source=source,
        type=type_,
        subject=subject,
        time=time,
        observed_after=observed_after,
        raw=data,
    )


def endpoint_of(row: Sequence[Any]) -> EndpointState:
    """The record of a row of ENDPOINT."""
    return EndpointState(**dict(zip(_ENDPOINT_FIELDS, row, strict=True)))


def marked(marks: Marks) -> dict[str, Any]:
    """The columns of an endpoint's row that a recording sets, with their new values."""
    began, order = marks.begin_sweep or (None, None)
    times = {
        "since_at": marks.since_at,
        "sweep_began": began,
        "sweep_order": order,
    }
    others = {"tail_asked_at": marks.tail_asked_at, "held": marks.held, "accepted": marks.accepted}
    return {name: value for name, value in times.items() if value is not None} | {
        name: value for name, value in others.items() if value is not UNSET
    }


def unit_of(row: Sequence[Any]) -> UnitState:
    """The record of a row of UNIT."""
    return UnitState(**dict(zip(_UNIT_FIELDS, row, strict=True)))


SUSPECT: Final = (  # the columns of `suspect_of`
    "object, version, body, unit, seen_at, presence, seen_sweep, missing_at, missing_sweep, checks, "
    "CASE WHEN denied_at >= missing_at THEN denied_at END"
)


def suspect_of(row: Sequence[Any]) -> Suspect:
    """The record of a suspect. A denial from before it went missing again does not count."""
    missing_at, missing_sweep, checks, denied_at = row[7:]
    return Suspect(
        snapshot=snapshot_of(row[:7]),
        missing_at=missing_at or 0.0,
        missing_sweep=missing_sweep or 0,
        checks=checks,
        denied_at=denied_at,
    )


def snapshot_of(row: Sequence[Any]) -> Snapshot:
    """The record of a row of an object: id, version, body, unit, when and in which sweep it was seen, presence."""
    object_id, version, body, unit, seen_at, presence, seen_sweep = row
    return Snapshot(
        object_id=object_id,
        version=version,
        body=body,
        unit=unit,
        seen_at=seen_at,
        presence=Presence(presence),
        seen_sweep=seen_sweep,
    )


def job_of(row: Sequence[Any]) -> Job:
    """The record of a row of a delivery to be made: id, attempts, retries, refusals, digest, the event."""
    id_, attempts, retries, refusals, _, *event = row
    return Job(id=id_, event=event_of(event), attempts=attempts, retries=retries, refusals=refusals)


def subscription_of(row: Sequence[Any], last: int) -> SubscriptionState:
    """The record of a row of a subscription, as `DeliveryReader.subscriptions` selects it; the log ends at `last`."""
    name, state, reason, cursor, pending, failures, open_until, wait, error, filter_errors, filter_error, *rest = row
    dead, probe = rest
    return SubscriptionState(
        name=name,
        state="failing" if state == "active" and open_until is not None else state,
        reason=reason,
        cursor=cursor,
        lag=pending + max(0, last - cursor),
        pending=pending,
        dead=dead,
        health=SinkHealth(failures=failures, open_until=open_until, wait=wait, last_error=error),
        filter_errors=filter_errors,
        filter_error=filter_error,
        next_probe=probe,
    )


def delivery_of(row: Sequence[Any]) -> Delivery:
    """The record of a row of a delivery, as `DeliveryReader.deliveries` selects it."""
    id_, name, seq, origin, state, event_id, type_, source, subject, attempts, queued, due, finished, *rest = row
    status, digest = rest
    return Delivery(
        id=id_,
        subscription=name,
        seq=seq,
        origin=origin,
        state=state,
        event_id=event_id or "",
        event_type=type_ or "",
        event_source=source or "",
        event_subject=subject or "",
        attempts=attempts,
        queued_at=queued,
        due=due,
        finished_at=finished,
        status=status,
        digest=digest,
    )
