"""Source `rest`: any JSON API with lists, described in `poller.toml` without code."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import quote

import httpx
import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from poller import Endpoint, Limit, Page, PageError, Position, Source, hookimpl
from poller.options.quantities import Duration
from poller.options.secrets import HeaderSecret
from poller.sources.auth import AuthTable, HeaderName, NoAuth, authenticate, http_url, text
from poller.sources.pagination import (
    JsonPath,
    Pagination,
    Whole,
    first,
    following,
    is_url,
    page_headers,
    parameters,
    same_origin,
)
from poller.sources.paths import CONTENT, KEY, MISSING, VALUE, Answer, Form, compile_path, identity, wrapped
from poller.sources.protocol import Item
from poller.sources.urls import with_parameters

_PARENT: Final = re.compile(r"\{parent\.([^{}]+)\}")
_DIGITS: Final = re.compile(r"-?[0-9]{1,18}")
_ANY_BRACES: Final = re.compile(r"\{[^{}]*\}")

Scalar = str | int | float | bool
Status = Annotated[int, Field(ge=200, le=599)]

_TIMES: Final[Mapping[str, Callable[[datetime], str | int]]] = {  # formats of `updated_since`
    "iso": lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "epoch": lambda at: int(at.timestamp()),
    "epoch_ms": lambda at: int(at.timestamp()) * 1000,
    "date": lambda at: at.strftime("%Y-%m-%d"),
}


def _valid_id(spec: str | tuple[str, ...]) -> str | tuple[str, ...]:
    identity(spec)
    return spec


def _valid_path(path: str) -> str:
    if "://" in path or path.startswith("//"):
        raise ValueError("a path is relative to base_url and names no host")
    return path


def _valid_format(text: str) -> str:
    if text not in _TIMES and "%" not in text:
        raise ValueError(f"{text!r} is not a format: write {', '.join(_TIMES)}, or one for strftime, as in '%d/%m/%Y'")
    return text


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class UpdatedSince(_Table):
    """A parameter that asks for changes since a time, and the objects' field with their modification time."""

    param: str
    field: JsonPath
    overlap: Duration = 120.0
    format: Annotated[str, AfterValidator(_valid_format)] = "iso"


class EndpointTable(_Table):
    """One list of the API."""

    path: Annotated[str, AfterValidator(_valid_path)]
    method: Literal["GET", "POST"] = "GET"
    params: dict[str, Scalar | tuple[Scalar, ...]] = {}
    body: dict[str, Any] | None = None
    items: JsonPath | None = None
    instead_of_list: tuple[Form, ...] = ()  # what may be at `items`: no objects, or a single one
    id: Annotated[str | tuple[str, ...], AfterValidator(_valid_id)] = "id"
    pagination: Pagination = Whole()
    order: Literal["id", "newest", "any"] = "any"
    item_path: Annotated[str, AfterValidator(_valid_path)] | None = None
    updated_since: UpdatedSince | None = None
    parent: str | None = None
    error: JsonPath | None = None  # an answer fails if something is found there
    empty_status: tuple[Status, ...] = ()
    accept: tuple[Status, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> EndpointTable:
        if self.body is not None and self.method == "GET":
            raise ValueError('body: a GET has none; set method = "POST"')
        if self.pagination.place == "body" and self.method == "GET":
            raise ValueError('pagination: in = "body" needs method = "POST"')
        if self.instead_of_list and (self.items is None or compile_path(self.items).query or self.items == "$"):
            raise ValueError('instead_of_list: needs a plain path in `items`, as in items = "$.data.items"')
        if self.item_path is not None:
            _check_item_path(self)
        _check_templates(self)
        return self


class RestOptions(_Table):
    """The `[sources.NAME]` table of a `rest` source."""

    base_url: Annotated[str, AfterValidator(http_url)]
    headers: dict[HeaderName, HeaderSecret] = {}
    auth: AuthTable = NoAuth()
    endpoints: dict[str, EndpointTable] = Field(min_length=1)

    @model_validator(mode="after")
    def _parents_exist(self) -> RestOptions:
        for name in self.endpoints:
            _check_lineage(name, self.endpoints)
        return self


def _check_item_path(table: EndpointTable) -> None:
    path, names = table.item_path or "", _ANY_BRACES.findall(table.item_path or "")
    if not names or (table.parent is None and _PARENT.search(path)):
        raise ValueError("item_path: write {id} or {FIELD} where the object is named, as in /items/{id}")
    if table.id == "content":
        raise ValueError('item_path: an object whose id is "content" has no URL of its own')
    if "{id}" in names and not isinstance(table.id, str):
        raise ValueError("item_path: the id has several parts: name each field, as in /items/{FIELD}/{FIELD}")


def _check_templates(table: EndpointTable) -> None:
    texts = [table.path, *(value for value in table.params.values() if isinstance(value, str))]
    wanted = any(_PARENT.search(part) for part in texts)
    if wanted and table.parent is None:
        raise ValueError("path: {parent...} needs parent = the name of the parents' endpoint")
    if table.parent is not None and not wanted:
        raise ValueError("path: a list per parent needs the parent in its path, as in /items/{parent.id}/lines")
    if unknown := [braces for braces in _ANY_BRACES.findall(table.path) if not _PARENT.fullmatch(braces)]:
        raise ValueError(f"path: {unknown[0]} is not known; write {{parent.FIELD}}")


def _check_lineage(name: str, endpoints: Mapping[str, EndpointTable]) -> None:
    seen = [name]
    while (parent := endpoints[seen[-1]].parent) is not None:
        if parent not in endpoints:
            near = get_close_matches(parent, endpoints, n=1)
            raise ValueError(
                f'endpoints.{seen[-1]}.parent: there is no endpoint "{parent}"'
                + (f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(endpoints)}")
            )
        if parent in seen:
            raise ValueError(f"endpoints.{name}.parent: {' -> '.join([*seen, parent])} is a circle")
        seen.append(parent)


class RestSource:
    """The lists of a JSON API that its options describe."""

    Options: ClassVar[type[BaseModel]] = RestOptions
    limits: Sequence[Limit] = (Limit(1, 1.0),)

    def __init__(self, name: str, options: RestOptions) -> None:
        self._name = name
        self._base = httpx.URL(options.base_url)
        self._headers = options.headers
        self._tables = options.endpoints
        self._places: dict[str, tuple[str, ...]] = {}  # by endpoint without `items`: where its lists are
        self.auth = authenticate(options.auth, self._base)

    def endpoints(self) -> Sequence[Endpoint]:
        """Every configured list."""
        return [_endpoint(name, table) for name, table in self._tables.items()]

    def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
        """The request for the list from position `at` on. Raises PageError if the parent lacks a field of the path."""
        table = self._tables[endpoint.name]
        carried: dict[str, Any] = dict(parameters(table.pagination, at))
        if table.updated_since and at.since is not None:
            carried[table.updated_since.param] = _time_text(table.updated_since, at.since)
        if at.cursor is not None and is_url(at.cursor):
            return self._built(table.method, self._own(at.cursor), table.body)
        body = deepcopy(table.body)
        query = {key: _filled(value, at.parent) for key, value in table.params.items()}
        for key, value in carried.items():
            if _belongs_into_body(table, key):
                body = {} if body is None else body
                _set(body, key, _of_kind(_found(body, key), value))
            else:
                query[key] = value
        return self._built(table.method, self._url(_filled(table.path, at.parent, quoted=True), query), body)

    def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
        """The page of an answer. Raises PageError."""
        table = self._tables[endpoint.name]
        answer = Answer(response.content)
        if table.error is not None:
            _refuse_errors(answer, table.error)
        objects = _objects(answer, table)
        if table.items is None and not (table.id == KEY and answer.is_keyed()):
            self._refuse_other_list(endpoint.name, answer.only_list(), is_empty=not objects)
        rest = following(table.pagination, at, answer=answer, count=len(objects), response=response)
        return Page(
            objects=objects,
            next=rest.next,
            total=rest.total,
            doubts=rest.doubts,
            guesses=rest.guesses,
            guessed_total=rest.guessed_total,
            beyond=rest.beyond,
        )

    def _refuse_other_list(self, name: str, place: tuple[str, ...], *, is_empty: bool) -> None:
        """Refuse an answer whose only list is another one than before, as of a maintenance page. Raises PageError.

        An empty list that is the answer itself may stand for any (PHP writes an empty object so).
        """
        known = self._places.get(name, place) if is_empty else self._places.setdefault(name, place)
        if place != known and (place or not is_empty):
            there, before = (".".join(("$", *names)) for names in (place, known))
            raise PageError(
                f"the only list of this answer is at {there}, but at {before} in earlier ones",
                hint="set `items` to the right one; after a reload, the first answer decides",
            )

    def item_request(self, endpoint: Endpoint, object_id: str, item: Item | None = None) -> httpx.Request | None:
        """The object's own URL by `item_path`; None without it. Raises PageError for a field that is not known."""
        path = self._tables[endpoint.name].item_path
        if path is None:
            return None
        return self._built("GET", self._url(_item_path(path, object_id, item or Item()), {}), None)

    def discover(self) -> Generator[httpx.Request, httpx.Response, None]:
        """No request is needed first."""
        yield from ()

    def _built(self, method: str, url: httpx.URL, body: Mapping[str, Any] | None) -> httpx.Request:
        headers = {"Accept": "application/json"}
        request = httpx.Request(method, url, headers=headers, json=body if method == "POST" else None)
        for name, value in self._headers.items():
            request.headers[name] = text(value)
        return request

    def _url(self, path: str, query: Mapping[str, Any]) -> httpx.URL:
        base = str(self._base).rstrip("/")
        text = f"{base}/{path.lstrip('/')}" if path else base
        if query and "?" not in text:
            return httpx.URL(text, params=dict(query))  # parsed once
        url = httpx.URL(text)
        return with_parameters(url, query) if query else url

    def _own(self, cursor: str) -> httpx.URL:
        url = self._base.join(cursor)
        if not same_origin(url, self._base):
            raise PageError(f"{self._name}: the next URL leads to another origin than base_url")
        return url


def _endpoint(name: str, table: EndpointTable) -> Endpoint:
    since = table.updated_since
    return Endpoint(
        name=name,
        id=table.id,
        first=first(table.pagination),
        parent=table.parent,
        order=table.order,
        since=since is not None,
        since_field=since.field if since else None,
        overlap=since.overlap if since else 120.0,
        empty_status=table.empty_status,
        accept_status=table.accept,
        page_headers=page_headers(table.pagination),
    )


def _objects(answer: Answer, table: EndpointTable) -> Sequence[Mapping[str, Any] | msgspec.Raw]:
    path = compile_path(table.items) if table.items is not None else None
    if table.id == KEY and answer.is_keyed(path):
        return answer.keyed(path)
    objects = answer.objects(path, instead=table.instead_of_list)
    return wrapped(objects) if table.id in (VALUE, CONTENT) else objects


def _refuse_errors(answer: Answer, path: str) -> None:
    """Refuse an answer that reports errors next to, or instead of, its objects. Raises PageError."""
    found = answer.value(compile_path(path))
    if found is not MISSING and found not in (None, False, "", 0) and found != [] and found != {}:
        raise PageError(f"the answer reports an error at {path}: {str(found)[:200]}")


def _item_path(path: str, object_id: str, item: Item) -> str:
    """The path of an object's own URL. Raises PageError if a field that it names is not known."""

    def fill(found: re.Match[str]) -> str:
        name = found[0][1:-1]
        if name == "id":
            return _quoted(object_id)
        known = item.parent if name.startswith("parent.") else item.object
        field = identity(name.removeprefix("parent."))(known or {})
        if field is None:
            raise PageError(f"item_path names {found[0]}, which is not known of {object_id}")
        return _quoted(field)

    return _ANY_BRACES.sub(fill, path)


def _time_text(since: UpdatedSince, at: float) -> str | int:
    instant = datetime.fromtimestamp(int(at), UTC)
    write = _TIMES.get(since.format)
    return instant.strftime(since.format) if write is None else write(instant)


def _belongs_into_body(table: EndpointTable, key: str) -> bool:
    if table.method != "POST" or table.pagination.place == "query":
        return False
    return table.pagination.place == "body" or _found(table.body or {}, key) is not MISSING


def _of_kind(known: Any, value: Any) -> Any:
    """A cursor of digits is a number where the body has one: a strict API refuses "5" there."""
    is_number = isinstance(known, int) and not isinstance(known, bool)
    return int(value) if is_number and isinstance(value, str) and _DIGITS.fullmatch(value) else value


def _found(body: Any, key: str) -> Any:
    """The value at a dotted path of keys and indexes, or MISSING."""
    for step in key.split("."):
        if isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        elif isinstance(body, dict) and step in body:
            body = body[step]
        else:
            return MISSING
    return body


def _set(body: Any, key: str, value: Any) -> None:
    """Set a value at a dotted path of keys and indexes, creating the objects on the way."""
    *steps, last = key.split(".")
    for step in steps:
        body = body[int(step)] if isinstance(body, list) else body.setdefault(step, {})
    if isinstance(body, list):
        body[int(last)] = value
    else:
        body[last] = value


def _filled(value: Any, parent: Mapping[str, Any] | None, *, quoted: bool = False) -> Any:
    """A text with every `{parent.FIELD}` replaced by the parent's field."""
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        field = identity(found[1])(parent or {})
        if field is None:
            raise PageError(f"the parent has no {found[1]}, which {value} asks for")
        return _quoted(field) if quoted else field

    return _PARENT.sub(fill, value)


def _quoted(part: str) -> str:
    """One segment of a URL's path. Raises PageError for a segment that would lead out of the path."""
    if part in (".", ".."):
        raise PageError(f"{part!r} cannot be part of a URL's path")
    return quote(part, safe="")


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Register the source `rest`."""
    register("rest", RestSource)
