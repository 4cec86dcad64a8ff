"""Completion of names (subscriptions, budgets and endpoints) from the configuration file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from poller.config.files import find
from poller.options.problems import ConfigError

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def named(*kinds: str) -> Complete:
    """Completes names of these kinds: subscription, budget, source or endpoint."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        path = getattr(context.find_root().obj, "path", None)
        names = {name for kind in kinds for name in names_of(path, kind)}
        return sorted(name for name in names if name.startswith(incomplete))

    return complete


def names_of(path: Path | None, kind: str) -> Iterator[str]:
    """The names of one kind in the file; none if the file cannot be read."""
    try:
        tables = tomllib.loads(find(path).read_text(encoding="utf-8-sig"))
    except (ConfigError, OSError, ValueError):
        return
    for name in _tables(tables, "sources"):
        endpoints = tables["sources"][name].get("endpoints") if isinstance(tables["sources"][name], dict) else None
        if kind == "endpoint" and isinstance(endpoints, dict):
            yield from (f"{name}/{endpoint}" for endpoint in endpoints)
    if kind in ("source", "budget"):
        yield from _tables(tables, f"{kind}s")
    if kind == "subscription" and isinstance(found := tables.get("subscriptions"), list):
        yield from (one["name"] for one in found if isinstance(one, dict) and isinstance(one.get("name"), str))


def _tables(tables: dict[str, Any], key: str) -> list[str]:
    found = tables.get(key)
    return list(found) if isinstance(found, dict) else []
