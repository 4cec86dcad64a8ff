"""A strict local server of the Nutcache API: it answers as documented and refuses everything else. `server` runs it on
a port."""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugins.nutcache.profiles import LIMITS, V4, Profile, Resource
from plugins.nutcache.sandbox import filtering, writing
from plugins.nutcache.sandbox.admission import TOKEN_SECONDS, Admission
from plugins.nutcache.sandbox.exchange import HTML, Answer, Refusal, Request, error_answer
from plugins.nutcache.sandbox.faults import Fault, Faults
from plugins.nutcache.sandbox.journal import Journal
from plugins.nutcache.sandbox.listing import Listing
from plugins.nutcache.sandbox.office import MONDAY_MORNING, Office
from plugins.nutcache.sandbox.rendering import Renderer
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.variants import Variants
from plugins.nutcache.sandbox.world import GLOBAL, Record
from poller import Limit
from poller.options.quantities import parse_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a sandbox. The office's time begins at `start`; `clock` is the server's clock (Unix seconds)."""

    profile: Profile = V4
    variants: Variants = field(default_factory=Variants)
    limits: Sequence[Limit] = tuple(map(parse_rate, LIMITS))
    size: Size = field(default_factory=Size)
    seed: int = 1
    start: float = MONDAY_MORNING
    clock: Callable[[], float] = field(default=time.time)
    token_seconds: float = TOKEN_SECONDS
    journal_path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that came in below the base URL."""

    at: float
    method: str
    path: str
    query: str
    status: int  # 0: the connection was dropped


class Sandbox:
    """The server without its port: the office, the waiting faults, and the calls so far."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings = settings or Settings()
        self.profile = settings.profile
        self.variants = settings.variants
        self.office = Office(
            profile=settings.profile,
            seed=settings.seed,
            size=settings.size,
            start=settings.start,
            clock=settings.clock,
            journal_path=settings.journal_path,
        )
        self.faults = Faults()
        self.admission = Admission(
            settings.limits, self.variants, clock=settings.clock, token_seconds=settings.token_seconds
        )
        self.forbidden: set[str] = set()  # resources that the user lacks permission for: 403
        self.log: deque[Call] = deque(maxlen=100_000)
        self.statuses: Counter[int] = Counter()
        self._world = self.office.world
        self._renderer = Renderer(self._world, self.variants)
        self._listing = Listing(self._world, self._renderer, self.variants)
        self._hidden: frozenset[str] = frozenset()

    @property
    def journal(self) -> Journal:
        return self.office.journal

    def hide(self, *names: str) -> None:
        """Hide fields (`customers.phone`) from the user; without names, show all of them again."""
        with self._world.lock:
            self._hidden = frozenset(names)
            self._renderer.hide(self._hidden)

    def forbid(self, *resources: str) -> None:
        """Forbid whole resources (403); without names, allow all of them again."""
        self.forbidden = set(resources)

    def calls(self) -> dict[str, Any]:
        """The number of calls and of refused calls, the highest use of each window, and a count of each status."""
        statuses = {str(status): count for status, count in sorted(self.statuses.items())}
        return {**self.admission.tallies(), "statuses": statuses, "logins": self.admission.logins}

    def note(self, request: Request, status: int) -> None:
        """Record that a call was answered; status 0 means that it was not."""
        self.statuses[status] += 1
        self.log.append(
            Call(
                at=self.settings.clock(),
                method=request.method,
                path=request.path,
                query=request.raw_query,
                status=status,
            )
        )

    def answer(self, request: Request) -> tuple[Fault | None, Answer]:
        """The answer to a call, and the fault that still has to be applied to it."""
        fault = None
        try:
            with self._world.lock:
                is_login = request.path == self.profile.token_path and request.method == "POST"
                login = self.admission.log_in(request) if is_login else None
                if login is None:
                    self.admission.admit(request)
                fault = self.faults.take(request.path, request.raw_query)
                if fault is not None and fault.kind in ("status", "html", "body"):
                    return fault, _faulty(fault)
                answer = login or self._route(request)
        except Refusal as refusal:
            return fault, error_answer(refusal, self.variants.errors)
        if fault is not None and fault.kind == "truncated":
            answer = Answer(status=answer.status, body=answer.body[: len(answer.body) // 2])
        return fault, answer

    # Routes

    def _missing(self) -> Refusal:
        return Refusal(int(self.variants.unknown), "There is nothing here.")

    def _route(self, request: Request) -> Answer:
        if self.variants.version_header == "required":
            version = request.headers.get("api-version")
            if version != self.profile.api_version:
                raise Refusal(400, f"api-version must be {self.profile.api_version}.")
        words = request.path.split("/")
        filtered = words[-1] == "filtered" and request.method == "POST"
        if filtered:
            words.pop()
        match words:
            case [name]:
                return self._collection(self._resource(name), request, filtered=filtered)
            case [name, text] if not filtered:
                return self._single(self._resource(name), text, request)
            case [parent, text, child]:
                return self._children(self._resource(parent), text, child, request, filtered=filtered)
        raise self._missing()

    def _resource(self, name: str) -> Resource:
        known = self.profile.resources.get(name)
        if known is None or known.parent is not None:
            raise self._missing()
        return known

    def _collection(self, resource: Resource, request: Request, *, filtered: bool) -> Answer:
        company = self._company(resource, request)
        if request.method == "POST" and resource.name == "time_entries" and not filtered:
            return self._written(writing.create(self._world, company, request.body), 201, request)
        if request.method != "GET" and not filtered:
            raise self._missing()
        ids: Sequence[int] = self._world.ids(resource.name, company if resource.tenant else GLOBAL)
        if resource.name == self.profile.companies:
            ids = self._world.visible
        return self._page(resource, ids, request, filtered=filtered)

    def _single(self, resource: Resource, text: str, request: Request) -> Answer:
        company = self._company(resource, request)
        record = self._found(resource, text, company)
        writable = resource.name == "time_entries"
        if request.method == "GET" and resource.has_items:
            return self._listing.item(resource, record, request)
        if request.method == "PUT" and writable:
            writing.edit(self._world, record, request.body, self.variants)
            return self._written(record, 200, request)
        if request.method == "DELETE" and writable:
            writing.delete(self._world, record, self.variants)
            return Answer(status=200 if self.variants.writes == "empty" else 204)
        raise self._missing()

    def _children(self, parent: Resource, text: str, child: str, request: Request, *, filtered: bool) -> Answer:
        resource = self.profile.resources.get(child)
        nested = parent.name == "countries" and child == "states"
        if resource is None or (resource.parent != parent.name and not nested):
            raise self._missing()
        if request.method != "GET" and not filtered:
            raise self._missing()
        record = self._found(parent, text, self._company(resource, request))
        if nested:
            rows = self._world.rows("states", GLOBAL)
            ids: Sequence[int] = [row.id for row in rows if row["country"] == record.id]
        else:
            ids = self._world.ids(child, record.id)
        return self._page(resource, ids, request, filtered=filtered)

    def _page(self, resource: Resource, ids: Sequence[int], request: Request, *, filtered: bool) -> Answer:
        table = self._world.tables[resource.name]
        if resource.deleted_status is not None and self.variants.soft_deleted == "vanished":
            ids = [record_id for record_id in ids if not self._world.is_deleted(table[record_id])]
        if filtered:
            ids = self._selected(resource, [table[record_id] for record_id in ids], request)
        return self._listing.page(resource, ids, request)

    def _selected(self, resource: Resource, rows: Sequence[Record], request: Request) -> list[int]:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refusal(400, "Content-Type must be application/json.")
        try:
            chosen = filtering.select(
                resource,
                request.body,
                rows,
                lenient=self.variants.filters == "ignore",
                readable=lambda name: f"{resource.name}.{name}" not in self._hidden,
            )
        except filtering.RuleError as error:
            raise Refusal(400, str(error)) from error
        return [row.id for row in chosen]

    def _written(self, record: Record, status: int, request: Request) -> Answer:
        if self.variants.writes == "empty":
            return Answer(status=200)
        shown = self._listing.item(self.profile.resources[record.resource], record, request)
        return Answer(status=status, body=shown.body)

    def _found(self, resource: Resource, text: str, company: int) -> Record:
        is_id = text.isascii() and text.isdigit() and len(text) < 19
        record = self._world.get(resource.name, int(text) if is_id else None)
        if record is None:
            raise self._missing()
        if resource.tenant and record.company != company:
            raise self._missing()
        if resource.name == self.profile.companies and record.id not in self._world.visible:
            raise self._missing()
        if self.variants.soft_deleted == "vanished" and self._world.is_deleted(record):
            raise self._missing()
        return record

    def _company(self, resource: Resource, request: Request) -> int:
        """The company of a call; GLOBAL if it needs none. Raises Refusal."""
        if resource.name in self.forbidden:
            raise Refusal(403, f"You lack permission to see {resource.name}.")
        if not resource.tenant:
            return GLOBAL
        header = self.profile.company_header
        if self.variants.company_header != "profile":
            header = self.variants.company_header
        try:
            guid = uuid.UUID(request.headers.get(header.lower(), "").strip("{}"))
        except ValueError:
            raise Refusal(int(self.variants.company_missing), f"{header} must be a company's GUID.") from None
        for company in self._world.visible:
            record = self._world.tables[self.profile.companies][company]
            if uuid.UUID(record["guid"]) == guid:
                self._world.touch(record, last_activity_date=round(self._world.now, 3))
                return company
        raise Refusal(int(self.variants.company_foreign), "You are not in this company.")


def _faulty(fault: Fault) -> Answer:
    headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
    if fault.kind == "html":
        page = "<!DOCTYPE html><html><body><h1>Down for maintenance</h1></body></html>"
        return Answer(status=fault.status or 200, body=(fault.body or page).encode(), content_type=HTML)
    status = fault.status or (500 if fault.kind == "status" else 200)
    return Answer(status=status, body=(fault.body or '{"message":"A fault on our side."}').encode(), headers=headers)
