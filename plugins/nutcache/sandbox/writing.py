"""Writes of time entries, the only records that the API allows to be written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import orjson

from plugins.nutcache.sandbox import drafts
from plugins.nutcache.sandbox.exchange import Refusal
from plugins.nutcache.sandbox.filtering import instant
from plugins.nutcache.sandbox.variants import Variants
from plugins.nutcache.sandbox.world import Record, World

_ENVELOPE = "timeentries"  # writes keep the resource's old name
_FIELDS = frozenset(
    "start_time end_time note project_service member project invoice working_date minutes billable_minutes".split()  # noqa: SIM905
)


def create(world: World, company: int, body: bytes) -> Record:
    """Create a time entry. Raises Refusal."""
    given = _given(world, company, body)
    for name in ("project", "member"):
        if given.get(name) is None:
            raise Refusal(400, f"{name} is required.")
    if given.get("minutes") is None:
        raise Refusal(400, "minutes (or start_time and end_time) are required.")
    values = {
        "working_date": drafts.day_text(drafts.local_day(world.now)),
        "billable_minutes": 0,
        "creation_date": round(world.now, 3),
        "creation_userprofile": given["member"],
        **given,
    }
    return world.add("time_entries", values)


def edit(world: World, entry: Record, body: bytes, variants: Variants) -> None:
    """Set the given fields of a time entry. Raises Refusal."""
    _check_free(entry, variants)
    given = _given(world, entry.company, body)
    if given.get("project", entry["project"]) != entry["project"]:
        given |= {"project_service": given.get("project_service")}
    world.change(entry, **given)


def delete(world: World, entry: Record, variants: Variants) -> None:
    """Delete a time entry. Raises Refusal."""
    _check_free(entry, variants)
    world.remove(entry)


def _check_free(entry: Record, variants: Variants) -> None:
    if entry["invoice"] is not None:
        raise Refusal(int(variants.write_refusal), "The time entry is on an invoice.")


def _given(world: World, company: int, body: bytes) -> dict[str, Any]:
    try:
        wrapped = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"The body is not JSON: {error}") from error
    entries = wrapped.get(_ENVELOPE) if isinstance(wrapped, dict) else None
    if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
        raise Refusal(400, f"The body wraps one object in an array {_ENVELOPE}.")
    unknown = entries[0].keys() - _FIELDS
    if unknown:
        raise Refusal(400, f"{min(unknown)} cannot be written.")
    return _checked(world, company, entries[0])


def _checked(world: World, company: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: None if value == "" else value for name, value in entry.items()}
    _check_references(world, company, values)
    try:
        if values.get("working_date") is not None:
            values["working_date"] = date.fromisoformat(str(values["working_date"])[:10]).isoformat()
        _span(values)
    except ValueError as error:
        raise Refusal(400, str(error)) from error
    for name in ("minutes", "billable_minutes"):
        minutes = values.get(name, 0)
        if not isinstance(minutes, int) or isinstance(minutes, bool) or minutes < 0:
            raise Refusal(400, f"{name} is not a number of minutes.")
    return values


def _check_references(world: World, company: int, values: Mapping[str, Any]) -> None:
    for name, table in (("project", "projects"), ("member", "members"), ("project_service", "project_services")):
        value = values.get(name)
        if value is None:
            continue
        found = world.tables[table].get(value) if isinstance(value, int) else None
        if found is None or found.company != company:
            raise Refusal(400, f"There is no {name} {value}.")
    if values.get("invoice") is not None:
        raise Refusal(400, "Invoices take time entries by being written.")


def _span(values: dict[str, Any]) -> None:
    """The day and the minutes between a start and an end."""
    start, end = values.get("start_time"), values.get("end_time")
    if start is None or end is None:
        return
    values["start_time"], values["end_time"] = instant(str(start)), instant(str(end))
    minutes = int((values["end_time"] - values["start_time"]) / 60)
    if minutes < 0:
        raise ValueError("end_time is before start_time.")
    values.setdefault("minutes", minutes)
    values.setdefault("working_date", str(start)[:10])
