"""Commands of installed plugins, found without loading plugins that register none."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

GROUP: Final = "poller"
HOOK: Final = "register_commands"
MARK: Final = "poller_impl"  # what `poller.hookimpl` sets on a function


def add_commands(group: click.Group) -> None:
    """Let every installed plugin add its commands. Exceptions of a plugin are reported when plugins are loaded."""
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda one: one.name):
        if _may_register(entry):
            import_module("poller.hooks.faults").attempted(lambda entry=entry: _register(entry, group))


def _may_register(entry: importlib.metadata.EntryPoint) -> bool:
    """Whether the plugin may implement the hook: its module's text names the hook, or it imports names with `*`."""
    if entry.attr:
        return True
    with suppress(Exception):  # a broken package is reported when plugins are loaded
        spec = importlib.util.find_spec(entry.module)
        if spec is not None and spec.origin is not None:
            text = Path(spec.origin).read_text(encoding="utf-8")
            return HOOK in text or "import *" in text or "__getattr__" in text
    return True


def _register(entry: importlib.metadata.EntryPoint, group: click.Group) -> None:
    function: Any = getattr(entry.load(), HOOK, None)
    if function is not None and hasattr(function, MARK):
        function(*[group for _ in inspect.signature(function).parameters])
