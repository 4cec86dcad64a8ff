"""One poll: a unit is asked for, and its answer is settled on the store's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import orjson

from poller.changes.page import digest_of
from poller.clock import Clock
from poller.documents.diff import parse
from poller.hooks.source_adapter import PluggedSource
from poller.polling.endpoint import CHILD, NEWEST, SINCE, Watching, load_position
from poller.polling.recording import Settling, chain_digest
from poller.polling.results import Answer, Asked, Outcome
from poller.sources.charsets import opening
from poller.sources.errors import FetchError
from poller.sources.protocol import PageError, Position, Unparsed
from poller.sources.urls import shown_url
from state.polls import Suspect, UnitState
from state.sqlite.read_polls import PollReader
from state.sqlite.writer import Write

Ask = Callable[[httpx.Request], Awaitable[httpx.Response]]

LARGE = 256 * 1024  # bytes from which an answer is split in a thread
MOST_PAGES = 10_000  # of one chain: a list that never ends is an error, not a poll
GONE = frozenset({404, 410})
LONGEST_VALIDATOR = 4096  # characters; a server refuses requests with longer headers


class Unwelcome(FetchError):
    """The server answered, and not with the list."""


class Polling:
    """Polls the units of one source. `ask` sends one request, paid from the budget; it raises FetchError."""

    def __init__(
        self, source: PluggedSource, *, settling: Settling, reader: PollReader, write: Write, clock: Clock
    ) -> None:
        self._source = source
        self._settling = settling
        self._reader = reader
        self._write = write
        self._clock = clock

    async def poll(self, w: Watching, key: str, ask: Ask, *, waits: bool = False) -> Outcome:
        """Ask for a unit and record what it shows. Raises FetchError or PageError; then nothing is recorded."""
        unit = w.units.get(key)
        at = None if unit is None else await self._position(w, key)
        if unit is None or at is None:
            return Outcome(aside=True)  # it, or its parent, has just gone
        with w.asking(key, self._clock.now()):
            answer = await self._ask(w, unit, at, ask)
            if self._write.is_idle and self._settling.writes_nothing(w, key, answer):
                return self._settling.settle(w, key, answer, waits=waits)
            return await self._write.unhurried(self._settling.settle, w, key, answer, waits=waits)

    async def confirm(self, w: Watching, suspect: Suspect, ask: Ask) -> Outcome:
        """Ask for a suspect's own URL: 404 and 410 confirm its deletion. Raises FetchError."""
        request = self.item_request(w, suspect)
        if request is None:
            return Outcome()
        asked_at = self._clock.now()
        with w.asking(f"item {suspect.snapshot.object_id}", asked_at):
            response = await ask(request)
            asked = Asked(at=asked_at, answered_at=self._clock.now())
            if response.status_code in GONE:
                return await self._write(self._settling.delete, w, suspect, asked)
            if response.is_success or response.status_code == httpx.codes.FORBIDDEN:
                await self._write(self._settling.still_there, w, suspect)
                return Outcome(calls=1)
            raise unwelcome(response)

    def item_request(self, w: Watching, suspect: Suspect) -> httpx.Request | None:
        """The request for a suspect's own URL. None: it has none, and complete sweeps decide."""
        try:
            return self._source.item_request(w.watch.endpoint, suspect.snapshot.object_id)
        except PageError:  # an id that no URL can hold
            return None

    async def _position(self, w: Watching, key: str) -> Position | None:
        first = w.watch.endpoint.first
        if key == SINCE:
            since = w.state.since_at or w.state.last_sweep_began or 0.0
            return replace(first, since=max(0.0, since - w.watch.endpoint.overlap))
        if key == NEWEST:
            return first
        if key.startswith(CHILD):
            parent = await self._write(self._parent, w, key.removeprefix(CHILD))
            return None if parent is None else replace(first, parent=parent)
        return load_position(w.units[key].position)

    def _parent(self, w: Watching, parent_id: str) -> dict[str, Any] | None:
        body = self._reader.parent_body(w.state.source, w.watch.endpoint.parent or "", parent_id)
        return None if body is None else parse(body)

    async def _ask(self, w: Watching, unit: UnitState, at: Position, ask: Ask) -> Answer:
        asked_at = self._clock.now()
        request = self._source.request(w.watch.endpoint, at)
        conditional = False
        if unit.validators is not None and unit.digest is not None and not self._may_go_on(w, unit):
            _add_validators(request, unit.validators)
            conditional = True
        response = await ask(request)
        unmodified = conditional and response.status_code == httpx.codes.NOT_MODIFIED
        digest = _digest(w, response)
        if unmodified or (unit.calls == 1 and response.is_success and digest == unit.digest):
            asked = Asked(at=asked_at, answered_at=self._clock.now())
            return Answer(asked=asked, calls=1, unit=unit.id, digest=unit.digest)
        return await self._read_on(w, unit, _Begun(at=at, response=response, digest=digest, asked_at=asked_at), ask)

    @staticmethod
    def _may_go_on(w: Watching, unit: UnitState) -> bool:
        """A last page whose headers alone would tell that another one begins must be seen: 304 might not tell."""
        return bool(w.watch.endpoint.page_headers) and unit.next is None

    async def _read_on(self, w: Watching, unit: UnitState, begun: _Begun, ask: Ask) -> Answer:
        """Read a chain to its end: cursors, and every page of a list that is one unit."""
        one_unit = w.is_child or not w.sweeps(unit.key)
        at, response = begun.at, begun.response
        bodies, pages, complete = [begun.digest], [await self._page(w, at, response)], True
        while (following := pages[-1].next) is not None and (following.cursor is not None or one_unit):
            if unit.key == NEWEST and await self._write(self._settling.shows_nothing_new, w, pages[-1]):
                complete = False
                break
            if len(pages) >= MOST_PAGES:
                raise PageError(f"{w.label}: the list has not ended after {MOST_PAGES} pages")
            at = replace(following, parent=at.parent, since=at.since)
            response = await ask(self._source.request(w.watch.endpoint, at))
            bodies.append(_digest(w, response))
            pages.append(await self._page(w, at, response))
        digest = chain_digest(bodies)
        asked = Asked(at=begun.asked_at, answered_at=self._clock.now())
        if len(bodies) > 1 and digest == unit.digest:
            return Answer(asked=asked, calls=len(bodies), unit=unit.id, digest=digest)
        validators = _validators(response) if len(bodies) == 1 else None
        return Answer(
            asked=asked,
            calls=len(bodies),
            unit=unit.id,
            digest=digest,
            pages=pages,
            validators=validators,
            complete=complete,
        )

    async def _page(self, w: Watching, at: Position, response: httpx.Response) -> Unparsed:
        if not response.is_success:
            raise unwelcome(response)
        if len(response.content) > LARGE:
            return await asyncio.to_thread(self._source.page, w.watch.endpoint, at, response)
        return self._source.page(w.watch.endpoint, at, response)


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """The first answer of a poll."""

    at: Position
    response: httpx.Response
    digest: bytes
    asked_at: float


def _digest(w: Watching, response: httpx.Response) -> bytes:
    """Of the answer's bytes, and of the headers that say where its list goes on."""
    names = w.watch.endpoint.page_headers
    if not names:
        return digest_of(response.content)
    headers = "\n".join(response.headers.get(name, "") for name in names)
    return digest_of(digest_of(response.content) + headers.encode())


def unwelcome(response: httpx.Response) -> Unwelcome:
    """The error for an answer that is not what was asked for: its status and the start of its text."""
    start = " ".join(opening(response).split())
    return Unwelcome(
        shown_url(response.request.url),
        f"{response.status_code} {response.reason_phrase}" + (f": {start}" if start else ""),
        status=response.status_code,
    )


def _validators(response: httpx.Response) -> bytes | None:
    """The headers of the next conditional request. Their bytes are kept as they came, as Latin-1."""
    answered = {name.lower(): value.decode("latin-1") for name, value in response.headers.raw}
    found = {}
    if etag := answered.get(b"etag"):
        found["If-None-Match"] = etag
    if modified := answered.get(b"last-modified"):
        found["If-Modified-Since"] = modified
    return orjson.dumps(found) if found and sum(map(len, found.values())) <= LONGEST_VALIDATOR else None


def _add_validators(request: httpx.Request, validators: bytes) -> None:
    """Send back what the last answer was marked with, byte for byte."""
    request.headers.encoding = "latin-1"
    for name, value in orjson.loads(validators).items():
        request.headers[name] = value
