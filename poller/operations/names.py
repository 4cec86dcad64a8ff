"""Renaming and forgetting subscriptions and sources: their stored data follows the names in `poller.toml`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Literal

from poller.config.load import load
from poller.config.models import Config
from poller.operations.planners import check_promises
from poller.operations.program import Answer
from poller.options.problems import NotNow, NotThere, nearest
from poller.planner.memory import renamed

if TYPE_CHECKING:
    from poller.app import App

Kind = Literal["subscription", "source"]

AT_ONCE: Final = 2000  # deliveries or objects deleted in one transaction


class Renaming:
    """One change of a name in the state, which can be undone."""

    def __init__(self, app: App, config: Config, kind: Kind, old: str, new: str) -> None:
        self._app = app
        self._config = config
        self._kind = kind
        self._names = (old, new)
        self._is_done = False

    async def do(self) -> None:
        """Rename. Raises StateError if the old name is not known, or the new one is in use."""
        await self._rename(*self._names)
        self._is_done = True

    async def undo(self) -> None:
        """Undo the renaming."""
        if self._is_done:
            await self._rename(*reversed(self._names))

    async def _rename(self, old: str, new: str) -> None:
        write, store = self._app.write, self._app.store
        if self._kind == "subscription":
            await write(store.names.rename_subscription, old, new)
            return
        budget = self._config.sources[self._names[1]].budget
        with_budget = budget == self._names[1] and self._names[0] not in self._config.budgets
        await write(store.names.rename_source, old, new, with_budget=with_budget)
        key = f"planner:{new if with_budget else budget}"
        saved = await write(store.learned.load, key)
        if saved is not None:
            await write(store.learned.save, {key: renamed(saved, old, new)})


async def rename(app: App, kind: Kind, old: str, new: str) -> Answer:
    """Keep stored data under the new name that `poller.toml` now has instead of the old one."""
    config = load(app.config.path, app.plugins)
    check_promises(config)
    names = _names(config, kind)
    if new not in names:
        raise NotNow(f"{config.path} names no {kind} {new!r}", hint=f"rename {old} there first; do not reload")
    if old in names:
        raise NotNow(f"{config.path} still names the {kind} {old!r}", hint=f"it must name {new} in its place")
    if app.tenure is not None and (workers := (await app.write(app.store.leases.shares)).workers):
        raise NotNow(f"{len(workers)} workers run on this state", hint="stop them, rename, and start them again")
    settings = app.config.poller
    taken = config.model_copy(update={"poller": settings})
    await app.reconfigure(taken, renaming=Renaming(app, config, kind, old, new))
    rest = "" if settings == config.poller else " What has changed in [poller] waits for a reload."
    what = f"The {kind} {old} is {new} now, with all that is kept of it; the configuration is taken over.{rest}"
    return {"summary": what, "kind": kind, "old": old, "new": new}


async def forget(app: App, kind: Kind, name: str) -> Answer:
    """Delete the stored data of a subscription or source that is no longer configured."""
    if name in _names(app.config, kind):
        raise NotNow(
            f"the {kind} {name!r} is in use", hint=f"remove it from {app.config.path} and reload, then forget it"
        )
    known = await _kept(app, kind)
    if name not in known:
        raise NotThere(f"nothing is stored of a {kind} {name!r}", hint=nearest(name, known))
    names, now = app.store.names, app.clock.now()
    if kind == "subscription":
        while not await app.write(names.forget_subscription, name, limit=AT_ONCE):
            pass
        what = f"Subscription {name} is forgotten, with its deliveries; the events stay in the log."
    else:
        while not await app.write(names.forget_source, name, limit=AT_ONCE, now=now):
            pass
        what = f"Source {name} is forgotten, with its objects; its events stay in the log as long as `retention` says."
    return {"summary": what, "kind": kind, "name": name}


async def _kept(app: App, kind: Kind) -> Collection[str]:
    if kind == "source":
        return await app.write(app.store.names.sources)
    return [one.name for one in await app.write(app.store.delivery_reader.subscriptions)]


def _names(config: Config, kind: Kind) -> Collection[str]:
    return config.sources if kind == "source" else [one.name for one in config.subscriptions]
