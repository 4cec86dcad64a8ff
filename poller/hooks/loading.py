"""Plugins: found by entry points (group `poller`) and in a folder of one-file plugins, loaded, and called.

Loading is a function, never a side effect of an import. All hooks of plugins are called here: their exceptions,
including `SystemExit`, are recorded with the plugin's name and go no further.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pluggy

from poller.hooks import hookspecs
from poller.hooks.contracts import check_sink, check_source
from poller.hooks.faults import PluginError, attempted, awaited, is_cancelled, said
from poller.hooks.forks import guard_forks
from poller.hooks.ownership import distrust
from poller.hooks.payloads import own
from poller.hooks.plugin_loops import Loop, PluginLoops
from poller.hooks.registration import classes_of, has_no_hook, implementations, known_hooks, unlike
from poller.hooks.transforms import checked
from poller.late import late
from poller.sinks.protocol import Sink
from poller.sources.protocol import Source
from state.records import NewEvent

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")

__all__ = ["Failed", "Loaded", "PluginError", "Plugins", "attempted", "installed", "load_plugins", "said"]

GROUP: Final = "poller"
LIMIT: Final = 30.0  # seconds that an async hook has
LIMITS: Final = {"stopping": 5.0}  # the end of the program waits for this hook
GRACE: Final = 1.0  # seconds that a hook has to obey its cancellation
_OWN: Final = "poller"  # the distribution whose plugins come first


class Loaded(msgspec.Struct, kw_only=True):
    """One plugin in use, and what it registered."""

    name: str
    origin: str  # "nutcache = plugins.nutcache (poller 1.0)", or a path
    version: str | None
    sources: list[str] = msgspec.field(default_factory=list)
    sinks: list[str] = msgspec.field(default_factory=list)
    hooks: list[str] = msgspec.field(default_factory=list)


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin that could not be loaded or raised an exception, and its message."""

    name: str
    origin: str
    error: str


class Plugins:
    """All plugins of this process: what they registered, and their hooks."""

    def __init__(self, offered: Iterable[importlib.metadata.EntryPoint] = ()) -> None:
        self.sources: dict[str, type[Source]] = {}
        self.sinks: dict[str, type[Sink]] = {}
        self.loaded: list[Loaded] = []
        self.failed: list[Failed] = []
        self._offered = list(offered)  # installed, but not loaded yet
        self.loops = PluginLoops()
        self._logged = False
        guard_forks()
        self._manager = pluggy.PluginManager("poller")
        self._manager.add_hookspecs(hookspecs)

    def load_offered(self, name: str | None = None) -> None:
        """Load all offered plugins, or those of this name."""
        wanted = [entry for entry in self._offered if name in (None, entry.name)]
        self._offered = [entry for entry in self._offered if entry not in wanted]
        for entry in wanted:
            name_of_package, version = _package(entry)
            origin = f"{entry.value} ({name_of_package} {version})"
            _load(self, entry.name, origin, version, entry.load)

    def source(self, name: str) -> type[Source] | None:
        """The source plugin of that name, loaded if it is offered; None if there is none."""
        self._load_until(name, self.sources)
        return self.sources.get(name)

    def sink(self, name: str) -> type[Sink] | None:
        """The sink plugin of that name, loaded if it is offered; None if there is none."""
        self._load_until(name, self.sinks)
        return self.sinks.get(name)

    def _load_until(self, name: str, known: Mapping[str, object]) -> None:
        """Load the plugin offered under the name. If it does not register the name, load all others, which may."""
        if name not in known:
            self.load_offered(name)
        if name not in known:
            self.load_offered()

    def load_folder(self, folder: Path) -> None:
        """Load each `*.py` of `folder` by its path, in order of name; skip files that are already loaded.

        What could not be loaded before, or had no hook, is tried again, because it may have been changed.

        Files that another user could have written are not loaded, because they would run as this user.
        """
        self.loaded = [plugin for plugin in self.loaded if plugin.hooks]
        seen = {plugin.origin for plugin in self.loaded}
        self.failed = [
            one
            for one in self.failed
            if one.origin in seen or folder not in (Path(one.origin), Path(one.origin).parent)
        ]
        if not folder.is_dir():
            self.note(folder.name, str(folder), "this folder does not exist")
            return
        if (why := distrust(folder)) is not None:
            self.note(folder.name, str(folder), "; ".join(("nothing in it is run", *why)))
            return
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_") and str(path) not in seen:
                _load(self, path.stem, str(path), None, partial(_load_own, path), may_help=True)

    def add(
        self,
        name: str,
        plugin: object,
        *,
        origin: str = "given",
        version: str | None = None,
        may_help: bool = False,
    ) -> None:
        """Use a plugin object (module or instance). Raises PluginError, and then leaves nothing behind.

        With `may_help`, a module that defines no hook at all is loaded too: other plugins may import it.
        """
        self.load_offered(name)  # an installed plugin keeps its name, even if it would be loaded later
        if self._manager.has_plugin(name):
            raise PluginError(f"another plugin is named {name!r}: rename this one")
        sources, sinks = dict(self.sources), dict(self.sinks)
        loaded = Loaded(name=name, origin=origin, version=version)
        try:
            self._manager.register(plugin, name)
            loaded.hooks = known_hooks(self._manager, plugin)
            if not loaded.hooks and not (may_help and has_no_hook(plugin)):
                raise PluginError("it has no hook: mark a function such as `register_sinks` with @hookimpl")
            for word, cls in classes_of(self._manager, plugin, "register_sources", check_source):
                self._take(word, cls, self.sources, loaded.sources)
            for word, cls in classes_of(self._manager, plugin, "register_sinks", check_sink):
                self._take(word, cls, self.sinks, loaded.sinks)
        except BaseException as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self.sources, self.sinks = sources, sinks
            if isinstance(error, pluggy.PluginValidationError):
                raise PluginError(unlike(error)) from error
            raise
        if not loaded.hooks:
            self._manager.unregister(name=name)  # so that it can be loaded again
        self.loaded.append(loaded)

    def loop_of_sink(self, name: str) -> Loop:
        """The event loop of the plugin that registered the sink of that name."""
        return self.loops.of(next((one.name for one in self.loaded if name in one.sinks), name))

    def _take(self, name: str, cls: type[Any], into: dict[str, Any], names: list[str]) -> None:
        """Use a class under its name. Raises PluginError if the name is taken."""
        self.load_offered(name)
        if name in into:
            raise PluginError(f"the name {name!r} is taken by {into[name].__module__}")
        into[name] = cls
        names.append(name)

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call every plugin that implements `hook`, and return the results that are not None."""
        found = []
        for implementation in implementations(self._manager, hook):
            wanted = [arguments[name] for name in implementation.argnames]
            answer, error = attempted(partial(implementation.function, *wanted))
            if error is not None:
                self.note(implementation.plugin_name, hook, error)
            elif answer is not None:
                found.append(answer)
        return found

    def transform(self, event: NewEvent) -> NewEvent | None:
        """The event after the plugins' `transform_event`, applied one after the other; None if one drops it.

        A result that breaks the contract is recorded, and the event continues as it was before that plugin.
        """
        for implementation in implementations(self._manager, "transform_event"):
            given = replace(event)  # its own, which it may change in place
            answer, error = attempted(partial(implementation.function, *[given for _ in implementation.argnames]))
            if answer is False:
                return None
            if error is None:
                made = given if answer is None or answer is True else answer
                changed, error = attempted(partial(checked, event, made))
                event = changed or event
            if error is not None:
                self.note(implementation.plugin_name, "transform_event", error)
        return event

    def implements(self, hook: str) -> bool:
        """Whether any plugin has this hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    async def observe(self, hook: str, **arguments: Any) -> None:
        """Call every plugin that implements `hook`, one after the other, each on its own event loop, and with events of
        its own, whose `data` it may change.

        One that does not end is abandoned, so that neither other plugins nor the end of the program wait for it.
        """
        for implementation in implementations(self._manager, hook):
            name, wanted = implementation.plugin_name, [own(arguments[name]) for name in implementation.argnames]
            answer = self.loops.of(name).run(partial(_answer, implementation.function, *wanted))
            try:
                await awaited(answer, limit=LIMITS.get(hook, LIMIT), grace=GRACE, label=f"{name}.{hook}")
            except BaseException as error:  # a plugin may raise anything; it is recorded with its name
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                self.note(name, hook, said(error))

    def note(self, name: str, origin: str, error: str) -> None:
        """Record what a plugin did wrong, once."""
        failed = Failed(name=name, origin=origin, error=error)
        if failed not in self.failed:
            self.failed.append(failed)
            if self._logged:
                _log_failure(failed)

    def log_failures(self) -> None:
        """Log the failures so far, and from now on each failure as it comes. Before this, the log is not set up."""
        self._logged = True
        for failed in self.failed:
            _log_failure(failed)


async def _answer(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a hook returns, awaited if it is async."""
    answer = function(*arguments)
    return await answer if inspect.isawaitable(answer) else answer


def _load(
    plugins: Plugins,
    name: str,
    origin: str,
    version: str | None,
    load: Callable[[], object],
    *,
    may_help: bool = False,
) -> None:
    """Load one plugin and use it, or record why it cannot be."""
    _, error = attempted(lambda: plugins.add(name, load(), origin=origin, version=version, may_help=may_help))
    if error is not None:
        plugins.note(name, origin, error)


def load_plugins(folder: Path | None = None, *, lazily: bool = False, ours_lazily: bool = False) -> Plugins:
    """All installed plugins and those of `folder`. With `lazily`, installed plugins are loaded at their first use
    by name.

    `lazily` is for commands that only read, because hooks of unloaded plugins are not called. `ours_lazily` is for
    processes that poll and deliver: Poller's own plugins register sources and sinks, and no other hook.
    """
    offered = installed()
    plugins = Plugins(offered)
    for entry in () if lazily else offered:
        if not ours_lazily or _package(entry)[0] != _OWN:
            plugins.load_offered(entry.name)
    if folder is not None:
        plugins.load_folder(folder)
    return plugins


def installed() -> list[importlib.metadata.EntryPoint]:
    """The plugins of installed packages: Poller's own first, then others, each in order of name."""
    found = importlib.metadata.entry_points(group=GROUP)
    return sorted(found, key=lambda one: (_package(one)[0] != _OWN, _package(one)[0], one.name))


def _package(entry: importlib.metadata.EntryPoint) -> tuple[str, str | None]:
    """The name and the version of the package that a plugin is of."""
    return _named(entry.dist) if entry.dist else ("", None)


@lru_cache
def _named(package: importlib.metadata.Distribution) -> tuple[str, str]:
    """The name and version of a package; each access to its metadata parses it again, with the whole README."""
    metadata = package.metadata
    return metadata["Name"], metadata["Version"]


def _load_own(path: Path) -> ModuleType:
    """The module of one file, if no other user can have written it."""
    if (why := distrust(path)) is not None:
        raise PluginError("; ".join(("it is not run", *why)))
    return _load_file(path)


def _load_file(path: Path) -> ModuleType:
    """The module of one file, entered in `sys.modules` under a separate name for dataclasses and pydantic."""
    name = f"poller_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _log_failure(failed: Failed) -> None:
    structlog.get_logger("poller").error("plugin.failed", plugin=failed.name, at=failed.origin, error=failed.error)
