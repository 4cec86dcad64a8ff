"""What a source plugin is: it describes requests and reads answers; the engine does everything else.

A source is sans-I/O. It builds `httpx.Request`s and parses `httpx.Response`s, so it cannot spend a call and
cannot break the budget. The engine adds budget, conditional headers, limits on answers and retries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import httpx
import msgspec
from pydantic import BaseModel

from poller.budget.limits import Limit
from state.errors import PollerError


class PageError(PollerError):
    """An answer that is not what this endpoint's list looks like: set aside, nothing is concluded from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where in a list a request begins. The fields may be mixed; a position without any is the whole list.

    A `page` or an `offset` is a unit of its own. A `cursor` (a token or an opaque next URL) continues the
    unit that it was found in: the chain is polled as one unit.
    """

    page: int | None = None
    offset: int | None = None
    cursor: str | None = None
    since: float | None = None  # only what changed since then (Unix seconds), overlap included
    parent: Mapping[str, Any] | None = None  # the parent object whose list this is


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One list that a source offers, and what it promises.

    `id` names the identity of an object: a key, a dotted path ("data.id") or JSONPath, several of them
    (composite), or "content": an object is its content and an edit is a deletion and a creation.
    """

    name: str
    id: str | tuple[str, ...] = "id"
    first: Position = Position()  # the whole list from its beginning
    parent: str | None = None  # name of the endpoint whose objects each have such a list
    order: Literal["id", "newest", "any"] = "any"  # `id`: ascending, new objects at the end
    since: bool = False  # Position(since=...) is understood: only objects changed since then
    since_field: str | None = None  # the objects' modification time (dotted path), where they tell it
    overlap: float = 120.0  # seconds that a since query reaches back behind the last one
    empty_status: tuple[int, ...] = ()  # statuses of an answer that stand for an empty list (404 of a childless parent)
    accept_status: tuple[int, ...] = ()  # statuses that `page` reads, beside 200, 201 and 203
    page_headers: tuple[str, ...] = ()  # headers that say where the list goes on: a page is unchanged if they are, too
    ignore: tuple[str, ...] = ()  # JSON Pointers, `*` for one step: kept, but no reason for an event
    exclude: tuple[str, ...] = ()  # never stored, never sent
    unordered: tuple[str, ...] = ()  # arrays compared as sets
    deleted_when: str | None = None  # CEL over `object`: a soft deletion
    normalise: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # pure; before anything is compared


@dataclass(frozen=True, slots=True)
class Page:
    """What one answer showed. Objects may be left unparsed (`msgspec.Raw`): unchanged ones never are parsed."""

    objects: Sequence[Mapping[str, Any] | msgspec.Raw]
    next: Position | None = None  # None: this was the last page
    total: int | None = None  # objects in the whole list, where the answer says so
    doubts: Sequence[str] = ()  # what in the answer says that the list may be longer than it shows: sentences
    guesses: Sequence[str] = ()  # the same by members whose meaning is guessed: they keep no baseline open for good


@dataclass(frozen=True, slots=True)
class Unparsed(Page):
    """A page of unparsed objects, as the engine takes it from every source."""

    objects: Sequence[msgspec.Raw]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is known of an object whose own URL is asked for."""

    object: Mapping[str, Any] | None = None  # as it was last seen
    parent: Mapping[str, Any] | None = None  # the parent object in whose list it was


class Source(Protocol):
    """One account of one API. Built once per `[sources.NAME]` as `Source(name, options)`.

    `auth`, `item_request` and `discover` may be left out where there is nothing of the kind.

    `page` raises `PageError` for an answer that is not the list it should be. A status that is not 2xx never
    reaches it. Everything here must be quick and free of side effects; it is called on the event loop.
    """

    Options: ClassVar[type[BaseModel]]
    limits: Sequence[Limit]
    auth: httpx.Auth | None

    def endpoints(self) -> Sequence[Endpoint]:
        """Every list that this source offers and the configuration chose."""
        ...

    def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
        """The request for the list from `at` on."""
        ...

    def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
        """What a 2xx answer shows. Raises PageError."""
        ...

    def item_request(self, endpoint: Endpoint, object_id: str) -> httpx.Request | None:
        """The object's own URL, whose 404 or 410 alone confirms a deletion. None: two complete sweeps do.

        A source whose URLs need more than the id takes a third argument, `item: Item`. Of a 2xx answer the object is
        read that has the id: the answer itself, or one within it.
        """
        ...

    def discover(self) -> Generator[httpx.Request, httpx.Response, None]:
        """What must be asked before the first poll (a company's id). Sent each answer in turn. Raises PageError."""
        ...
