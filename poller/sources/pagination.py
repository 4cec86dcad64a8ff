"""How a list is cut into answers: page numbers, offsets, cursors, links (RFC 8288), or not at all.

For each style a model that is written in `poller.toml` as the endpoint's `pagination`; pure functions say where
the list begins (`first`), what a request carries (`parameters`) and where the list goes on (`following`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from poller.sources.paths import MISSING, Answer, compile_path
from poller.sources.protocol import PageError, Position


def _valid_path(text: str) -> str:
    compile_path(text)
    return text


JsonPath = Annotated[str, AfterValidator(_valid_path)]
Place = Literal["query", "body"]


class _Style(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    place: Place | None = Field(default=None, alias="in")  # None: where the request names the parameter already


class _Counted(_Style):
    total: JsonPath | None = None  # where the answer says how many objects the whole list has
    total_header: str | None = None

    @model_validator(mode="after")
    def _one_total(self) -> _Counted:
        if self.total and self.total_header:
            raise ValueError("total and total_header say the same: keep one")
        return self


class Pages(_Counted):
    """Numbered pages. Without `size` the list ends at the first empty page."""

    type: Literal["page"]
    param: str = "page"
    start: int = Field(default=1, ge=0)
    size_param: str | None = None
    size: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _size_for_its_parameter(self) -> Pages:
        if self.size_param and self.size is None:
            raise ValueError(f'size_param = "{self.size_param}" needs a size; add size = 100')
        return self


class Offsets(_Counted):
    """Numbered objects: each answer begins `size` objects after the last."""

    type: Literal["offset"]
    param: str = "offset"
    start: int = Field(default=0, ge=0)
    size_param: str | None = "limit"
    size: int = Field(default=100, gt=0)


class Cursors(_Style):
    """Each answer names the next one, by a token or a URL. The list ends where there is none, or `more` is false."""

    type: Literal["cursor"]
    param: str = "cursor"
    next: JsonPath = "$.next"
    more: JsonPath | None = None
    size_param: str | None = None
    size: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _size_with_its_parameter(self) -> Cursors:
        if (self.size_param is None) != (self.size is None):
            raise ValueError("size and size_param belong together: give both or none")
        return self


class Links(_Style):
    """RFC 8288: a `Link` header with rel="next". Where it counts pages in `param`, each page is polled by itself."""

    type: Literal["link"]
    param: str = "page"


class Whole(_Style):
    """One answer holds the whole list."""

    type: Literal["none"] = "none"


Pagination = Annotated[Pages | Offsets | Cursors | Links | Whole, Field(discriminator="type")]


def first(style: Pagination) -> Position:
    """Where the list begins."""
    match style:
        case Pages(start=start):
            return Position(page=start)
        case Offsets(start=start):
            return Position(offset=start)
        case Links():
            return Position(page=1)
    return Position()


def page_headers(style: Pagination) -> tuple[str, ...]:
    """The answer headers that say where the list goes on."""
    match style:
        case Links():
            return ("link",)
        case Pages(total_header=str(name)) | Offsets(total_header=str(name)):
            return (name.lower(),)
    return ()


def parameters(style: Pagination, at: Position) -> dict[str, str | int]:
    """What a request for the list from `at` on carries. A cursor that is a URL carries everything itself."""
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


def following(
    style: Pagination, at: Position, *, answer: Answer, count: int, response: httpx.Response
) -> tuple[Position | None, int | None]:
    """Where the list goes on after an answer with `count` objects (None: it was the last), and the list's total.

    Raises PageError for a next URL of another origin, and for an answer that names itself as the next.
    """
    match style:
        case Pages():
            known = _total(style, answer, response)
            return _next_page(style, at, count, known), known
        case Offsets():
            known = _total(style, answer, response)
            return _next_offset(style, at, count, known), known
        case Cursors():
            return _next_cursor(style, at, answer, response.request.url), None
        case Links():
            return _next_link(style, at, response), None
    return None, None


def is_url(cursor: str) -> bool:
    """A cursor that is the next request's URL, whole or relative, and no token. Tokens may begin with "/" (base64)."""
    return cursor.startswith(("http://", "https://")) or (cursor[:1] in ("/", "?") and "?" in cursor)


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Scheme, host and port are equal (RFC 6454 section 4)."""
    return _origin(one) == _origin(other)


_PORTS: Final = {"http": 80, "https": 443}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _total(style: Pages | Offsets, answer: Answer, response: httpx.Response) -> int | None:
    found: Any = None
    if style.total:
        found = answer.value(compile_path(style.total))
    elif style.total_header:
        found = response.headers.get(style.total_header)
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 19:
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def _next_page(style: Pages, at: Position, count: int, total: int | None) -> Position | None:
    page = style.start if at.page is None else at.page
    if total is not None and style.size:
        goes_on = (page - style.start + 1) * style.size < total
    else:
        goes_on = count >= (style.size or 1)
    return replace(at, page=page + 1) if goes_on else None


def _next_offset(style: Offsets, at: Position, count: int, total: int | None) -> Position | None:
    offset = (style.start if at.offset is None else at.offset) + style.size
    goes_on = offset - style.start < total if total is not None else count >= style.size
    return replace(at, offset=offset) if goes_on else None


def _next_cursor(style: Cursors, at: Position, answer: Answer, asked: httpx.URL) -> Position | None:
    if style.more and answer.value(compile_path(style.more)) is not True:
        return None
    found = answer.value(compile_path(style.next))
    if found is MISSING or found is None or found == "" or found is False:
        if style.more:
            raise PageError(f"the answer says there is more, but nothing at {style.next}")
        return None
    if not isinstance(found, str | int):
        raise PageError(f"the cursor at {style.next} is neither text nor a number")
    cursor = str(found)
    if is_url(cursor):
        cursor = str(_joined(asked, cursor))
    if cursor == at.cursor:
        raise PageError("the next cursor is the one that was asked for: the list would never end")
    return replace(at, cursor=cursor)


def _next_link(style: Links, at: Position, response: httpx.Response) -> Position | None:
    hrefs = [link["url"] for rel, link in response.links.items() if rel and "next" in rel.lower().split()]
    if not hrefs:
        return None
    asked = response.request.url
    url = _joined(asked, hrefs[0])
    if url == asked:
        raise PageError("the next link is the page that was asked for: the list would never end")
    page = _page_of(url, asked, style.param)
    if page is not None and at.cursor is None:
        return replace(at, page=page)
    return replace(at, page=None, cursor=str(url))


def _page_of(url: httpx.URL, asked: httpx.URL, param: str) -> int | None:
    """The page a link counts to, if that is all it says beyond what was asked."""
    text = url.params.get(param, "")
    rest = [(key, value) for key, value in url.params.multi_items() if key != param]
    if not (text.isascii() and text.isdigit() and len(text) < 10) or set(rest) - set(asked.params.multi_items()):
        return None
    here = asked.params.get(param, "1")
    return int(text) if here.isdigit() and int(text) == int(here) + 1 else None


def _joined(asked: httpx.URL, href: str) -> httpx.URL:
    try:
        url = asked.join(href)
    except httpx.InvalidURL as exc:
        raise PageError(f"the next URL is not one: {exc}") from exc
    if not same_origin(url, asked):
        raise PageError(
            f"the next URL leads from {asked.scheme}://{asked.netloc.decode()} to {url.scheme}://{url.netloc.decode()}",
            hint="Credentials go to one origin only: check base_url.",
        )
    return url
