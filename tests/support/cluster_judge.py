"""The judge of many workers: what an API counted and receivers were given, held against what really was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from tests.support.cluster import Api, Receiver

Event = dict[str, Any]
Place = tuple[str, int]  # a key of the API, and an object in its list


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Everything that must not be, in words."""

    lost: tuple[str, ...] = ()  # what a subscription does not know, or was never told
    invented: tuple[str, ...] = ()  # what was told and never was
    out_of_order: tuple[str, ...] = ()  # of one object, by the order of first receipt
    exceeded: tuple[str, ...] = ()  # windows of a key, by the API's own count
    unbalanced: tuple[str, ...] = ()  # subscriptions whose books do not balance

    def __str__(self) -> str:
        return ", ".join(f"{len(getattr(self, one.name))} {one.name.replace('_', ' ')}" for one in fields(self))

    @property
    def all(self) -> list[str]:
        """Each of them, with its kind."""
        return [f"{one.name.replace('_', ' ')}: {fault}" for one in fields(self) for fault in getattr(self, one.name)]


def judge(api: Api, receiver: Receiver, subscriptions: Iterable[str], *, unbalanced: Iterable[str] = ()) -> Faults:
    """Every subscription must know every object as it is, by every version once and in order."""
    lost, invented, out_of_order = [], [], []
    for name in subscriptions:
        told: dict[Place, Event] = {}
        for event in receiver.events[name]:
            place = event["source"].removeprefix("/sources/"), event["data"]["object"]["id"]
            where = f"{name}: {place[0]}/{place[1]}"
            version, n, before = event["data"]["version"], _n(event), told.get(place)
            latest = 0 if before is None else before["data"]["version"]
            if version <= latest:
                out_of_order.append(f"{where}: version {version} after {latest}")
            elif version > latest + 1:
                lost.append(f"{where}: version {version} after {latest}")
            if n > api.states.get(place, 0) or (before is not None and version > latest and n <= _n(before)):
                invented.append(f"{where}: {n} at version {version}, after {0 if before is None else _n(before)}")
            told[place] = event if version > latest or before is None else before
        lost += [
            f"{name}: {key}/{number} is {n}, and known as {_n(told[key, number]) if (key, number) in told else 0}"
            for (key, number), n in api.states.items()
            if n and ((key, number) not in told or _n(told[key, number]) != n)
        ]
    return Faults(
        lost=tuple(lost),
        invented=tuple(invented),
        out_of_order=tuple(out_of_order),
        exceeded=tuple(api.exceeded),
        unbalanced=tuple(unbalanced),
    )


def _n(event: Event) -> int:
    """How often the object had been changed."""
    return int(event["data"]["object"]["n"])
