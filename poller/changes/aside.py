"""Objects of an answer that cannot be used are set aside, each with its index and, if known, its id. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import msgspec

from poller.documents.diff import ParseError, parse
from poller.rendering.counting import counted

NAMED: Final = 5  # objects named in one note
SHOWN: Final = 200  # characters of an id in it


class SetAside(msgspec.Struct, frozen=True, kw_only=True):
    """An object that cannot be used."""

    why: str  # "without an id", "with NaN or Infinity"
    digest: bytes
    object_id: str | None  # None: not known, so it may be any object

    def noted(self, digests: Sequence[bytes]) -> str:
        """Its index among the objects of the answer, counted from 0, and its id."""
        place = f"index {digests.index(self.digest)}"
        if self.object_id is None:
            return place
        more = "…" * (len(self.object_id) > SHOWN)
        return f"{place}: {self.object_id[:SHOWN]}{more}"


def id_of_unreadable(identify: Callable[[Mapping[str, Any]], str | None], raw: bytes) -> str | None:
    """The id of an object of which other texts cannot be read."""
    try:
        value = parse(raw.decode("utf-8", "replace").encode())
    except ParseError:
        return None
    found = identify(value) if isinstance(value, dict) else None
    return None if found is None or "\ufffd" in found else found


def summary_of(aside: Iterable[SetAside]) -> str:
    """How many objects are set aside, and why."""
    grouped = groupby(sorted(aside, key=attrgetter("why")), key=attrgetter("why"))
    return ", ".join(f"{counted(len([*some]), 'object')} {why}" for why, some in grouped)


def note_of(aside: Sequence[SetAside], digests: Sequence[bytes]) -> str:
    """The summary for an operator, with the indexes of the first few."""
    places = ", ".join(one.noted(digests) for one in aside[:NAMED])
    more = ", ..." if len(aside) > NAMED else ""
    return f"{summary_of(aside)} set aside ({places}{more})"
