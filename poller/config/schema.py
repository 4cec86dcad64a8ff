"""JSON schema of `poller.toml`, generated from the models, with which editors complete and check the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from poller.config.models import BudgetConfig, EndpointConfig, Settings, SourceConfig, SubscriptionConfig
from poller.hooks.faults import attempted
from poller.hooks.loading import Plugins

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_LOADED: Final = ("cls", "options")  # fields of the models that are not keys


def schema_of(plugins: Plugins) -> Schema:
    """The schema, including the keys of every loaded plugin."""
    sources = [_source(name, cls.Options) for name, cls in sorted(plugins.sources.items())]
    sinks = [_subscription(name, cls.Options) for name, cls in sorted(plugins.sinks.items())]
    return {
        "$schema": DIALECT,
        "title": "poller.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "poller": _inlined(Settings),
            "budgets": {"type": "object", "additionalProperties": _inlined(BudgetConfig)},
            "sources": {"type": "object", "additionalProperties": {"anyOf": sources}},
            "subscriptions": {"type": "array", "items": {"anyOf": sinks}},
        },
    }


def _source(name: str, options: type[BaseModel]) -> Schema:
    """`[sources.NAME]` of one plugin: its keys and the engine's, for the table and for each of its endpoints."""
    theirs = _inlined(options)
    source = _merged(name, _without(_inlined(SourceConfig), "name", "endpoints", *_LOADED), theirs)
    endpoint = _inlined(EndpointConfig)
    inner = theirs.get("properties", {}).get("endpoints", {}).get("additionalProperties")
    if isinstance(inner, dict):
        endpoint = _both(endpoint, inner)
    source["properties"]["endpoints"] = {"type": "object", "additionalProperties": endpoint}
    return source


def _subscription(name: str, options: type[BaseModel]) -> Schema:
    """`[[subscriptions]]` of one plugin."""
    return _merged(name, _without(_inlined(SubscriptionConfig), *_LOADED), _inlined(options))


def _merged(plugin: str, ours: Schema, theirs: Schema) -> Schema:
    merged = _both(ours, theirs)
    merged["title"] = plugin
    merged["properties"]["plugin"] = {"const": plugin}
    return merged


def _both(one: Schema, other: Schema) -> Schema:
    """The keys of two tables merged into one."""
    return {
        "type": "object",
        "properties": {**other.get("properties", {}), **one.get("properties", {})},
        "required": sorted({*one.get("required", ()), *other.get("required", ())}),
        "additionalProperties": other.get("additionalProperties", False) if "properties" in other else True,
    }


def _without(schema: Schema, *keys: str) -> Schema:
    return {**schema, "properties": {k: v for k, v in schema["properties"].items() if k not in keys}}


def _inlined(model: type[BaseModel]) -> Schema:
    """A model's schema without references; without a model, a table with arbitrary keys."""
    schema, _ = attempted(lambda: model.model_json_schema(mode="validation"))
    if schema is None:
        return {"type": "object"}
    found: Schema = _resolved(schema, schema.get("$defs", {}), ())
    return found


def _resolved(value: Any, definitions: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_resolved(one, definitions, above) for one in value]
    if not isinstance(value, dict):
        return value
    name = str(value.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions:
        if name in above:  # a model inside itself is not expanded further
            return {}
        rest = {key: inner for key, inner in value.items() if key != "$ref"}
        return _resolved({**definitions[name], **rest}, definitions, (*above, name))
    # Names below "properties" are keys of the file, one of which may be called `default`.
    return {
        key: {name: _resolved(inner, definitions, above) for name, inner in given.items()}
        if key == "properties"
        else _resolved(given, definitions, above)
        for key, given in value.items()
        if key not in ("$defs", "default", "discriminator")
    }
