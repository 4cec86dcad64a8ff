"""Differences between two configurations at a reload: what changes, and what needs a restart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from poller.config.models import Config, Settings

AT_START: Final = ("state", "plugins_dir")  # an open file, and loaded code


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """A configuration to continue with, and how it differs from the one before."""

    config: Config  # with the old values of keys that need a restart
    changed: tuple[str, ...]  # "sources.shop", "poller.retention"
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
    told = [f"{table}.{name} added" for name in after if name not in before]
    told += [f"{table}.{name} removed" for name in before if name not in after]
    return told + [f"{table}.{name}" for name in after if name in before and before[name] != after[name]]
