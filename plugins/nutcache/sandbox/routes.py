"""The answer to each path of the API, once a call was admitted."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from plugins.nutcache.profiles import Profile, Resource
from plugins.nutcache.sandbox import filtering, writing
from plugins.nutcache.sandbox.exchange import Answer, Refusal, Request
from plugins.nutcache.sandbox.listing import Listing
from plugins.nutcache.sandbox.rendering import Renderer
from plugins.nutcache.sandbox.variants import Variants
from plugins.nutcache.sandbox.world import GLOBAL, Record, World


class Routes:
    """Finds, lists and writes the records that a path names. Every method raises Refusal."""

    def __init__(self, world: World, profile: Profile, variants: Variants) -> None:
        self.forbidden: frozenset[str] = frozenset()  # resources that the user lacks permission for: 403
        self._world = world
        self._profile = profile
        self._variants = variants
        self._renderer = Renderer(world, variants)
        self._listing = Listing(world, self._renderer, variants)
        self._hidden: frozenset[str] = frozenset()

    def hide(self, names: frozenset[str]) -> None:
        """Hide these fields from the user, and show all others."""
        self._hidden = names
        self._renderer.hide(names)

    def answer(self, request: Request) -> Answer:
        """The answer to an admitted call."""
        if self._variants.version_header == "required":
            version = request.headers.get("api-version")
            if version != self._profile.api_version:
                raise Refusal(400, f"api-version must be {self._profile.api_version}.")
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

    def _missing(self) -> Refusal:
        return Refusal(int(self._variants.unknown), "There is nothing here.")

    def _resource(self, name: str) -> Resource:
        known = self._profile.resources.get(name)
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
        if resource.name == self._profile.companies:
            ids = self._world.visible
        return self._page(resource, ids, request, filtered=filtered)

    def _single(self, resource: Resource, text: str, request: Request) -> Answer:
        company = self._company(resource, request)
        record = self._found(resource, text, company)
        writable = resource.name == "time_entries"
        if request.method == "GET" and resource.has_items:
            return self._listing.item(resource, record, request)
        if request.method == "PUT" and writable:
            writing.edit(self._world, record, request.body, self._variants)
            return self._written(record, 200, request)
        if request.method == "DELETE" and writable:
            writing.delete(self._world, record, self._variants)
            return Answer(status=200 if self._variants.writes == "empty" else 204)
        raise self._missing()

    def _children(self, parent: Resource, text: str, child: str, request: Request, *, filtered: bool) -> Answer:
        resource = self._profile.resources.get(child)
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
        if resource.deleted_status is not None and self._variants.soft_deleted == "vanished":
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
                lenient=self._variants.filters == "ignore",
                readable=lambda name: f"{resource.name}.{name}" not in self._hidden,
            )
        except filtering.RuleError as error:
            raise Refusal(400, str(error)) from error
        return [row.id for row in chosen]

    def _written(self, record: Record, status: int, request: Request) -> Answer:
        if self._variants.writes == "empty":
            return Answer(status=200)
        shown = self._listing.item(self._profile.resources[record.resource], record, request)
        return Answer(status=status, body=shown.body)

    def _found(self, resource: Resource, text: str, company: int) -> Record:
        is_id = text.isascii() and text.isdigit() and len(text) < 19
        record = self._world.get(resource.name, int(text) if is_id else None)
        if record is None:
            raise self._missing()
        if resource.tenant and record.company != company:
            raise self._missing()
        if resource.name == self._profile.companies and record.id not in self._world.visible:
            raise self._missing()
        if self._variants.soft_deleted == "vanished" and self._world.is_deleted(record):
            raise self._missing()
        return record

    def _company(self, resource: Resource, request: Request) -> int:
        """The company of a call; GLOBAL if it needs none. Raises Refusal."""
        if resource.name in self.forbidden:
            raise Refusal(403, f"You lack permission to see {resource.name}.")
        if not resource.tenant:
            return GLOBAL
        header = self._profile.company_header
        if self._variants.company_header != "profile":
            header = self._variants.company_header
        try:
            guid = uuid.UUID(request.headers.get(header.lower(), "").strip("{}"))
        except ValueError:
            raise Refusal(int(self._variants.company_missing), f"{header} must be a company's GUID.") from None
        for company in self._world.visible:
            record = self._world.tables[self._profile.companies][company]
            if uuid.UUID(record["guid"]) == guid:
                self._world.touch(record, last_activity_date=round(self._world.now, 3))
                return company
        raise Refusal(int(self._variants.company_foreign), "You are not in this company.")
