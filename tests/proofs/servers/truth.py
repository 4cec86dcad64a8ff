"""What a list truly was, and whether a log of events tells it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

State = Mapping[str, Any]


class Truth:
    """Every state of every object, in order; None: deleted. `baseline` is what was there before anything changed."""

    def __init__(self, baseline: Mapping[str, State]) -> None:
        self.baseline = dict(baseline)
        self.states: defaultdict[str, list[State | None]] = defaultdict(list)
        self.changes = 0
        for name, state in baseline.items():
            self.states[name].append(state)

    def note(self, name: str, state: State | None) -> None:
        """Note a change that the server has acknowledged."""
        self.states[name].append(state)
        self.changes += 1


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a log tells that never was, and what it leaves out."""

    false: tuple[str, ...]
    missing: tuple[str, ...]


def judge(truth: Truth, events: Iterable[Mapping[str, Any]], fields: Iterable[str]) -> Verdict:
    """Hold a log, folded object by object, against the truth. Only `fields` of an object count.

    An event is false when its object never was so, or not after what was told before. A change is missing when the
    last event of its object does not tell its last state.
    """
    names = tuple(fields)
    place: dict[str, int] = {name: 0 if name in truth.baseline else -1 for name in truth.states}
    false = []
    for event in events:
        name = event["subject"].split("/", 1)[1]
        kind = event["type"].rpartition(".")[2]
        state = None if kind == "deleted" else _only(event["data"]["object"], names)
        at = _next(truth.states.get(name, []), place.get(name, -1) + 1, state, names)
        if at is None:
            false.append(f"{event['type']} {event['subject']}")
        else:
            place[name] = at
    missing = [
        f"{name}: {_only(states[-1], names)}"
        for name, states in truth.states.items()
        if not _is_told(states, place[name], names)
    ]
    return Verdict(false=tuple(false), missing=tuple(missing))


def _next(states: list[State | None], begin: int, wanted: State | None, names: tuple[str, ...]) -> int | None:
    found = [i for i in range(begin, len(states)) if _only(states[i], names) == wanted]
    return found[0] if found else None


def _is_told(states: list[State | None], place: int, names: tuple[str, ...]) -> bool:
    """Whether the last state is the one that was told last; created and deleted in between need not be told."""
    last = _only(states[-1], names)
    told = None if place < 0 else _only(states[place], names)
    return told == last


def _only(state: State | None, names: tuple[str, ...]) -> State | None:
    return None if state is None else {name: state.get(name) for name in names}
