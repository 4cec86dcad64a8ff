"""What a plugin object registers: its hooks, checked against their specification, and its classes of sources
and sinks.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final

import pluggy

from poller.hooks import hookspecs
from poller.hooks.contracts import check_hook, check_name
from poller.hooks.faults import PluginError

HOOKS: Final = tuple(name for name, spec in vars(hookspecs).items() if hasattr(spec, "poller_spec"))


def implementations(manager: pluggy.PluginManager, hook: str) -> list[pluggy.HookImpl]:
    """Every implementation of a hook, in the order in which they are called."""
    found = getattr(manager.hook, hook).get_hookimpls()
    return sorted(found, key=lambda one: (not one.tryfirst, one.trylast))


def known_hooks(manager: pluggy.PluginManager, plugin: object) -> list[str]:
    """The names of the hooks that a registered plugin implements. Raises PluginError for one that does not exist."""
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec():
            known = get_close_matches(caller.name, [name for name in vars(hookspecs) if name[0] != "_"], n=1)
            raise PluginError(f"there is no hook {caller.name!r}" + (f"; did you mean {known[0]!r}?" if known else ""))
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin:
                check_hook(caller.name, implementation)
    return sorted(caller.name for caller in callers)


def has_no_hook(plugin: object) -> bool:
    """Whether nothing in a plugin has the name of a hook: it is code that others import, not a forgotten @hookimpl."""
    return not any(hasattr(plugin, name) for name in HOOKS)


def classes_of(
    manager: pluggy.PluginManager, plugin: object, hook: str, check: Callable[[str, Any], None]
) -> list[tuple[str, type[Any]]]:
    """The classes that a plugin registers in `hook`, each checked. Raises PluginError."""
    found: list[tuple[str, type[Any]]] = []

    def register(name: str, cls: Any) -> None:
        check_name(name, hook.removeprefix("register_").removesuffix("s"))
        check(name, cls)
        found.append((name, cls))

    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin is plugin:
            implementation.function(*[register for _ in implementation.argnames])
    return found


def unlike(error: pluggy.PluginValidationError) -> str:
    """Which hook differs from its specification, and how; pluggy says it in several lines."""
    text = " ".join(str(error).split())
    found = re.search(r"hook '(\w+)'.*?Argument\(s\) \{(.*?)\} are declared", text)
    if found is None:
        return text
    known = inspect.signature(getattr(hookspecs, found[1])).parameters
    return f"`{found[1]}` takes ({', '.join(known)}), not {found[2]}"
