"""Lists of the sandbox: pages, their links, and records embedded in others."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

import orjson

from plugins.nutcache.profiles import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Resource
from plugins.nutcache.sandbox.exchange import Answer, Refusal, Request
from plugins.nutcache.sandbox.rendering import Form, Renderer, page_link
from plugins.nutcache.sandbox.variants import Variants
from plugins.nutcache.sandbox.world import Record, World

_JITTER = 5  # places that a record may move in an unstable order


class Listing:
    """Answers that show records of one world."""

    def __init__(self, world: World, renderer: Renderer, variants: Variants) -> None:
        self._world = world
        self._renderer = renderer
        self._variants = variants
        self._random = random.Random(1)

    def page(self, resource: Resource, ids: Sequence[int], request: Request) -> Answer:
        """One page of a list. Raises Refusal for an invalid page or limit."""
        number = self._number(request, "page", default=1, most=None)
        size = self._number(request, "limit", default=DEFAULT_PAGE_SIZE, most=MAX_PAGE_SIZE)
        includes = self._includes(resource, request)
        if self._variants.order == "unstable" and request.method == "GET":
            ids = self._shaken(ids)
        begin = (number - 1) * size
        if begin >= len(ids) and number > 1 and self._variants.past_end == "404":
            raise Refusal(404, "No such page.")
        table = self._world.tables[resource.name]
        rows = [table[record_id] for record_id in ids[begin : begin + size]]
        links = self._links(resource, request, number, size, more=begin + size < len(ids))
        return Answer(body=self._envelope(resource, rows, includes, "list", links))

    def item(self, resource: Resource, record: Record, request: Request) -> Answer:
        """One record, in its envelope."""
        includes = self._includes(resource, request)
        return Answer(body=self._envelope(resource, [record], includes, "item", None))

    def _number(self, request: Request, name: str, *, default: int, most: int | None) -> int:
        text = request.query.get(name)
        if text is None:
            return default
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if number >= 1 and (most is None or number <= most):
            return number
        if self._variants.bounds == "refuse":
            raise Refusal(400, f"{name} is out of range.")
        return most if most is not None and number > 1 else 1

    def _shaken(self, ids: Sequence[int]) -> list[int]:
        """Almost ascending order, different each time, as a database without ORDER BY may give it."""
        places = [place + self._random.uniform(0, _JITTER) for place in range(len(ids))]
        return [record_id for _, record_id in sorted(zip(places, ids, strict=True))]

    def _links(
        self, resource: Resource, request: Request, number: int, size: int, *, more: bool
    ) -> list[dict[str, str]] | None:
        if request.method == "POST" and self._variants.filtered_links == "absent":
            return None
        links = []
        if number > 1:
            rel = "navigation-prev" if resource.name == self._world.profile.companies else "navigation-previous"
            links.append(self._to_page(request, number - 1, size, rel))
        if more or self._variants.last_link == "always":
            links.append(self._to_page(request, number + 1, size, "navigation-next"))
        # Samples of sub-collections that fit on one page have no `links` at all.
        return links or (None if "/" in request.path.removesuffix("/filtered") else [])

    def _to_page(self, request: Request, number: int, size: int, rel: str) -> dict[str, str]:
        kept = {name: value for name, value in request.query.items() if name not in ("limit", "page")}
        query = urlencode({"limit": size, "page": number, **kept})
        return page_link(f"{request.path}?{query}", rel, method=request.method)

    def _includes(self, resource: Resource, request: Request) -> list[str]:
        text = request.query.get("includes") or request.query.get("include") or ""
        wanted = list(dict.fromkeys(filter(None, text.split(","))))
        unknown = [name for name in wanted if name not in resource.includes]
        if unknown and self._variants.unknown_include == "refuse":
            raise Refusal(400, f"{resource.name} cannot include {unknown[0]}.")
        if self._variants.embedding == "ignored":
            return []
        return [name for name in wanted if name in resource.includes]

    def _envelope(
        self,
        resource: Resource,
        rows: Sequence[Record],
        includes: Sequence[str],
        form: Form,
        links: list[dict[str, str]] | None,
    ) -> bytes:
        inline = includes if self._variants.embedding == "inline" else ()
        parts = [_array(resource.name, [self._written(row, form, inline) for row in rows])]
        if includes and not inline:
            parts += [self._siblings(name, rows) for name in includes]
        if links is not None:
            parts.append(b'"links":' + orjson.dumps(links))
        return b"{" + b",".join(parts) + b"}"

    def _written(self, record: Record, form: Form, inline: Sequence[str]) -> bytes:
        if inline:
            children = [_array(name, map(self._renderer.listed, self._related(record, name))) for name in inline]
            return self._renderer.write(record, form, children)
        return self._renderer.listed(record) if form == "list" else self._renderer.write(record, "item")

    def _siblings(self, name: str, rows: Sequence[Record]) -> bytes:
        related = {other.id: other for row in rows for other in self._related(row, name)}
        return _array(name, map(self._renderer.listed, related.values()))

    def _related(self, record: Record, name: str) -> list[Record]:
        """Records of one type that belong to another record: its children, or what it refers to."""
        world = self._world
        known = world.profile.resources.get(name)
        if known is not None and known.parent == record.resource:
            return list(world.rows(name, record.id))
        if name == world.profile.companies:
            return [world.tables[name][record.company]]
        fields = world.profile.resources[record.resource].fields.values()
        referring = [record.values.get(field.name) for field in fields if field.refers == name]
        if not referring and name == "customers" and (project := world.get("projects", record["project"])):
            referring = [project["customer"]]  # an expense's customer is its project's
        if name not in world.tables:
            return []
        return [found for value in referring if (found := world.get(name, value))]


def _array(name: str, items: Iterable[bytes]) -> bytes:
    return orjson.dumps(name) + b":[" + b",".join(items) + b"]"
