"""Events as CloudEvents 1.0 in structured JSON (https://github.com/cloudevents/spec, JSON event format). Pure.

The data of an event is stored as JSON bytes and inserted unchanged; it is parsed only if it must be shortened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from math import modf
from typing import Final

import msgspec
import orjson

from state.records import Event

CONTENT_TYPE: Final = "application/cloudevents+json"
BATCH_CONTENT_TYPE: Final = "application/cloudevents-batch+json"
SUBJECT: Final = 512  # characters; longer ones are shortened where events have a limit
LIMIT: Final = 64 * 1024  # bytes that intermediaries must forward; consumers need not accept more
FIRST: Final = -62_135_510_400.0  # Unix seconds: the second day of year 1 and the last but one of 9999,
LAST: Final = 253_402_214_400.0  # which every time zone can name

_Raws = dict[str, msgspec.Raw]
_TRUE: Final = msgspec.Raw(b"true")
_BRACE: Final = ord("{")
_WIDTHS: Final = (4096, 1024, 256, 64, 0)  # bytes allowed for a single value, tried in turn


def structured(event: Event, *, limit: int | None = LIMIT) -> bytes:
    """The event as one JSON document of at most `limit` bytes; a larger event is shortened, which its data says."""
    if limit is None:
        return _head(event, event.subject) + event.raw + b"}"
    subject = _fitting(event.subject)
    head = _head(event, subject)
    if subject is event.subject and len(head) + len(event.raw) + 1 <= limit:
        return head + event.raw + b"}"
    return head + _cut(event.raw, limit - len(head) - 1) + b"}"


def batched(events: Iterable[Event]) -> bytes:
    """The events as one JSON array (content mode "batched")."""
    return b"[" + b",".join(structured(event) for event in events) + b"]"


def iso(time: float) -> str:
    """Unix seconds as RFC 3339 text in UTC with milliseconds, clamped to the years 1 to 9999."""
    fraction, second = modf(min(max(time, FIRST), LAST))
    micros = round(fraction * 1e6)  # as `datetime` rounds
    second += micros // 1_000_000
    return f"{_second(int(second))}.{micros % 1_000_000 // 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def _fitting(subject: str) -> str:
    """The subject; one that is too long, as an id may be, becomes its start and a digest of the whole."""
    if len(subject) <= SUBJECT:
        return subject
    return f"{subject[:SUBJECT]}…{blake2b(subject.encode(), digest_size=8).hexdigest()}"


def _head(event: Event, subject: str) -> bytes:
    """All attributes before the data, in the order of docs/events.md."""
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": subject,
        "time": iso(event.time),
        "datacontenttype": "application/json",
        "sequence": event.sequence,
    }
    if event.observed_after is not None:
        attributes["observedafter"] = iso(event.observed_after)
    return orjson.dumps(attributes)[:-1] + b',"data":'


def _cut(raw: bytes, room: int) -> bytes:
    """The data without its longest values, shortened no more than necessary. Remaining values keep their bytes."""
    members = msgspec.json.decode(raw, type=_Raws)
    members["truncated"] = _TRUE
    if len(whole := msgspec.json.encode(members)) <= room:
        return whole
    for width in _WIDTHS:
        cut = msgspec.json.encode({name: _narrow(name, value, width) for name, value in members.items()})
        if len(cut) <= room:
            return cut
    return _bare(members, room)


def _narrow(name: str, value: msgspec.Raw, width: int) -> object:
    """One member of the data: of the object and of changes, only values of up to `width` bytes."""
    if name == "changes":
        return [_kept(change, width) for change in msgspec.json.decode(value, type=list[_Raws])]
    if memoryview(value)[0] == _BRACE:
        return _kept(msgspec.json.decode(value, type=_Raws), width)
    return value


def _kept(members: Mapping[str, msgspec.Raw], width: int) -> _Raws:
    """The members that are short enough; identifying members (`id`, `path`) always stay."""
    return {
        name: value for name, value in members.items() if len(value) <= width or name == "path" or _names(name, value)
    }


def _names(name: str, value: msgspec.Raw) -> bool:
    return name == "id" and len(value) <= 1024


def _bare(members: Mapping[str, msgspec.Raw], room: int) -> bytes:
    """As many paths as fit, for data whose paths alone are too long."""
    small = _first(
        {name: value for name, value in members.items() if len(value) <= 64 and name != "changes"}, room // 2
    )
    paths = [
        {"path": change["path"]}
        for change in msgspec.json.decode(members.get("changes", msgspec.Raw(b"[]")), type=list[_Raws])
    ]
    fitting: list[_Raws] = []
    left = room - len(msgspec.json.encode({**small, "changes": []}))
    for path in paths:
        left -= len(path["path"]) + len('{"path":},')
        if left < 0:
            break
        fitting.append(path)
    return msgspec.json.encode({**small, "changes": fitting} if paths else small)


def _first(members: _Raws, room: int) -> _Raws:
    """As many of the first members as fit, always including the one that says that the event was shortened."""
    fitting = {"truncated": _TRUE}
    left = room - len('{"truncated":true}')
    for name, value in members.items():
        left -= len(msgspec.json.encode(name)) + len(value) + 2
        if left < 0:
            break
        fitting[name] = value
    return fitting
