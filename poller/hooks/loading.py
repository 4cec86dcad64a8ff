"""Plugins: found by entry points (group `poller`) and in a folder of one-file plugins, loaded, and asked.

Loading is a function that is called, never an effect of importing. Here is also the one place where plugins'
hooks are called: whatever they raise, `SystemExit` included, is noted beside the plugin's name and goes no further.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pluggy
import structlog

from poller.hooks import hookspecs
from poller.hooks.contracts import check_sink, check_source
from poller.hooks.faults import PluginError, attempted, awaited, is_cancelled, said
from poller.hooks.ownership import distrust
from poller.hooks.registration import classes_of, implementations, known_hooks, unlike
from poller.hooks.transforms import checked
from poller.sinks.protocol import Sink
from poller.sources.protocol import Source
from state.records import NewEvent

__all__ = ["Failed", "Loaded", "PluginError", "Plugins", "attempted", "installed", "load_plugins", "said"]

GROUP: Final = "poller"
LIMIT: Final = 30.0  # seconds that an async hook has
LIMITS: Final = {"stopping": 5.0}  # the end of the program waits for it
GRACE: Final = 1.0  # seconds that it has to obey its cancellation
_OWN: Final = "poller"  # the distribution whose plugins come first

log = structlog.get_logger("poller")


@dataclass(slots=True, kw_only=True)
class Loaded:
    """One plugin that is in use, and what it brought."""

    name: str
    origin: str  # where from: "nutcache = plugins.nutcache (poller 1.0)" or a path
    version: str | None
    sources: list[str] = field(default_factory=list)
    sinks: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One plugin that could not be loaded, or that raised, and what it said."""

    name: str
    origin: str
    error: str


class Plugins:
    """Every plugin of this process: what they registered, and their hooks."""

    def __init__(self, offered: Iterable[importlib.metadata.EntryPoint] = ()) -> None:
        self.sources: dict[str, type[Source]] = {}
        self.sinks: dict[str, type[Sink]] = {}
        self.loaded: list[Loaded] = []
        self.failed: list[Failed] = []
        self._offered = list(offered)  # installed, not loaded yet
        self._logged = False
        self._manager = pluggy.PluginManager("poller")
        self._manager.add_hookspecs(hookspecs)

    def load_offered(self, name: str | None = None) -> None:
        """Load what is offered, or of it what has this name."""
        wanted = [entry for entry in self._offered if name in (None, entry.name)]
        self._offered = [entry for entry in self._offered if entry not in wanted]
        for entry in wanted:
            version = entry.dist.version if entry.dist else None
            origin = f"{entry.value} ({_distribution(entry)} {version})"
            _load(self, entry.name, origin, version, entry.load)

    def source(self, name: str) -> type[Source] | None:
        """The source plugin of that name, loaded if it is offered; None where there is none."""
        self._load_until(name, self.sources)
        return self.sources.get(name)

    def sink(self, name: str) -> type[Sink] | None:
        """The sink plugin of that name, loaded if it is offered; None where there is none."""
        self._load_until(name, self.sinks)
        return self.sinks.get(name)

    def _load_until(self, name: str, known: Mapping[str, object]) -> None:
        """Load what is offered under the name; only if that was not it, all the rest, which may register it too."""
        if name not in known:
            self.load_offered(name)
        if name not in known:
            self.load_offered()

    def load_folder(self, folder: Path) -> None:
        """Load each `*.py` of `folder` by its path, in order of name; a file already loaded is left as it is.

        Nothing is loaded that another user could have written: it would run as this one.
        """
        if not folder.is_dir():
            self.note(folder.name, str(folder), "this folder does not exist")
            return
        if (why := distrust(folder)) is not None:
            self.note(folder.name, str(folder), "; ".join(("nothing of it is run", *why)))
            return
        seen = {plugin.origin for plugin in self.loaded} | {plugin.origin for plugin in self.failed}
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_") and str(path) not in seen:
                _load(self, path.stem, str(path), None, partial(_load_own, path))

    def add(self, name: str, plugin: object, *, origin: str = "given", version: str | None = None) -> None:
        """Take a plugin object (module or instance) into use. Raises PluginError, and leaves nothing behind."""
        self.load_offered(name)  # an installed plugin keeps its name, also where it would be loaded later
        if self._manager.has_plugin(name):
            raise PluginError(f"another plugin is named {name!r}: rename this one")
        sources, sinks = dict(self.sources), dict(self.sinks)
        loaded = Loaded(name=name, origin=origin, version=version)
        try:
            self._manager.register(plugin, name)
            loaded.hooks = known_hooks(self._manager, plugin)
            for name, cls in classes_of(self._manager, plugin, "register_sources", check_source):
                self._take(name, cls, self.sources, loaded.sources)
            for name, cls in classes_of(self._manager, plugin, "register_sinks", check_sink):
                self._take(name, cls, self.sinks, loaded.sinks)
        except BaseException as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self.sources, self.sinks = sources, sinks
            if isinstance(error, pluggy.PluginValidationError):
                raise PluginError(unlike(error)) from error
            raise
        self.loaded.append(loaded)

    def _take(self, name: str, cls: type[Any], into: dict[str, Any], names: list[str]) -> None:
        """Take a class into use under its name. Raises PluginError where the name is taken."""
        self.load_offered(name)
        if name in into:
            raise PluginError(f"the name {name!r} is taken by {into[name].__module__}")
        into[name] = cls
        names.append(name)

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Ask every plugin that implements `hook` and return what they answered, None left out."""
        return [answer for _, answer in self._answers(hook, arguments) if answer is not None]

    def transform(self, event: NewEvent) -> NewEvent | None:
        """The event as the plugins' `transform_event` leave it, one after the other; None where one drops it.

        An answer that breaks the contract is noted, and the event goes on as it was before that plugin.
        """
        for implementation in implementations(self._manager, "transform_event"):
            given = [event for _ in implementation.argnames]
            answer, error = attempted(partial(implementation.function, *given))
            if answer is False:
                return None
            if answer is not None and answer is not True:
                changed, error = attempted(partial(checked, event, answer))
                event = changed or event
            if error is not None:
                self.note(implementation.plugin_name, "transform_event", error)
        return event

    def implements(self, hook: str) -> bool:
        """Whether any plugin has this hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    async def observe(self, hook: str, **arguments: Any) -> None:
        """Tell every plugin that implements `hook`; those that are async are awaited, one after the other.

        One that does not end is given up, so that neither other plugins nor the end of the program wait for it.
        """
        for name, answer in self._answers(hook, arguments):
            if not inspect.isawaitable(answer):
                continue
            try:
                await awaited(answer, limit=LIMITS.get(hook, LIMIT), grace=GRACE, label=f"{name}.{hook}")
            except BaseException as error:  # a plugin may raise anything; it is noted with its name
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                self.note(name, hook, said(error))

    def note(self, name: str, origin: str, error: str) -> None:
        """Keep what a plugin did wrong, once."""
        failed = Failed(name=name, origin=origin, error=error)
        if failed not in self.failed:
            self.failed.append(failed)
            if self._logged:
                _log_failure(failed)

    def log_failures(self) -> None:
        """Log what failed so far, and from now on each failure as it comes. Before this the log is not set up."""
        self._logged = True
        for failed in self.failed:
            _log_failure(failed)

    def _answers(self, hook: str, arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """(plugin, answer) of each implementation, in the order of loading; pluggy would stop at the first error."""
        for implementation in implementations(self._manager, hook):
            wanted = [arguments[name] for name in implementation.argnames]
            answer, error = attempted(partial(implementation.function, *wanted))
            if error is not None:
                self.note(implementation.plugin_name, hook, error)
            else:
                yield implementation.plugin_name, answer


def _load(plugins: Plugins, name: str, origin: str, version: str | None, load: Callable[[], object]) -> None:
    """Load one plugin and take it into use, or note why it cannot be."""
    _, error = attempted(lambda: plugins.add(name, load(), origin=origin, version=version))
    if error is not None:
        plugins.note(name, origin, error)


def load_plugins(folder: Path | None = None, *, lazily: bool = False, ours_lazily: bool = False) -> Plugins:
    """Every installed plugin, and those of `folder`; lazily: installed ones once they are asked for by name.

    Lazily is for commands that only look, since hooks of what is not loaded are not called. `ours_lazily` is for
    whoever polls and delivers: the plugins of Poller itself bring sources and sinks, and no other hook.
    """
    offered = installed()
    plugins = Plugins(offered)
    for entry in () if lazily else offered:
        if not ours_lazily or _distribution(entry) != _OWN:
            plugins.load_offered(entry.name)
    if folder is not None:
        plugins.load_folder(folder)
    return plugins


def installed() -> list[importlib.metadata.EntryPoint]:
    """What installed packages offer: ours first, then others, each in order of name."""
    found = importlib.metadata.entry_points(group=GROUP)
    return sorted(found, key=lambda one: (_distribution(one) != _OWN, _distribution(one), one.name))


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else ""


def _load_own(path: Path) -> ModuleType:
    """The module of one file, if nobody else can have written it."""
    if (why := distrust(path)) is not None:
        raise PluginError("; ".join(("it is not run", *why)))
    return _load_file(path)


def _load_file(path: Path) -> ModuleType:
    """The module of one file. In `sys.modules` under a name of its own: dataclasses and pydantic look there."""
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
    log.error("plugin.failed", plugin=failed.name, at=failed.origin, error=failed.error)
