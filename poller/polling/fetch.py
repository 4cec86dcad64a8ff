"""Fetches one unit: its request, the rest of its chain, and the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
import orjson

from poller.changes.certainty import claims_of
from poller.changes.comparison import RequestTimes, digest_of
from poller.changes.decide import is_known
from poller.changes.page import compare, look_alike, quick_ids
from poller.changes.recording import chain_digest
from poller.clock import Clock
from poller.documents.diff import parse
from poller.http_dates import age, instant, seconds_behind
from poller.polling.chain import Chain
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.results import Fetched
from poller.polling.sweep import GIVEN_UP
from poller.polling.threads import Apart
from poller.polling.unit_keys import CHILD, NEWEST, SINCE, is_swept, load_position, own_id, parent_of
from poller.redaction import SECRETS
from poller.sources.charsets import opening
from poller.sources.errors import FetchError
from poller.sources.pagination import COMMON_CAPS
from poller.sources.paths import NoList
from poller.sources.protocol import Item, PageError, Position, Unparsed
from poller.sources.statuses import is_list, is_refusal, refuses_instead
from poller.sources.urls import shown_url
from state.polls import Snapshot, UnitState
from state.steps import Steps
from state.store import PollStore

if TYPE_CHECKING:
    from poller.polling.source_calls import Ask, SourceCalls

REFUSED: Final = 3  # failures of queries of recent changes after which they begin at the latest sweep
SHORT: Final = 200  # bytes of an answer that is shown if it has no list
LONGEST_VALIDATOR: Final = 4096  # characters; a server refuses requests with longer headers
AFTER_THE_END: Final = frozenset({404, 410, 416})  # answered for a page that does not exist
REFUSALS: Final = frozenset({400, 422})  # answered for that by some servers, and for other reasons by many
NO_PAGE: Final = AFTER_THE_END | REFUSALS | {403, 500}  # answered for a page beyond one that seemed to be the last
ALWAYS_FAILS: Final = frozenset(range(402, 600))  # the same, if it was answered before as well: not 401
EMPTY: Final = Unparsed(())
MOST_UNMODIFIED: Final = 9  # consecutive answers with 304; the next request is unconditional
STRONG: Final = 60.0  # seconds
MOST_PAGES: Final = 10_000  # of one chain: a list without an end is an error


class Unwelcome(FetchError):
    """The server answered, but not with the list."""


class RefusedInText(Unwelcome):
    """The server answered with the status of a list, and said in the text that there were too many calls."""


class Fetcher:
    """Fetches the units and items of one source.

    `ask` sends a request, paid from the budget, or raises FetchError; `ask_on` does so for later pages of a chain.
    """

    def __init__(
        self, source: SourceCalls, ask: Ask, ask_on: Ask, *, store: PollStore, steps: Steps, clock: Clock, apart: Apart
    ) -> None:
        self.ask = ask
        self._ask_on = ask_on
        self.source = source
        self._store = store
        self._steps = steps
        self._clock = clock
        self._apart = apart

    async def fetch(self, w: WatchedEndpoint, key: str, order: int) -> Fetched | None:
        """Fetch a unit. Raises FetchError or PageError; returns None if the unit or its parent is gone."""
        unit = w.units.get(key)
        at = None if unit is None else await self._position(w, key)
        if unit is None or at is None:
            return None
        begun = await self._begin(w, unit, at)
        asked_at = self._clock.now()
        response = await self.ask(begun.request)
        unmodified = begun.is_conditional and response.status_code == httpx.codes.NOT_MODIFIED
        if key in w.units:  # else it was removed meanwhile, and forgotten
            w.requests.unmodified[key] = w.requests.unmodified.get(key, 0) + 1 if unmodified else 0
        digest = _digest(w, response)
        is_readable = (
            is_list(status := response.status_code, w.rules.endpoint) or status in w.rules.endpoint.empty_status
        )
        if unmodified or (unit.calls == 1 and is_readable and digest == unit.digest):
            asked = self._answered(w, order, asked_at, [response.headers])
            return _unchanged(unit, asked, calls=1)
        first = _First(at, response, digest, asked_at, order)
        no_page = _no_page(w, unit)
        if response.status_code in _maybe_no_page(w, unit, no_page) - {*w.rules.endpoint.empty_status}:
            raise unwelcome(response, f"; set empty_status = [{response.status_code}] if the list ends so")
        return await self._read_on(w, unit, first, no_page)

    async def item_requests(self, w: WatchedEndpoint, snapshots: Sequence[Snapshot]) -> list[httpx.Request | None]:
        """The request for each object's own URL; None for objects without one."""
        parents: dict[str, dict[str, Any] | None] = {}
        found: list[httpx.Request | None] = []
        for snapshot in snapshots:
            parent_id = parent_of(snapshot.object_id) if w.is_child else None
            if parent_id is not None and parent_id not in parents:
                parents[parent_id] = await self._parent(w, parent_id)
            found.append(await self._item_request(w, snapshot, None if parent_id is None else parents[parent_id]))
        return found

    async def _item_request(
        self, w: WatchedEndpoint, snapshot: Snapshot, parent: Mapping[str, Any] | None
    ) -> httpx.Request | None:
        name = own_id(snapshot.object_id, is_child=w.is_child)
        try:
            item = Item(object=parse(snapshot.body), parent=parent) if self.source.takes_items else None
            return await self.source.item_request(w.rules.endpoint, name, item)
        except PageError:  # an id that cannot be part of a URL
            return None

    async def fetch_item(
        self, w: WatchedEndpoint, request: httpx.Request, order: int
    ) -> tuple[httpx.Response, RequestTimes]:
        """Request a suspect's own URL. Raises FetchError."""
        asked_at = self._clock.now()
        response = await self.ask(request)
        return response, self._answered(w, order, asked_at, [response.headers])

    async def _begin(self, w: WatchedEndpoint, unit: UnitState, at: Position) -> _Begun:
        request = await self.source.request(w.rules.endpoint, at)
        # If only headers name the next page, a 304 might leave them out: request the last page unconditionally.
        must_be_seen = bool(w.rules.endpoint.page_headers) and unit.next is None
        # A page answered with 304 may show missing objects: some servers derive a page's ETag from its newest row.
        must_be_seen = must_be_seen or (w.sweeps_decide and is_swept(unit.key))
        # To a POST whose answer has not changed, 412 is the right answer (RFC 9110, 13.1.2).
        must_be_seen = must_be_seen or request.method != "GET"
        # A 304 for a page that showed nothing looks for no missing object, and its whole answer is short anyway.
        must_be_seen = must_be_seen or not unit.shown
        is_believed = w.rules.conditional and w.requests.unmodified.get(unit.key, 0) < MOST_UNMODIFIED
        is_conditional = unit.validators is not None and unit.digest is not None and is_believed and not must_be_seen
        if is_conditional and unit.validators is not None:
            _add_validators(request, unit.validators)
        return _Begun(request, is_conditional)

    async def _position(self, w: WatchedEndpoint, key: str) -> Position | None:
        first = w.rules.endpoint.first
        if key == SINCE:
            return replace(first, since=max(0.0, self._since(w) - w.rules.endpoint.overlap))
        if key == NEWEST:
            return first
        if key.startswith(CHILD):
            parent = await self._parent(w, key.removeprefix(CHILD))
            return None if parent is None else replace(first, parent=parent)
        return load_position(w.units[key].position)

    def _since(self, w: WatchedEndpoint) -> float:
        """When the latest query was made, by the server's clock: the objects' modification times are the server's.

        A time in the future comes from a clock that was wrong. While such queries fail, the time may be too long ago
        for the API: what was changed before a complete sweep began, that sweep has seen.
        """
        now, state = self._clock.now(), w.state
        began = None if state.last_sweep_began is None else state.last_sweep_began - w.requests.behind
        known = [at for at in (state.since_at, began) if at is not None and at <= now]
        fails = w.units[SINCE].failures >= REFUSED and state.uncertain is None
        return max(known, default=0.0) if fails else known[0] if known else 0.0

    async def _parent(self, w: WatchedEndpoint, parent_id: str) -> dict[str, Any] | None:
        body = await self._steps.read(self._store.parent, w.state.source, w.rules.endpoint.parent or "", parent_id)
        return None if body is None else parse(body)

    async def _read_on(self, w: WatchedEndpoint, unit: UnitState, first: _First, no_page: Set[int]) -> Fetched:
        """Read a chain to its end: cursors, and every page of a list that is one unit. `no_page`: see `_no_page`."""
        one_unit = w.is_child or not is_swept(unit.key)
        at, response = first.at, first.response
        chain = Chain(partial(quick_ids, w.rules), partial(look_alike, w.rules))
        bodies, complete = [first.digest], True
        pages, size = chain.pages, len(response.content)
        headers = [response.headers]
        chain.add(await self._page(w, at, response, no_page))
        while (following := _following(pages[-1], one_unit=one_unit)) is not None:
            if unit.key == NEWEST and await self._shows_nothing_new(w, pages[-1]):
                complete = False
                break
            if len(pages) >= MOST_PAGES:
                raise PageError(f"{w.label}: the list has not ended after {MOST_PAGES} pages")
            at = replace(following, parent=at.parent, since=at.since)
            response = await self._ask_on(await self.source.request(w.rules.endpoint, at))
            bodies.append(_digest(w, response))
            headers.append(response.headers)
            size += len(response.content)
            page = await self._page(w, at, response, NO_PAGE if pages[-1].next is None else frozenset())
            chain.add(_cut_off(len(pages) + 1, response.status_code) if _is_cut_off(page, at, response) else page)
        digest = chain_digest(bodies)
        asked = self._answered(w, first.order, first.asked_at, headers)
        if (len(bodies) > 1 and digest == unit.digest) or _is_outdated(unit, asked):
            return _unchanged(unit, asked, calls=len(bodies))
        return Fetched(
            asked=asked,
            calls=len(bodies),
            unit=unit.id,
            digest=digest,
            size=size,
            pages=pages,
            validators=_validators(response) if len(bodies) == 1 else None,
            complete=complete,
            latest=response,
        )

    async def _shows_nothing_new(self, w: WatchedEndpoint, page: Unparsed) -> bool:
        """Whether every object of the page is known unchanged: a newest-first list has no changes after it."""
        if w.rules.runs_plugins:
            comparison = await self._apart(compare, w.rules, page.objects, {})
        else:
            comparison = compare(w.rules, page.objects, {})
        ids = [shown.object_id for shown in comparison.fresh]
        known = await self._steps.read(self._store.snapshots, w.state.id, ids)
        return bool(ids) and all(is_known(w.rules, shown, known.get(shown.object_id)) for shown in comparison.fresh)

    async def _page(self, w: WatchedEndpoint, at: Position, response: httpx.Response, no_page: Set[int]) -> Unparsed:
        """The page of an answer; an empty one if its status, or a form that is no list, means that there is none."""
        status = response.status_code
        if status == httpx.codes.NO_CONTENT or status in w.rules.endpoint.empty_status:
            return EMPTY
        if status in no_page and not is_refusal(response):
            return EMPTY
        if not is_list(status, w.rules.endpoint):
            raise unwelcome(response)
        try:
            return await self.source.page(w.rules.endpoint, at, response)
        except PageError as error:
            if refuses_instead(response):
                raise _refused(response) from error
            if no_page <= AFTER_THE_END:
                raise _with_text(error, response) from error
            return EMPTY

    def _answered(
        self,
        w: WatchedEndpoint,
        order: int,
        asked_at: float,
        headers: Sequence[httpx.Headers],
    ) -> RequestTimes:
        """The times of answers with these headers."""
        now, behind, oldest = self._clock.now(), seconds_behind(headers[0], asked_at), max(map(_age, headers))
        at = asked_at - oldest
        began = w.state.baseline_before
        if oldest and w.rules.baseline == "emit" and began is not None and began <= asked_at:
            at = max(at, began)  # what a baseline has reported was not seen before it
        w.requests.behind = behind
        answered = w.requests.next()
        return RequestTimes(at=at, answered_at=now, order=order, answered_order=answered, age=oldest, behind=behind)


def _following(page: Unparsed, *, one_unit: bool) -> Position | None:
    """The position at which a chain goes on after this page.

    A list that is one unit, such as one of a parent, also goes on after a short page that has as many objects as
    servers often cap a page at.
    """
    if page.next is None:
        return page.beyond if one_unit and len(page.objects) in COMMON_CAPS else None
    return page.next if one_unit or page.next.cursor is not None else None


def _no_page(w: WatchedEndpoint, unit: UnitState) -> Set[int]:
    """Statuses that mean that the page does not exist. There are some if the previous page says that it is the last,
    more, besides any other answer that is no list, if the page has never shown an object, and most if it has failed
    each time.
    """
    before = None if w.is_child or not is_swept(unit.key) else w.units.before(unit.key)
    if before is None or not claims_of(before).is_last:
        return frozenset()
    if unit.shown:
        return AFTER_THE_END
    return NO_PAGE if unit.failures + 1 < GIVEN_UP else NO_PAGE | ALWAYS_FAILS


def _maybe_no_page(w: WatchedEndpoint, unit: UnitState, no_page: Set[int]) -> Set[int]:
    """Statuses by which the list may end without being configured so, because the page has never shown an object, or
    the previous one says that it is the last.
    """
    if no_page:
        return REFUSALS if no_page is AFTER_THE_END else frozenset()
    is_later = not w.is_child and is_swept(unit.key) and w.units.before(unit.key) is not None
    return AFTER_THE_END | REFUSALS if is_later and not unit.shown else frozenset()


def _age(headers: httpx.Headers) -> float:
    """Seconds for which an answer may have been in a cache. Its age is a whole number of seconds, also 0."""
    return age(headers) + 1.0 if "age" in headers else 0.0


def _unchanged(unit: UnitState, asked: RequestTimes, *, calls: int) -> Fetched:
    """The result of a poll that shows nothing else than what is known of the unit."""
    known_at = unit.asked_at
    if asked.age and known_at is not None and asked.at < known_at <= asked.answered_at:
        asked = msgspec.structs.replace(asked, at=known_at)
    return Fetched(asked=asked, calls=calls, unit=unit.id, digest=unit.digest)


def _is_outdated(unit: UnitState, asked: RequestTimes) -> bool:
    """Whether an answer from a cache shows an earlier state of the unit than the one that is known.

    Caches are many, and each has copies of its own. Nothing follows from such an answer, as from an unchanged one.
    """
    if not asked.age or unit.digest is None or unit.asked_at is None:
        return False
    return asked.at < unit.asked_at <= asked.answered_at


def _is_cut_off(page: Unparsed, at: Position, response: httpx.Response) -> bool:
    """Whether an error that `empty_status` calls an empty list answers a cursor that the list itself has named."""
    return page is EMPTY and at.cursor is not None and response.is_error


def _cut_off(number: int, status: int) -> Unparsed:
    """The end of such a chain: a cursor may have expired."""
    why = (
        f"answer {number} of the list has status {status}, although the one before names it: a cursor may have expired"
    )
    return Unparsed((), guesses=(why,))


class _Begun(msgspec.Struct, frozen=True):
    """The first request of a poll."""

    request: httpx.Request
    is_conditional: bool


class _First(msgspec.Struct, frozen=True):
    """The first answer of a poll."""

    at: Position
    response: httpx.Response
    digest: bytes
    asked_at: float
    order: int


def _digest(w: WatchedEndpoint, response: httpx.Response) -> bytes:
    """Digest of the answer's bytes, and of the headers that name the next page."""
    names = w.rules.endpoint.page_headers
    if not names:
        return digest_of(response.content)
    headers = "\n".join(response.headers.get(name, "") for name in names)
    return digest_of(digest_of(response.content) + headers.encode())


def unwelcome(response: httpx.Response, advice: str = "") -> Unwelcome:
    """The error for an answer with an unexpected status: the status and the start of the answer's text."""
    start = " ".join(opening(response).split())
    return Unwelcome(
        shown_url(response.request.url),
        f"{response.status_code} {response.reason_phrase}" + (f": {start}" if start else "") + advice,
        status=httpx.codes.TOO_MANY_REQUESTS if is_refusal(response) else response.status_code,
    )


def _refused(response: httpx.Response) -> RefusedInText:
    text = " ".join(opening(response).split())
    url, status = shown_url(response.request.url), httpx.codes.TOO_MANY_REQUESTS
    return RefusedInText(url, f"{response.status_code}, but no list: {text}", status=status)


def _with_text(error: PageError, response: httpx.Response) -> PageError:
    """The error for an answer without a list, with the text of a short answer: it may say what is wrong."""
    text = " ".join(opening(response).split())
    if type(error) is not NoList or len(response.content) > SHORT or not text:
        return error
    return NoList(f"{error}; the answer is {text}", hint=error.hint)


def _validators(response: httpx.Response) -> bytes | None:
    """The headers of the next conditional request. Their bytes are kept as they came, as Latin-1.

    Last-Modified is used only without an ETag and if it is strong (RFC 9110, 8.8.2.2), because much can change within a
    second.
    """
    answered = {name.lower(): value.decode("latin-1") for name, value in response.headers.raw}
    found = {}
    if etag := answered.get(b"etag"):
        found["If-None-Match"] = etag
    elif (modified := answered.get(b"last-modified")) and _is_strong(modified, answered.get(b"date")):
        found["If-Modified-Since"] = modified
    if not found or sum(map(len, found.values())) > LONGEST_VALIDATOR or SECRETS.redact(found) != found:
        return None
    return orjson.dumps(found)


def _is_strong(modified: str, date: str | None) -> bool:
    """Whether Last-Modified is at least a minute older than the answer's own Date."""
    changed, answered = instant(modified), instant(date or "")
    return changed is not None and answered is not None and answered - changed >= STRONG


def _add_validators(request: httpx.Request, validators: bytes) -> None:
    """Add the validators of the last answer, byte for byte."""
    request.headers.encoding = "latin-1"
    for name, value in orjson.loads(validators).items():
        request.headers[name] = value
