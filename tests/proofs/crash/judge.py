"""Judges from outside what a daemon did that was killed again and again: by its API, its receiver and its log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from state.open import open_reader
from state.records import Event
from tests.proofs.crash.world import Api, Receiver, is_poisoned


def faults(state: Path, api: Api, receiver: Receiver) -> list[str]:
    """Everything that breaks a promise, in words."""
    with open_reader(state) as reader:
        events = [event for event in reader.log.read(limit=10_000_000) if event.source != "/poller"]
        ledgers, dead = reader.deliveries.ledger(), reader.deliveries.subscriptions()[0].dead
        damage = reader.damage()
    found = faults_in(events, api, receiver, dead=dead)
    found += [f"the ledger of {one.subscription} does not balance: {one}" for one in ledgers if not one.balanced]
    return found + ([f"the file is damaged: {damage}"] if damage else [])


def faults_in(events: Sequence[Event], api: Api, receiver: Receiver, *, dead: int) -> list[str]:
    """What the log, the API and the receiver say against each other."""
    return [*_untold(events, api), *_undelivered(events, receiver, dead), *_over(api)]


def _untold(events: Sequence[Event], api: Api) -> Iterator[str]:
    """What the log tells wrongly, or not at all."""
    versions: defaultdict[str, int] = defaultdict(int)
    known: dict[str, dict[str, Any]] = {}
    if len({event.id for event in events}) != len(events):
        yield "an event's id is in the log twice"
    for event in events:
        versions[event.subject] += 1
        kind, obj, number = event.type.rpartition(".")[2], dict(event.data["object"]), int(event.subject.split("/")[1])
        what = f"#{event.seq} {event.type} {event.subject} version {event.data['version']}"
        if event.data["version"] != versions[event.subject]:
            yield f"{what}: it should be version {versions[event.subject]}"
        if obj not in api.history[number]:
            yield f"{what}: {obj} never was"
        if (event.subject in known) == (kind == "created"):
            yield f"{what}: known was {known.get(event.subject)}"
        if kind == "updated" and known.get(event.subject) == obj:
            yield f"{what}: nothing changed"
        if kind == "deleted":
            known.pop(event.subject, None)
            if None not in api.history[number][1:]:
                yield f"{what}: it never went"
        else:
            known[event.subject] = obj
    truth = {f"things/{number}": thing for number, thing in api.things.items()}
    for subject in truth.keys() | known.keys():
        if truth.get(subject) != known.get(subject):
            yield f"{subject} is {truth.get(subject)} and told as {known.get(subject)}"


def _undelivered(events: Sequence[Event], receiver: Receiver, dead: int) -> Iterator[str]:
    """What was delivered wrongly, or not at all."""
    wanted = {event.id: event for event in events}
    first = list(dict.fromkeys(event["id"] for event in receiver.accepted))
    yield from (f"{id_} was delivered and is not in the log" for id_ in first if id_ not in wanted)
    poisoned = {event.id for event in events if is_poisoned(event.subject)}
    lost = wanted.keys() - set(first) - poisoned
    if lost:
        yield f"{len(lost)} events were never accepted by the receiver: {sorted(wanted[i].seq for i in lost)[:5]}"
    if dead != len(poisoned):
        yield f"{dead} dead letters, and the receiver has refused {len(poisoned)} events for good"
    latest: dict[str, int] = {}
    for id_ in first:
        if (event := wanted.get(id_)) is not None:
            if latest.get(event.subject, 0) > event.seq:
                yield f"#{event.seq} of {event.subject} was delivered after #{latest[event.subject]}"
            latest[event.subject] = event.seq
    for given in receiver.accepted:
        if (known := wanted.get(given["id"])) is not None and given["data"]["object"] != known.data["object"]:
            yield f"#{known.seq} was delivered with other content than the log has"


def _over(api: Api) -> Iterator[str]:
    if api.refused:
        yield f"{api.refused} calls were refused"
    yield from (
        f"{most} calls in {seconds:g} s, {calls} allowed" for most, calls, seconds in api.worst() if most > calls
    )
