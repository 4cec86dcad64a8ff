"""Loading of `poller.toml`: finds, reads and checks it against the plugins it names, and reports all problems at
once.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from poller.config.checks import Checks
from poller.config.files import digest_of, find, tables_of
from poller.config.lacking import lacking
from poller.config.models import (
    BudgetConfig,
    Config,
    EndpointConfig,
    Settings,
    SourceConfig,
    Start,
    SubscriptionConfig,
    checked_name,
)
from poller.hooks.loading import Plugins, attempted
from poller.late import late
from poller.options.problems import ConfigError, Problem, dotted, nearest
from poller.options.validation import Also, keys_of, nothing, problems_of
from state.place import DatabaseUrl

if TYPE_CHECKING:
    import poller.config.places as lines
    import poller.rendering.templates as templates
else:
    # Line numbers are needed for problems only, and templates for plugins that change them.
    lines, templates = late("poller.config.places"), late("poller.rendering.templates")

__all__ = [
    "BudgetConfig",
    "Config",
    "ConfigError",
    "EndpointConfig",
    "Settings",
    "SourceConfig",
    "Start",
    "SubscriptionConfig",
    "load",
]

_LOADED: Final = {"cls", "options"}  # fields of the models that are not keys

Model = TypeVar("Model", bound=BaseModel)


def load(
    path: Path | None = None,
    plugins: Plugins | None = None,
    *,
    reveal: bool = True,
    listen: str | None = None,
    worker: bool = False,
) -> Config:
    """Load the complete configuration: budgets have limits, sources a namespace and a budget, plugins their options.

    Loads the one-file plugins of `plugins_dir` into `plugins` first. Without `reveal`, for commands that only look,
    secrets that cannot be read are not an error. `listen` is taken instead of the file's. For a `worker` on a
    database, what lacks a secret is no error either: `Config.lacks` names it, and it is left to other workers. Raises
    ConfigError with all problems.
    """
    file = find(path)
    digest = digest_of(file)  # computed before parsing, so that a later write counts as another file
    given = parse(file)
    plugins = plugins or Plugins()
    reading = _Reading(plugins, {"root": file.parent, **({} if reveal else {"secrets": "later"})})
    settings = reading.settings(given.pop("poller", {}), listen)
    if worker := worker and isinstance(settings.state, DatabaseUrl):
        reading.spare_secrets()
    _load_folder(plugins, settings)
    named = given.pop("sources", {})
    config = Config(
        path=file,
        digest=digest,
        read_at=time.time(),
        poller=settings,
        budgets=reading.budgets(given.pop("budgets", {})),
        sources=reading.sources(named),
        subscriptions=reading.subscriptions(given.pop("subscriptions", [])),
    )
    _refuse(given, reading)
    config = config.model_copy(update={"lacks": lacking(config)}) if worker else config
    config = Checks(config, reading.problems).connected(named if isinstance(named, dict) else (), reveal=reveal)
    if reading.problems:
        raise refusal(file, reading.problems)
    return config


def _load_folder(plugins: Plugins, settings: Settings) -> None:
    """Load the one-file plugins of `plugins_dir`, and let plugins extend the environments of templates."""
    if settings.plugins_dir is not None:
        plugins.load_folder(settings.plugins_dir)
    if plugins.implements("template_environment"):
        for escape in templates.Escape:
            plugins.call("template_environment", env=templates.environment(escape))


def _refuse(unknown: Iterable[str], reading: _Reading) -> None:
    """Note the tables that nothing is read from."""
    for key in unknown:
        reading.wrong(key, what="unknown table", hint=nearest(key, ("poller", "budgets", "sources", "subscriptions")))


def refusal(file: Path, problems: Iterable[Problem]) -> ConfigError:
    """The error that names each problem with its line in the file."""
    places = lines.Places(file.read_text(encoding="utf-8-sig"))
    return ConfigError(_shown(file), [replace(problem, at=places.line_of(problem.key)) for problem in problems])


def parse(file: Path) -> dict[str, Any]:
    """Parse the file as TOML. Raises ConfigError that names the line.

    A file without a single key is refused: a full disk or an editor leaves one, and a reload would stop everything.
    """
    try:
        if tables := tables_of(file.read_text(encoding="utf-8-sig")):
            return deepcopy(dict(tables))
        what, hint = "it is empty", "poller init shows what belongs into it"
    except tomllib.TOMLDecodeError as error:
        what, hint = (
            f"not valid TOML: {error}",
            "strings need quotes, tables need [brackets], and a key may appear only once",
        )
    except UnicodeDecodeError as error:
        what, hint = f"not UTF-8 text (byte {error.start})", "save the file as UTF-8"
    except RecursionError:
        what, hint = "nested too deeply", "Poller's tables are nested at most five levels deep"
    except OSError as error:
        what, hint = f"cannot be read: {error.strerror}", "check its permissions"
    raise ConfigError(_shown(file), [Problem(key="", what=what, hint=hint)])


def _shown(file: Path) -> Path:
    """The file's path, relative to the current directory where possible."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


class _Reading:
    """Validation of one file: checks table by table and collects the problems."""

    def __init__(self, plugins: Plugins, context: Mapping[str, Any]) -> None:
        self.problems: list[Problem] = []
        self._plugins = plugins
        self._context = dict(context)

    def settings(self, given: Any, listen: str | None) -> Settings:
        """The table `[poller]`, with `listen` instead of its own. Its time zone is that of everything read later."""
        if listen is not None and isinstance(given, dict):
            given = {**given, "listen": listen}
        settings = self.table(Settings, given, "poller") or Settings()
        if listen is not None:  # what is wrong with it is in no line of the file
            self.problems = [
                replace(one, key="--listen") if one.key == "poller.listen" else one for one in self.problems
            ]
        self._context["zone"] = settings.zone
        return settings

    def spare_secrets(self) -> None:
        """Take no secret for missing in everything read from now on."""
        self._context["secrets"] = "later"

    def wrong(self, *path: str, what: str, hint: str | None = None) -> None:
        self.problems.append(Problem(key=dotted(path), what=what, hint=hint))

    def table(self, model: type[Model], given: Any, *at: str, also: Also = nothing) -> Model | None:
        """The table at key path `at` as a model; None, with its problems recorded, if it is invalid."""
        if not isinstance(given, dict):
            self.wrong(*at, what="not a table", hint=f"write [{dotted(at)}] above its keys")
            return None
        try:
            return model.model_validate(given, context=self._context)
        except ValidationError as error:
            self.problems += problems_of(error, at=at, model=model, also=also)
            return None

    def named(self, given: Any, at: str) -> dict[str, Any]:
        """The tables below `[at.NAME]`."""
        if isinstance(given, dict):
            return given
        self.wrong(at, what="not a table of tables", hint=f"write [{at}.NAME] above its keys")
        return {}

    def budgets(self, given: Any) -> dict[str, BudgetConfig]:
        tables = self.named(given, "budgets")
        for name in tables:
            try:
                checked_name(name)
            except ValueError as error:
                self.wrong("budgets", name, what=str(error), hint="rename it")
        return {
            name: self.table(BudgetConfig, table, "budgets", name) or BudgetConfig() for name, table in tables.items()
        }

    def sources(self, given: Any) -> dict[str, SourceConfig]:
        found = {name: self.source(name, table) for name, table in self.named(given, "sources").items()}
        return {name: source for name, source in found.items() if source is not None}

    def source(self, name: str, given: Any) -> SourceConfig | None:
        at = ("sources", name)
        mine, theirs = _split(given, SourceConfig)
        endpoints, rest = self.endpoints(at, mine.pop("endpoints", {}))
        source = self.table(SourceConfig, {**mine, "name": name} if isinstance(given, dict) else given, *at)
        source = source and source.model_copy(update={"budget": source.budget or name})
        cls = self.plugin(at, mine.get("plugin"), "source")
        if cls is None:
            return source
        if "endpoints" in keys_of(cls.Options):
            theirs |= {"endpoints": rest} if rest else {}
        else:
            self.leftover(at, rest)
        options = self.options(cls.Options, theirs, at, _source_keys)
        if source is None or options is None:
            return source
        namespace = source.namespace or getattr(cls, "namespace", None) or name
        update = {"endpoints": endpoints, "cls": cls, "options": options, "namespace": namespace}
        return source.model_copy(update=update)

    def endpoints(self, at: tuple[str, ...], given: Any) -> tuple[dict[str, EndpointConfig], dict[str, dict[str, Any]]]:
        """The engine's keys of each `[sources.NAME.endpoints.X]`, and the keys that are left for the plugin."""
        ours: dict[str, EndpointConfig] = {}
        theirs: dict[str, dict[str, Any]] = {}
        for name, table in self.named(given, dotted((*at, "endpoints"))).items():
            mine, theirs[name] = _split(table, EndpointConfig)
            ours[name] = self.table(EndpointConfig, mine, *at, "endpoints", name) or EndpointConfig()
        return ours, theirs

    def leftover(self, at: tuple[str, ...], endpoints: Mapping[str, Mapping[str, Any]]) -> None:
        """Report endpoint keys that neither the engine nor a plugin without endpoint options accepts."""
        for endpoint, keys in endpoints.items():
            for key in keys:
                hint = nearest(key, keys_of(EndpointConfig))
                self.wrong(*at, "endpoints", endpoint, key, what="unknown key", hint=hint)

    def subscriptions(self, given: Any) -> tuple[SubscriptionConfig, ...]:
        if not isinstance(given, list):
            self.wrong("subscriptions", what="not a list of tables", hint="write [[subscriptions]] and a key `name`")
            return ()
        found = [self.subscription(place, table) for place, table in enumerate(given)]
        return tuple(subscription for subscription in found if subscription is not None)

    def subscription(self, place: int, given: Any) -> SubscriptionConfig | None:
        mine, theirs = _split(given, SubscriptionConfig)
        name = mine.get("name")
        at = ("subscriptions", name) if isinstance(name, str) and name else (f"subscriptions[{place}]",)
        subscription = self.table(SubscriptionConfig, mine if isinstance(given, dict) else given, *at)
        cls = self.plugin(at, mine.get("plugin"), "sink")
        if cls is None:
            return subscription
        options = self.options(cls.Options, theirs, at, _subscription_keys)
        return subscription and subscription.model_copy(update={"cls": cls, "options": options})

    def plugin(self, at: tuple[str, ...], name: Any, kind: Literal["source", "sink"]) -> type[Any] | None:
        """The class that a plugin registered under `name`; None, with the problem recorded, if there is none."""
        if not isinstance(name, str):
            return None
        found = self._plugins.source(name) if kind == "source" else self._plugins.sink(name)
        if found is not None:
            return found
        known = self._plugins.sources if kind == "source" else self._plugins.sinks
        failed = {failed.name: failed.error for failed in self._plugins.failed}
        what = f"there is no {kind} plugin {name!r}"
        guess, installed = nearest(name, known), ", ".join(sorted(known)) or "none"
        hint = guess if guess.endswith(installed) else f"{guess} (installed: {installed})"
        if name in failed:
            what, hint = f"the plugin {name!r} could not be loaded: {failed[name]}", "poller plugins shows what failed"
        elif failed:
            hint += f"; could not be loaded: {', '.join(sorted(failed))} (poller plugins says why)"
        self.wrong(*at, "plugin", what=what, hint=hint)
        return None

    def options(
        self, model: type[BaseModel], given: dict[str, Any], at: tuple[str, ...], also: Also
    ) -> BaseModel | None:
        """The plugin's own keys as its `Options`. Unknown keys are refused, whatever the plugin's model allows."""
        if model.model_config.get("extra") not in ("forbid", "allow"):
            for key in sorted(set(given) - keys_of(model)):
                self.wrong(*at, key, what="unknown key", hint=nearest(key, keys_of(model) | set(also((key,)))))
        options, error = attempted(lambda: self.table(model, given, *at, also=also))
        if error is not None:
            self.wrong(*at, what=f"its plugin failed to read its options: {error}", hint="fix the plugin")
        return options


def _split(given: Any, model: type[BaseModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a table into the engine's keys and the others."""
    if not isinstance(given, dict):
        return {}, {}
    mine = keys_of(model) - _LOADED - ({"name"} if model is SourceConfig else set())
    return {k: v for k, v in given.items() if k in mine}, {k: v for k, v in given.items() if k not in mine}


def _source_keys(loc: tuple[str | int, ...]) -> set[str]:
    """The engine's keys where a plugin's key was unknown: in a source's table or in one of its endpoints' tables."""
    if len(loc) == 3 and loc[0] == "endpoints":
        return keys_of(EndpointConfig)
    return keys_of(SourceConfig) - _LOADED - {"name"} if len(loc) == 1 else set()


def _subscription_keys(loc: tuple[str | int, ...]) -> set[str]:
    return keys_of(SubscriptionConfig) - _LOADED if len(loc) == 1 else set()
