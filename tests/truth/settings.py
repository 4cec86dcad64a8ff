"""The configuration with which a world is watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plugins.rest import RestOptions, RestSource
from poller.budget.limits import Limit
from poller.config.models import BudgetConfig, Config, EndpointConfig, SourceConfig
from tests.truth.world import World

LIMITS = (Limit(4, 1.0), Limit(60, 60.0))
TIMEOUT = 5.0


def config_of(world: World, path: Path) -> Config:
    """The configuration with which that world is watched."""
    endpoints: dict[str, Any] = {"things": _things(world)}
    if world.lines:
        endpoints["lines"] = _lines(world)
    common = EndpointConfig(baseline=world.baseline, absent_for=world.absent_for)
    settings = common.model_copy(
        update={"ignore": ("/noise",), "deleted_when": "object.gone == true" if world.soft else None}
    )
    source = SourceConfig(
        name="api",
        plugin="rest",
        budget="api",
        namespace="api",
        timeout=TIMEOUT,
        verify=False,
        cls=RestSource,
        options=RestOptions.model_validate({"base_url": "http://api.test", "endpoints": endpoints}),
        endpoints={"things": settings, **({"lines": common} if world.lines else {})},
    )
    budget = BudgetConfig.model_construct(limits=LIMITS, share=1.0, concurrency=world.concurrency)
    return Config(path=path, budgets={"api": budget}, sources={"api": source})


def _things(world: World) -> dict[str, Any]:
    table: dict[str, Any] = {"path": "/things", "items": "$.items", "order": world.order, "error": "$.errors"}
    table["id"] = "content" if world.content else "id"
    if world.style != "none":
        table["pagination"] = _pagination(world)
    if world.has_items:
        table["item_path"] = "/things/{id}"
    if world.since:
        table["updated_since"] = {"param": "since", "field": "updated_at", "overlap": "5s"}
    if world.past_end != 200:
        table["empty_status"] = [world.past_end]
    return table


def _pagination(world: World) -> dict[str, Any]:
    size = world.size
    match world.style:
        case "page":
            return {"type": "page", "size": size, "size_param": "size"}
        case "page-total":
            return {"type": "page", "size": size, "size_param": "size", "total": "$.total"}
        case "page-open":
            return {"type": "page"}
        case "page-more":
            return {"type": "page", "more": "$.more"}
        case "offset":
            return {"type": "offset", "size": size}
        case "offset-total":
            return {"type": "offset", "size": size, "total": "$.total"}
        case "link":
            return {"type": "link"}
    return {"type": "cursor"}


def _lines(world: World) -> dict[str, Any]:
    table: dict[str, Any] = {"path": "/things/{parent.id}/lines", "items": "$.items", "parent": "things"}
    table["error"] = "$.errors"
    if world.line_size:
        table["pagination"] = {"type": "page", "size": world.line_size, "size_param": "size"}
    return table
