"""The contract of source plugins: they describe requests and read answers; the engine does everything else.

A source is sans-I/O. It builds `httpx.Request`s and parses `httpx.Response`s, so it cannot spend a call and cannot
break the budget. The engine adds budget, conditional headers, limits on answers and retries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, Protocol

import httpx
import msgspec
from pydantic import BaseModel

from poller.budget.limits import Limit
from state.errors import PollerError


class PageError(PollerError):
    """An answer that does not have the form of this endpoint's list. It is set aside, and nothing is concluded
    from it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position in a list at which a request begins. Fields may be combined; a position without any is the whole
    list.

    A `page` or an `offset` is a separate unit. A `cursor` (a token or an opaque next URL) continues the unit that it
    was found in: the chain is polled as one unit.
    """

    page: int | None = None
    offset: int | None = None
    cursor: str | None = None
    since: float | None = None  # only objects changed since then (Unix seconds), including the overlap
    parent: Mapping[str, Any] | None = None  # the parent object whose list this is


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One list that a source offers, and its properties.

    `id` identifies an object: a key, a dotted path ("data.id") or JSONPath, several of them (composite), or "content":
    an object is its content, and an edit is a deletion and a creation.
    """

    name: str
    _: KW_ONLY
    id: str | tuple[str, ...] = "id"
    first: Position = Position()  # the whole list from its beginning
    parent: str | None = None  # name of the endpoint whose objects each have such a list
    order: Literal["id", "newest", "any"] = "any"  # `id`: ascending, new objects at the end
    since: bool = False  # Position(since=...) is understood: only objects changed since then
    since_field: str | None = None  # the objects' modification time (dotted path), if they have one
    overlap: float = 120.0  # seconds by which a since query overlaps the previous one
    empty_status: tuple[int, ...] = ()  # statuses that mean an empty list (404 for a parent without children)
    accept_status: tuple[int, ...] = ()  # further statuses that `page` reads, besides 200, 201 and 203
    page_headers: tuple[str, ...] = ()  # headers that name the next page: a page is unchanged only if they are as well
    ignore: tuple[str, ...] = ()  # JSON Pointers, `*` for one step: stored, but changes cause no event
    exclude: tuple[str, ...] = ()  # never stored, never sent
    unordered: tuple[str, ...] = ()  # arrays compared as sets
    deleted_when: str | None = None  # CEL over `object`: a soft deletion
    normalise: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # pure; before anything is compared


@dataclass(frozen=True, slots=True)
class Page:
    """The objects of one answer. They may be left unparsed (`msgspec.Raw`); unchanged ones are then never parsed."""

    objects: Sequence[Mapping[str, Any] | msgspec.Raw]
    next: Position | None = None  # None: this was the last page
    total: int | None = None  # objects in the whole list, if the answer says so
    doubts: Sequence[str] = ()  # sentences: why the list may be longer than it shows
    guesses: Sequence[
        str
    ] = ()  # the same by members whose meaning is guessed: they do not keep a baseline open for ever
    guessed_total: tuple[str, int] | None = None  # a member of the last answer that seems to count all objects
    beyond: Position | None = None  # where a list would go on that ends here only because the page is short


class Unparsed(msgspec.Struct, frozen=True):
    """A page of unparsed objects, the form in which the engine takes it from every source. See `Page`."""

    objects: Sequence[msgspec.Raw]
    next: Position | None = None
    total: int | None = None
    doubts: Sequence[str] = ()
    guesses: Sequence[str] = ()
    guessed_total: tuple[str, int] | None = None
    beyond: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is known of an object whose own URL is requested."""

    object: Mapping[str, Any] | None = None  # the object as it was last seen
    parent: Mapping[str, Any] | None = None  # the parent object whose list it was in


class Source(Protocol):
    """One account of one API. Built once per `[sources.NAME]` as `Source(name, options)`.

    `auth`, `item_request` and `discover` are optional.

    `page` raises `PageError` for an answer that does not have the form of the list. It is only called for 2xx statuses.
    All methods must be quick and free of side effects; they are called on the event loop.
    """

    Options: ClassVar[type[BaseModel]]
    limits: Sequence[Limit]
    auth: httpx.Auth | None

    def endpoints(self) -> Sequence[Endpoint]:
        """Every list that this source offers and the configuration has chosen."""
        ...

    def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
        """The request for the list from position `at` on."""
        ...

    def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
        """The page of a 2xx answer. Raises PageError."""
        ...

    def item_request(self, endpoint: Endpoint, object_id: str) -> httpx.Request | None:
        """The object's own URL; if there is one, only its 404 or 410 confirms a deletion. None: two complete sweeps do.

        A source whose URLs need more than the id takes a third argument, `item: Item`. In a 2xx answer the object with
        this id is read: the answer itself, or an object within it.
        """
        ...

    def discover(self) -> Generator[httpx.Request, httpx.Response, None]:
        """Requests that must be made before the first poll (a company's id). Each answer is sent to the generator.
        Raises PageError.
        """
        ...
