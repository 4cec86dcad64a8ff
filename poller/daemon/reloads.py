"""What a reload takes over of a configuration, what it leaves as it was, and how the two are told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from poller.config.models import Config, Settings

AT_START: Final = ("state", "plugins_dir")  # a file that is open, and code that is loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """A configuration to go on with, and how it differs from the one before."""

    config: Config  # with the values of before for what needs a restart
    changed: tuple[str, ...]  # "sources.shop", "poller.retention"
    kept: tuple[str, ...]  # "poller.listen": changed in the file, and not taken over


def reload_of(before: Config, after: Config) -> Reload:
    """What a reload of `after` goes on with, where `before` runs."""
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
