"""Differences between two configurations at a reload: what changes, and what needs a restart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from poller.config.models import Config, Settings

AT_START: Final = ("state",)  # an open file


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration to continue with, and how it differs from the one before."""

    config: Config  # with the old values of keys that need a restart
    changed: tuple[str, ...]  # "sources.shop added", "poller.retention", "subscriptions.crm.where"
    kept: tuple[str, ...]  # "poller.state": changed in the file, but needs a restart


def reload_of(before: Config, after: Config) -> Reload:
    """The configuration to continue with if `before` runs and `after` is loaded."""
    old, new = before.poller, after.poller
    held = [name for name in AT_START if getattr(old, name) != getattr(new, name)]
    settings = new.model_copy(update={name: getattr(old, name) for name in held})
    changed = [f"poller.{name}" for name in Settings.model_fields if getattr(old, name) != getattr(settings, name)]
    changed += _differences("budgets", before.budgets, after.budgets)
    changed += _differences("sources", before.sources, after.sources)
    changed += _differences(
        "subscriptions",
        {one.name: one for one in before.subscriptions},
        {one.name: one for one in after.subscriptions},
    )
    return Reload(
        config=after.model_copy(update={"poller": settings}),
        changed=tuple(changed),
        kept=tuple(f"poller.{name}" for name in held),
    )


def _differences(table: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between the tables of two configurations, each by the keys with which the file writes it."""
    told = [f"{table}.{name} added" for name in after if name not in before]
    told += [f"{table}.{name} removed" for name in before if name not in after]
    both = [name for name in after if name in before and before[name] != after[name]]
    return told + [
        f"{table}.{name}.{key}" for name in both for key in _keys(_values(before[name]), _values(after[name]))
    ]


def _keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    if before.get("plugin") != after.get("plugin"):
        return ["plugin"]
    plain = [name for name in {**before, **after} if name != "endpoints" and before.get(name) != after.get(name)]
    return plain + _differences("endpoints", before.get("endpoints", {}), after.get("endpoints", {}))


def _values(table: Any) -> dict[str, Any]:
    """The values of a table by their keys: those of the engine and those of the plugin, as in the file."""
    if not isinstance(table, BaseModel):
        return dict(table or {})
    own = {name: getattr(table, name) for name in type(table).model_fields if name not in ("cls", "options")}
    given = _values(getattr(table, "options", None))
    lists = {name: _values(one) for name, one in (given.get("endpoints") or {}).items()}
    if lists or "endpoints" in own:
        known = {name: _values(one) for name, one in own.get("endpoints", {}).items()}
        own["endpoints"] = {name: {**lists.get(name, {}), **known.get(name, {})} for name in {**known, **lists}}
    return {**given, **own}
