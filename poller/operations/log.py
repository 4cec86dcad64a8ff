"""The event log, read page by page: positions in it, and the events between them."""

from __future__ import annotations

from typing import Final

import msgspec

from poller.operations.places import parse_place
from state.errors import PollerError
from state.records import Event, EventQuery
from state.store import Reader

PAGE: Final = 500_000  # bytes of events after which a page ends


class OtherLog(PollerError):
    """A position in another log, because this one was restored or replaced."""


class Forgotten(PollerError):
    """A position behind which events were deleted, because they were older than the retention."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Some events, and the number after which to read on."""

    events: tuple[Event, ...]
    next: int
    log_id: str
    first: int  # the oldest number that is still in the log; the one after the last if there is none
    is_full: bool  # there may be more events already


def read_batch(reader: Reader, query: EventQuery, limit: int) -> Batch:
    """The next events, about PAGE bytes at most; `next` also steps over those that do not match."""
    last = reader.log.last_seq()  # read before the events, so that newer events are not stepped over
    if query.before is not None:
        last = min(last, query.before - 1)
    events = reader.log.find(query, limit=limit, most_bytes=PAGE)
    is_full = len(events) == limit or sum(len(event.raw) for event in events) >= PAGE
    next_ = events[-1].seq if is_full else max([last, query.after, *(event.seq for event in events[-1:])])
    return Batch(events=tuple(events), next=next_, log_id=reader.log.id, first=first(reader), is_full=is_full)


def read_newest(reader: Reader, query: EventQuery, limit: int) -> Batch:
    """The newest events that match, in order."""
    last = reader.log.last_seq()
    events = reader.log.find(query, limit=limit, newest=True, most_bytes=PAGE)
    return Batch(
        events=tuple(events), next=max(last, query.after), log_id=reader.log.id, first=first(reader), is_full=False
    )


def first(reader: Reader) -> int:
    """The oldest number that is still in the log; the one after the last if there is none."""
    return reader.log.first_seq() or reader.log.last_seq() + 1


def place(reader: Reader, cursor: str | None, *, default: int | None) -> int:
    """The number that a cursor means: `SEQ`, `LOGID-SEQ` as streams give it, or a time. Without a cursor, `default`, or
    the log's end if that is None.

    Raises BadPlace, OtherLog if the cursor cannot belong to this log, and Forgotten if events after a `LOGID-SEQ` are
    no longer in it: whoever reads on from there would miss them without a word.
    """
    last = reader.log.last_seq()
    if cursor is None:
        return last if default is None else default
    log_id, _, number = cursor.rpartition("-")
    found = parse_place(number if log_id and "-" not in log_id and number.isdecimal() else cursor, what="after")
    if isinstance(found, float):
        return reader.log.seq_at(found)
    if (log_id and log_id != reader.log.id) or found > last:
        raise OtherLog(
            f"{cursor[:60]} is a position in another log: this one is {reader.log.id} and ends at {last}",
            hint="the state was restored or replaced: read from the beginning (after=0), or from the end",
        )
    if log_id and found + 1 < (oldest := first(reader)):
        raise Forgotten(
            f"the events {found + 1} to {oldest - 1} after {cursor[:60]} are no longer in the log",
            hint=f"`retention` says how long events are kept: read from the oldest one (after={oldest - 1})",
        )
    return found


def place_before(reader: Reader, text: str | None) -> int | None:
    """The number below which to read: a number itself, or that of the first event from a time on. Raises BadPlace."""
    if text is None:
        return None
    found = parse_place(text, what="before")
    return found if isinstance(found, int) else reader.log.seq_at(found) + 1
