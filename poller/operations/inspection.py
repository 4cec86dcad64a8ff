"""Inspection of one endpoint through its API: its requests, its answers, and contradictions to the configuration.

Nothing is recorded. An inspection makes at most six calls, each paid from the budget like any other.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import httpx
import msgspec

from poller.changes.comparison import PageComparison
from poller.changes.own_url import own_object
from poller.changes.page import compare
from poller.documents.diff import ParseError, parse
from poller.polling.boundary import failed_poll, reason_of
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.fetch import unwelcome
from poller.polling.own_urls import GONE
from poller.polling.source import ActiveSource
from poller.rendering.counting import counted
from poller.rendering.event_view import name_of
from poller.sources.errors import FetchError
from poller.sources.pagination import COMMON_CAPS
from poller.sources.protocol import Endpoint, Item, PageError, Position, Unparsed
from poller.sources.statuses import is_list
from poller.sources.urls import shown_url

EXAMPLES: Final = 5  # ids shown of a page


class PageLook(msgspec.Struct, frozen=True, kw_only=True):
    """One page as the API answered it."""

    request: str  # method and URL, without secrets
    objects: int
    ids: tuple[str, ...]  # the first few ids
    next: str | None  # the position of the next page, as text
    total: int | None  # objects in the whole list, according to the answer
    doubts: tuple[str, ...] = ()  # contradictions to the configuration, and what was set aside


class ItemLook(msgspec.Struct, frozen=True, kw_only=True):
    """One object's own URL as the API answered it."""

    request: str
    status: int


class Inspection(msgspec.Struct, kw_only=True):
    """The result of inspecting one endpoint."""

    endpoint: str  # source/endpoint
    pages: list[PageLook] = []
    example: str | None = None  # id of one object
    example_name: str | None = None
    item: ItemLook | None = None
    calls_per_sweep: int | None = None  # None: not known before a sweep
    doubts: list[str] = []
    problem: str | None = None  # why the inspection failed or is incomplete
    hint: str | None = None
    status: int | None = None  # status of the answer that the problem is about


async def inspect_all(sources: Iterable[ActiveSource]) -> AsyncIterator[Inspection]:
    """Inspect every endpoint of sources that may not have completed their discovery yet."""
    for active in sources:
        if (failed := await _discovered(active)) is not None:
            yield failed
            continue
        for w in active.endpoints.values():
            yield await inspect(active, w)


async def _discovered(active: ActiveSource) -> Inspection | None:
    """Make the calls that the source needs first; returns what prevents them."""
    found = Inspection(endpoint=f"sources.{active.name}")
    try:
        await active.source.discover(active.ask)
    except Exception as error:
        if not _failed(found, error, active):
            raise
        return found
    active.discovery.is_done = True
    return None


async def inspect(active: ActiveSource, w: WatchedEndpoint) -> Inspection:
    """Read one page, a second one and a page 0 if there are any, and one object's own URL. Failures are part of the
    result.
    """
    found = Inspection(endpoint=w.label)
    try:
        at = await _first(active, w)
        if at is None:
            found.problem = f"its parent list {w.rules.endpoint.parent!r} shows no object"
            return found
        first, comparison = await _page(active, w, at, found)
        found.calls_per_sweep = _calls(first)
        if first.next is not None:
            await _second(active, w, at, first, comparison, found)
        elif first.beyond is not None:
            await _beyond(active, w, at, first, comparison, found)
        elif len(first.objects) in COMMON_CAPS and first.total is None:
            found.doubts.append(
                f"exactly {len(first.objects)} objects and no next page: if the list has more, see `pagination`"
            )
        await _zero(active, w, at, comparison, found)
        await _item(active, w, at, comparison, found)
    except Exception as error:
        if not _failed(found, error, active):
            raise
    return found


def _failed(found: Inspection, error: Exception, active: ActiveSource) -> bool:
    """Record in the result why the API could not be asked. False for another kind of error."""
    failure = failed_poll(error, source=active.name)
    if failure is None:
        return False
    found.problem, found.hint = reason_of(failure), failure.hint
    found.status = getattr(failure, "status", None)
    return True


async def _first(active: ActiveSource, w: WatchedEndpoint) -> Position | None:
    """The beginning of the list; for a list per parent that of the first parent."""
    endpoint = w.rules.endpoint
    if endpoint.parent is None:
        return endpoint.first
    parents = active.endpoints.get(endpoint.parent)
    begin = None if parents is None else await _first(active, parents)
    if parents is None or begin is None:
        return None
    page = await _asked(active, parents.rules.endpoint, begin)
    objects = [_object(item) for item in page.objects[:1]]
    return replace(endpoint.first, parent=objects[0]) if objects else None


async def _asked(active: ActiveSource, endpoint: Endpoint, at: Position) -> Unparsed:
    response = await active.ask(await active.source.request(endpoint, at))
    if not is_list(response.status_code, endpoint):
        raise unwelcome(response)
    return await active.source.page(endpoint, at, response)


async def _page(
    active: ActiveSource, w: WatchedEndpoint, at: Position, found: Inspection
) -> tuple[Unparsed, PageComparison]:
    request = await active.source.request(w.rules.endpoint, at)
    page = await _asked(active, w.rules.endpoint, at)
    comparison = await active.apart(compare, w.rules, page.objects, {})
    found.pages.append(
        PageLook(
            request=f"{request.method} {shown_url(request.url)}",
            objects=len(page.objects),
            ids=tuple(comparison.members.values())[:EXAMPLES],
            next=None if page.next is None else _place(page.next),
            total=page.total,
            doubts=(*page.doubts, *page.guesses, *comparison.notes),
        )
    )
    found.doubts += [doubt for doubt in found.pages[-1].doubts if doubt not in found.doubts]
    if found.example is None and comparison.fresh:
        shown = comparison.fresh[0]
        found.example, found.example_name = shown.object_id, name_of(await active.apart(shown.parsed))
    return page, comparison


async def _second(
    active: ActiveSource, w: WatchedEndpoint, at: Position, first: Unparsed, before: PageComparison, found: Inspection
) -> None:
    assert first.next is not None
    second, comparison = await _page(active, w, replace(first.next, parent=at.parent), found)
    if at.offset is not None and first.total is None and not second.objects:
        found.doubts.append(
            f"exactly {counted(len(first.objects), 'object')} on the first page and none on the second: if the list "
            'has more, the API may count pages where `type = "offset"` counts objects'
        )
    again = set(comparison.members.values()) & set(before.members.values())
    if again and len(again) == len(comparison.members):
        found.doubts.append("the second page shows what the first one shows: does the API ignore this parameter?")
    elif again:
        found.doubts.append(
            f"{counted(len(again), 'object')} of the first page also on the second: {', '.join(sorted(again)[:3])}"
        )


async def _beyond(
    active: ActiveSource, w: WatchedEndpoint, at: Position, first: Unparsed, before: PageComparison, found: Inspection
) -> None:
    """Look whether the list goes on after a page that has fewer objects than were asked for."""
    assert first.beyond is not None
    beyond = replace(first.beyond, parent=at.parent)
    try:
        page = await _asked(active, w.rules.endpoint, beyond)
        comparison = await active.apart(compare, w.rules, page.objects, {})
    except (FetchError, PageError):  # there is no such page
        return
    if set(comparison.members.values()) - set(before.members.values()):
        found.calls_per_sweep = None
        found.doubts.append(
            f"the first page has only {counted(len(first.objects), 'object')}, and the list goes on at "
            f"{_place(beyond)}: set `size` to the server's real page size"
        )


async def _zero(
    active: ActiveSource, w: WatchedEndpoint, at: Position, first: PageComparison, found: Inspection
) -> None:
    """Look whether pages are counted from 0 where the list is configured to begin with page 1."""
    if at.page != 1 or w.rules.endpoint.page_headers:
        return
    try:
        page = await _asked(active, w.rules.endpoint, replace(at, page=0))
        comparison = await active.apart(compare, w.rules, page.objects, {})
    except (FetchError, PageError):  # there is no such page
        return
    if set(comparison.members.values()) - set(first.members.values()):
        found.doubts.append("page 0 shows other objects than page 1: if the list begins there, set start = 0")


async def _item(
    active: ActiveSource, w: WatchedEndpoint, at: Position, comparison: PageComparison, found: Inspection
) -> None:
    if not comparison.fresh:
        return
    shown = comparison.fresh[0]
    item = Item(object=await active.apart(shown.parsed), parent=at.parent)
    try:
        request = await active.source.item_request(w.rules.endpoint, shown.object_id, item)
    except PageError as error:
        found.doubts.append(f"{error}: such an object has no own URL, and complete sweeps confirm its deletion")
        return
    if request is None:
        return
    response = await active.ask(request)
    status = response.status_code
    found.item = ItemLook(request=f"{request.method} {shown_url(request.url)}", status=status)
    if status in GONE:
        found.doubts.append(f"{shown.object_id} is in the list, but its own URL says {status}: is `item_path` right?")
    elif not response.is_success:
        found.doubts.append(f"the own URL of {shown.object_id} answers {status}: no deletion is confirmed")
    elif not is_list(status, w.rules.endpoint) or not await active.apart(_shows, w, response, shown.object_id):
        found.doubts.append(
            f"the own URL of {shown.object_id} answers {status} without an object of this id: is `item_path` right?"
        )


def _shows(w: WatchedEndpoint, response: httpx.Response, object_id: str) -> bool:
    return own_object(w.rules, response.content, object_id) is not None


def _calls(first: Unparsed) -> int | None:
    if first.next is None:
        return 1
    return None if not first.total or not first.objects else math.ceil(first.total / len(first.objects))


def _place(at: Position) -> str:
    known = {"page": at.page, "offset": at.offset, "cursor": at.cursor}
    return ", ".join(f"{name} {str(value)[:80]}" for name, value in known.items() if value is not None)


def _object(item: Mapping[str, Any] | msgspec.Raw) -> Mapping[str, Any]:
    try:
        value = item if isinstance(item, Mapping) else parse(item)
    except ParseError as error:
        raise PageError(f"an object of the parent list cannot be read: {error}") from error
    if not isinstance(value, Mapping):
        raise PageError("the parent list holds something that is not an object")
    return value
