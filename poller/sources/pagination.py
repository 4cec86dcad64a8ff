"""Pagination: page numbers, offsets, cursors, links (RFC 8288), or none.

Each style has a model for the endpoint's `pagination` in `poller.toml`. Pure functions return where the list begins
(`first`), what a request carries (`parameters`), and what an answer says about the rest (`following`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, Self

import httpx
import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from poller.rendering.counting import counted
from poller.sources.contradictions import (
    Configured,
    contradictions,
    count_of,
    flag_of,
    guessed_total,
    guesses,
    next_href,
    says_it_is_last,
    signs_of_parts,
)
from poller.sources.paths import MISSING, Answer, compile_path
from poller.sources.protocol import PageError, Position


def _valid_path(text: str) -> str:
    compile_path(text)
    return text


JsonPath = Annotated[str, AfterValidator(_valid_path)]
Place = Literal["query", "body"]
HEADER: Final = "header:"  # prefix of a `next` that is read from an answer's header


def _valid_next(text: str) -> str:
    if text.startswith(HEADER):
        if not _FIELD_NAME.fullmatch(text.removeprefix(HEADER)):
            raise ValueError(f"{text!r} names no header: write header:Next-Page")
        return text
    return _valid_path(text)


_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2


class _Style(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    place: Place | None = Field(default=None, alias="in")  # None: where the request already has the parameter
    total: JsonPath | None = None  # where the answer counts the objects of the whole list
    total_header: str | None = None

    @model_validator(mode="after")
    def _one_total(self) -> Self:
        if self.total and self.total_header:
            raise ValueError("total and total_header exclude each other: keep one")
        return self


class _Flagged(_Style):
    more: JsonPath | None = None  # a flag that is true while the list continues
    last: JsonPath | None = None  # a flag that is true at the end of the list

    @model_validator(mode="after")
    def _one_flag(self) -> Self:
        if self.more and self.last:
            raise ValueError("more and last exclude each other: keep one")
        return self


class Pages(_Flagged):
    """Numbered pages. Without `size` the list ends at the first empty page."""

    type: Literal["page"]
    param: str = "page"
    start: StrictInt = Field(default=1, ge=0)
    size_param: str | None = None
    size: StrictInt | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _size_for_its_parameter(self) -> Pages:
        if self.size_param and self.size is None:
            raise ValueError(f'size_param = "{self.size_param}" needs a size; add size = 100')
        return self


class Offsets(_Flagged):
    """Numbered objects: each answer begins `size` objects after the last."""

    type: Literal["offset"]
    param: str = "offset"
    start: StrictInt = Field(default=0, ge=0)
    size_param: str | None = "limit"
    size: StrictInt = Field(default=100, gt=0)


class Cursors(_Flagged):
    """A cursor names the next answer, by a token or a URL. The list ends without one, or where a flag says so."""

    type: Literal["cursor"]
    param: str = "cursor"
    next: Annotated[str, AfterValidator(_valid_next)] = "$.next"
    next_is: Literal["token", "url"] | None = None  # None: a URL if it looks like one
    rebase: StrictBool = False
    size_param: str | None = None
    size: StrictInt | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _size_with_its_parameter(self) -> Cursors:
        if (self.size_param is None) != (self.size is None):
            raise ValueError("size and size_param belong together: give both or none")
        return self


class Links(_Style):
    """RFC 8288: a `Link` header with rel="next". If it counts pages in `param`, each page is polled by itself."""

    type: Literal["link"]
    param: str = "page"
    rebase: StrictBool = False


class Whole(_Style):
    """One answer holds the whole list."""

    type: Literal["none"] = "none"


Pagination = Annotated[Pages | Offsets | Cursors | Links | Whole, Field(discriminator="type")]


class FollowUp(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer says about the rest of its list."""

    next: Position | None = None  # None: the answer was the last
    total: int | None = None  # objects in the whole list
    doubts: tuple[str, ...] = ()  # what in the answer contradicts the configuration, so that the list may be incomplete
    guesses: tuple[str, ...] = ()  # the same by members that are not configured
    guessed_total: tuple[str, int] | None = None  # such a member that seems to count the objects, and its count
    beyond: Position | None = None  # where the list would go on that ends here only because the answer is short


def first(style: Pagination) -> Position:
    """The position at which the list begins."""
    match style:
        case Pages(start=start):
            return Position(page=start)
        case Offsets(start=start):
            return Position(offset=start)
        case Links():
            return Position(page=1)
    return Position()


def page_headers(style: Pagination) -> tuple[str, ...]:
    """The answer headers that name the next page."""
    names = [style.total_header] if style.total_header else []
    if isinstance(style, Links):
        names.append("link")
    if isinstance(style, Cursors) and style.next.startswith(HEADER):
        names.append(style.next.removeprefix(HEADER))
    return tuple(name.lower() for name in names)


def parameters(style: Pagination, at: Position) -> dict[str, str | int]:
    """The parameters of a request for the list from `at` on. A cursor that is a URL carries everything itself."""
    params: dict[str, str | int] = {}
    match style:
        case Pages() | Offsets() | Cursors() if style.size_param and style.size:
            params[style.size_param] = style.size
    match style:
        case Pages() if at.page is not None:
            params[style.param] = at.page
        case Offsets() if at.offset is not None:
            params[style.param] = at.offset
        case Links() if (at.page or 1) > 1 and at.page is not None:
            params[style.param] = at.page
        case Cursors() if at.cursor is not None:
            params[style.param] = at.cursor
    return params


def following(style: Pagination, at: Position, *, answer: Answer, count: int, response: httpx.Response) -> FollowUp:
    """What an answer with `count` objects says about the rest of its list.

    Raises PageError for a next URL of another origin, for an answer that names itself as the next, and for a cursor or
    link that cannot be read.
    """
    total, doubts = _total(style, at, answer, response)
    if total is not None and count > total:
        doubts += (
            f"total is {total}, but this answer alone has {counted(count, 'object')}: it may be the number of pages",
        )
    match style:
        case Pages() | Offsets():
            found = _counted(style, at, answer, count, total, response)
        case Cursors():
            found = _next_cursor(style, at, answer, response, is_counted=total is not None or count <= 1)
        case Links():
            found = FollowUp(next=_next_link(style, at, response))
        case _:
            found = FollowUp()
    parts = tuple(signs_of_parts(answer))
    if found.next is not None:
        return FollowUp(next=found.next, total=total, doubts=found.doubts + doubts, guesses=parts)
    configured = _configured(style, at)
    guessed = (*parts, *found.guesses, *guesses(answer, response, count, configured))
    if total == LARGEST_COUNTED and count > 0:
        guessed += (f"total is exactly {total}: many search engines count no further, and the list may be longer",)
    return FollowUp(
        total=total,
        doubts=found.doubts + doubts + tuple(contradictions(answer, response, count, configured)),
        guesses=guessed,
        guessed_total=guessed_total(answer, response) if configured.has_pages and not configured.has_total else None,
        beyond=found.beyond,
    )


COMMON_CAPS: Final = frozenset({10, 20, 25, 30, 50, 100, 200, 250, 500, 1000})  # objects of a page at most
LARGEST_COUNTED: Final = 10_000  # objects: the default limit of Elasticsearch and OpenSearch


def _configured(style: Pagination, at: Position) -> Configured:
    return Configured(
        has_flag=isinstance(style, _Flagged) and bool(style.more or style.last),
        has_next=isinstance(style, Cursors),
        has_link=isinstance(style, Links),
        has_pages=not isinstance(style, Whole) or bool(style.total or style.total_header),
        has_total=bool(style.total or style.total_header),
        page=None if not isinstance(style, Pages) or at.page is None else at.page - style.start + 1,
    )


def is_url(cursor: str) -> bool:
    """Whether a cursor is the next request's URL, whole or relative, rather than a token. Tokens may begin with "/"
    (base64).
    """
    return cursor.startswith(("http://", "https://")) or (cursor[:1] in ("/", "?") and "?" in cursor)


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether scheme, host and port are equal (RFC 6454, section 4)."""
    return _origin(one) == _origin(other)


_PORTS: Final = {"http": 80, "https": 443}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _total(
    style: Pagination, at: Position, answer: Answer, response: httpx.Response
) -> tuple[int | None, tuple[str, ...]]:
    """The list's total, and a doubt if it is configured but the answer has none that can be read.

    Some APIs count only in the first answer, so that a later one may have no total.
    """
    if style.total:
        where, found = f"total = {style.total!r}", answer.value(compile_path(style.total))
    elif style.total_header:
        where, found = f"total_header = {style.total_header!r}", response.headers.get(style.total_header, MISSING)
    else:
        return None, ()
    count = count_of(found)
    if (found is MISSING or found is None) and replace(first(style), since=at.since, parent=at.parent) != at:
        return None, ()
    return count, () if count is not None else (f"{where} {_unfit(found, 'a number')}",)


def _goes_on(style: _Flagged, answer: Answer) -> tuple[bool | None, tuple[str, ...]]:
    """The configured flag (None: there is none), and a doubt if it cannot be read."""
    path = style.more or style.last
    if path is None:
        return None, ()
    found = answer.value(compile_path(path))
    flag = flag_of(found)
    if flag is None:
        return None, (f"{'more' if style.more else 'last'} = {path!r} {_unfit(found, 'true or false')}",)
    return flag if style.more else not flag, ()


def _unfit(found: Any, wanted: str) -> str:
    if found is MISSING:
        return "matches nothing in the answer"
    return f"is {str(found)[:40]!r} in the answer, not {wanted}"


def _counted(
    style: Pages | Offsets, at: Position, answer: Answer, count: int, total: int | None, response: httpx.Response
) -> FollowUp:
    flag, doubts = _goes_on(style, answer)
    before = _before(style, at)
    if flag is not None:
        goes_on = flag
    elif total is not None:
        # Some totals are estimates, or are counted before an object was added: a full page beyond one refutes it.
        is_refuted = before + count > total and style.size is not None and count >= style.size
        goes_on = count > 0 and (before + count < total or is_refuted)
    else:
        seen = before + count if style.size or at == replace(first(style), since=at.since, parent=at.parent) else None
        goes_on = count >= (style.size or 1) and not says_it_is_last(answer, response, seen)
    doubts = (*doubts, *_capped(style, before, count, total))
    if goes_on:
        return FollowUp(next=_after(style, at, count, total), doubts=doubts)
    is_short = total is None or count == style.size  # a total that ends with a full page may count only that page
    may_go_on = flag is None and count > 0 and is_short
    return FollowUp(beyond=_after(style, at, count, count) if may_go_on else None, doubts=doubts)


def _before(style: Pages | Offsets, at: Position) -> int:
    """How many objects precede this answer, if every page before it was full."""
    if isinstance(style, Offsets):
        return (style.start if at.offset is None else at.offset) - style.start
    page = style.start if at.page is None else at.page
    return (page - style.start) * (style.size or 0)


def _after(style: Pages | Offsets, at: Position, count: int, total: int | None) -> Position:
    if isinstance(style, Offsets):  # after a short answer, the next one begins after its own last object
        step = count if total is not None and 0 < count < style.size else style.size
        begin = style.start if at.offset is None else at.offset
        return Position(offset=begin + step, since=at.since, parent=at.parent)
    return Position(page=(style.start if at.page is None else at.page) + 1, since=at.since, parent=at.parent)


def _capped(style: Pages | Offsets, before: int, count: int, total: int | None) -> tuple[str, ...]:
    """A doubt if a numbered page contains fewer objects than requested, and its total says that there are more."""
    if (
        isinstance(style, Offsets)
        or style.size is None
        or total is None
        or not 0 < count < style.size
        or before + count >= total
    ):
        return ()
    return (f"size = {style.size}, but the answer holds {count} of {total}: set size to the server's real page size",)


STANDS_STILL: Final = (
    "the last answer shows several objects and names the cursor that was just used: if that cursor stands for the next "
    "answer each time, as of a scroll, the list goes on"
)


def _next_cursor(
    style: Cursors, at: Position, answer: Answer, response: httpx.Response, *, is_counted: bool
) -> FollowUp:
    """The next cursor. `is_counted`: the answer shows nothing new, or a total says whether something is missing."""
    flag, doubts = _goes_on(style, answer)
    if flag is False:
        return FollowUp(doubts=doubts)
    found = _cursor(style, answer, response)
    if found is MISSING or found is None or found == "" or found is False:  # 0 and "null" may be the id of an object
        if flag:
            raise PageError(f"the answer says that there is more, but has nothing at next = {style.next!r}")
        return FollowUp(doubts=doubts)
    if not isinstance(found, str | int | float) or isinstance(found, bool):
        raise PageError(f"the cursor at next = {style.next!r} is neither text nor a number")
    cursor = str(int(found) if isinstance(found, float) and found.is_integer() else found)
    if style.next_is == "url" or (style.next_is is None and is_url(cursor)):
        cursor = str(_joined(response.request.url, cursor, rebase=style.rebase))
    if cursor == at.cursor:  # the cursor does not move: this was the end, unless a flag says that there is more
        if flag:
            raise PageError("the next cursor is the one that was just used: the list would never end")
        return FollowUp(doubts=doubts, guesses=() if is_counted else (STANDS_STILL,))
    return FollowUp(next=replace(at, cursor=cursor), doubts=doubts)


def _cursor(style: Cursors, answer: Answer, response: httpx.Response) -> Any:
    if style.next.startswith(HEADER):
        return response.headers.get(style.next.removeprefix(HEADER), MISSING)
    return answer.value(compile_path(style.next))


def _next_link(style: Links, at: Position, response: httpx.Response) -> Position | None:
    href = next_href(response)
    if href is None:
        return None
    asked = response.request.url
    url = _joined(asked, href, rebase=style.rebase)
    if url == asked:
        raise PageError("the next link leads to the same page again: the list would never end")
    page = _page_of(url, asked, style.param)
    if page is not None and at.cursor is None:
        return replace(at, page=page)
    return replace(at, page=None, cursor=str(url))


def _page_of(url: httpx.URL, asked: httpx.URL, param: str) -> int | None:
    """The page number of a link, if the link differs from the request in nothing else."""
    text = url.params.get(param, "")
    rest = [(key, value) for key, value in url.params.multi_items() if key != param]
    if not (text.isascii() and text.isdigit() and len(text) < 10) or set(rest) - set(asked.params.multi_items()):
        return None
    here = asked.params.get(param, "1")
    return int(text) if here.isdigit() and int(text) == int(here) + 1 else None


def _joined(asked: httpx.URL, href: str, *, rebase: bool) -> httpx.URL:
    """The next URL. With `rebase` only its path and query are used, at the origin that was asked."""
    try:
        url = asked.join(href)
    except (httpx.InvalidURL, ValueError) as exc:
        raise PageError(f"the next URL cannot be read: {exc}") from exc
    if rebase:
        return url.copy_with(scheme=asked.scheme, netloc=asked.netloc)
    if not same_origin(url, asked):
        raise PageError(
            f"the next URL leads from {asked.scheme}://{asked.host} to {url.scheme}://{url.host}, another origin",
            hint="credentials go to one origin only: check base_url, or set rebase = true in `pagination` "
            "where a proxy rewrites URLs",
        )
    return url
