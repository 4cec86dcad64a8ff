"""Commands that change something. The process that holds the state executes them; others post them to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import structlog
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from poller.app import App
from poller.delivery.notices import ping
from poller.events.cloudevents import iso
from poller.operations import names
from poller.operations.inspection import inspect
from poller.operations.places import HIGHEST, parse_place
from poller.operations.program import Answer
from poller.options.problems import NotNow, NotThere, find_endpoint, nearest
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.source import ActiveSource
from poller.rendering.counting import counted
from state.commands import Result
from state.errors import PollerError

log = structlog.get_logger("poller")

LOOK_EVERY: Final = 0.05  # seconds between two checks for a result
AT_ONCE: Final = 500  # deliveries queued again in one transaction
UNLOGGED: Final = ("ids", "summary")  # nor lists and tables, such as the objects that `poller try` shows


class _Args(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Number = Annotated[StrictInt, Field(ge=1, le=HIGHEST)]  # number of a delivery


class Redeliver(_Args):
    """Deliveries by number, or all in a state (of one subscription)."""

    ids: tuple[Number, ...] = Field(default=(), max_length=1000)
    subscription: str | None = None
    state: Literal["dead", "delivered", "pending"] = "dead"
    all: bool = False  # of every subscription


class Replay(_Args):
    """The events that a subscription has read after a number, or since a time (ISO text with its offset)."""

    subscription: str
    after: Annotated[StrictInt, Field(ge=0, le=HIGHEST)] | str = Field(union_mode="left_to_right")


class OfSubscription(_Args):
    """One subscription."""

    subscription: str


class Resume(_Args):
    """A subscription or a budget."""

    subscription: str | None = None
    budget: str | None = None


class Nothing(_Args):
    """No arguments."""


class OfEndpoint(_Args):
    """One endpoint: SOURCE/ENDPOINT, or only ENDPOINT if that name is unique."""

    endpoint: str


class Rename(_Args):
    """A subscription or source that now has another name in the configuration."""

    kind: Literal["subscription", "source"] = "subscription"
    old: str
    new: str


class Forget(_Args):
    """A subscription or source that is no longer configured."""

    kind: Literal["subscription", "source"] = "subscription"
    name: str


class Release(OfEndpoint):
    """How a hold ends: `accept` takes the current objects without events, `emit` reports them; neither continues as
    before.
    """

    accept: bool = False
    emit: bool = False


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command: its arguments, and its function."""

    args: type[_Args]
    do: Callable[[App, Any], Awaitable[Answer]]


async def execute(app: App, name: str, args: Mapping[str, Any]) -> Answer:
    """Execute a command now. Raises PollerError if it does not exist or cannot be executed."""
    command = COMMANDS.get(name)
    if command is None:
        raise PollerError(f"there is no command {name!r}", hint=nearest(name, COMMANDS))
    try:
        given = command.args.model_validate(dict(args))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "arguments"
        raise PollerError(f"{name}: {where}: {first['msg']}") from error
    answer = await command.do(app, given)
    short = {key: value for key, value in answer.items() if key not in UNLOGGED and not isinstance(value, list | dict)}
    log.info("command.done", command=name, **short)
    return answer


def is_ours(app: App, args: Mapping[str, Any]) -> bool:
    """Whether this worker can execute a command: those about an endpoint or a budget need the worker that polls it."""
    if app.tenure is None:
        return True
    budget = args.get("budget")
    endpoint = args.get("endpoint")
    if isinstance(endpoint, str):
        source, slash, _ = endpoint.partition("/")
        if slash and source not in app.config.sources:
            return True  # no worker owns it: the worker that is asked reports that
        polled = {f"{name}/{one}" for name, active in app.engine.sources.items() for one in active.endpoints}
        return (
            endpoint in polled
            or source in app.engine.sources
            or any(label.partition("/")[2] == endpoint for label in polled)
        )
    return budget is None or budget in app.engine.loops or budget not in app.config.budgets


async def run_posted(app: App) -> None:
    """Execute every posted command once, and store its result."""
    posted = app.store.commands
    for command in await app.write(posted.pending):
        if not is_ours(app, command.args):
            continue
        if not await app.write(posted.take, command.id, now=app.clock.now()):
            continue
        outcome = Result(error="it failed unexpectedly", hint="the daemon's log says why")
        try:
            outcome = Result(result=await execute(app, command.name, command.args))
        except PollerError as error:
            log.warning("command.failed", command=command.name, error=str(error))
            outcome = Result(error=str(error), hint=error.hint)
        finally:
            await app.write(posted.finish, command.id, outcome, now=app.clock.now())


async def execute_or_post(app: App, name: str, args: Mapping[str, Any], *, timeout: float = 10.0) -> Answer:
    """Execute a command now, or have it executed by the worker that owns what it concerns. Raises PollerError."""
    if is_ours(app, args):
        return await execute(app, name, args)
    posted = app.store.commands
    number = await app.write(posted.post, name, args, now=app.clock.now())
    until = time.monotonic() + timeout
    while (outcome := await app.write(posted.result, number)) is None:
        if time.monotonic() >= until and await app.write(posted.withdraw, number):
            raise PollerError(
                f"no worker took `{name}` within {timeout:g} s: nothing was done",
                hint="poller status says who owns what; then try again",
            )
        if time.monotonic() >= until + timeout:
            raise PollerError(f"a worker began `{name}` and has not finished it yet", hint="its log shows the result")
        await asyncio.sleep(LOOK_EVERY)
    if outcome.error is not None:
        raise PollerError(outcome.error, hint=outcome.hint)
    return outcome.result or {}


# Deliveries and subscriptions.


async def _redeliver(app: App, args: Redeliver) -> Answer:
    ids = list(args.ids)
    if bool(ids) == bool(args.subscription or args.all):
        raise PollerError("redeliver: name deliveries by number, or a subscription, or all", hint="poller deliveries")
    if args.subscription is not None:
        _known(app, args.subscription)
    if ids:
        await _check_ids(app, ids)
    else:
        ids = await _find(app, args)
    queued = 0
    for start in range(0, len(ids), AT_ONCE):
        step = ids[start : start + AT_ONCE]
        queued += await app.write(app.store.deliveries.redeliver, step, now=app.clock.now())
        app.deliverer.wake()
    return {"summary": _redelivered(queued, args), "redelivered": queued, "ids": ids[:1000]}


def _redelivered(queued: int, args: Redeliver) -> str:
    whose = f" of subscription {args.subscription}" if args.subscription is not None else ""
    if queued == 0:
        return f"No {args.state} delivery{whose} found: nothing was queued."
    return f"{queued} {'delivery' if queued == 1 else 'deliveries'}{whose} queued again."


async def _check_ids(app: App, ids: Sequence[int]) -> None:
    unknown = await app.write(app.store.delivery_reader.unknown, ids)
    if unknown:
        raise NotThere(
            f"there is no delivery {', '.join(map(str, unknown))}: nothing was queued", hint="poller deliveries"
        )


async def _find(app: App, args: Redeliver) -> list[int]:
    """All deliveries in a state, the oldest first."""
    found: list[int] = []
    before = None
    while True:
        page = await app.write(
            app.store.delivery_reader.deliveries,
            states=[args.state],
            subscription=args.subscription,
            limit=1000,
            before=before,
        )
        found += [delivery.id for delivery in page]
        if len(page) < 1000:
            return found[::-1]
        before = page[-1].id


async def _replay(app: App, args: Replay) -> Answer:
    _known(app, args.subscription)
    place = args.after if isinstance(args.after, int) else parse_place(args.after, what="after")
    after = place if isinstance(place, int) else await app.write(app.store.log.seq_at, place)
    until = await app.write(app.store.deliveries.replay, args.subscription, after=after)
    app.deliverer.wake()
    what = f"The events {after + 1} to {until} will be delivered to {args.subscription} again, if they match."
    if until <= after:
        what = f"Subscription {args.subscription} has read up to {until}: there is nothing after {after} to replay."
    return {"summary": what, "subscription": args.subscription, "after": after, "until": until}


async def _ping(app: App, args: OfSubscription) -> Answer:
    name, now = _known(app, args.subscription), app.clock.now()
    delivery = await app.write(app.store.deliveries.ping, name, ping(name, now=now), now=now)
    app.deliverer.wake()
    rows = await app.write(app.store.delivery_reader.subscriptions)
    state = next((row.state for row in rows if row.name == name), "active")
    what = f"A test event was queued for {name} as delivery {delivery}."
    if state in ("paused", "disabled"):
        what = f"Subscription {name} is {state}: its test, delivery {delivery}, waits for `poller resume {name}`."
    return {"summary": what, "subscription": name, "delivery": delivery, "state": state}


async def _pause(app: App, args: OfSubscription) -> Answer:
    name = _known(app, args.subscription)
    await app.write(app.store.deliveries.pause, name)
    app.deliverer.wake()
    what = f"Subscription {name} is paused: its events are kept until you resume it."
    return {"summary": what, "subscription": name, "state": "paused"}


async def _resume(app: App, args: Resume) -> Answer:
    if args.budget is not None and args.subscription is None:
        return await _resume_budget(app, args.budget)
    if args.subscription is None or args.budget is not None:
        raise PollerError("resume: name a subscription or a budget", hint="poller resume NAME")
    name = _known(app, args.subscription)
    if not next(one.enabled for one in app.config.subscriptions if one.name == name):
        raise NotNow(
            f"subscription {name} is switched off in {app.config.path}", hint="remove `enabled = false` and reload"
        )
    await app.write(app.store.deliveries.resume, name)
    app.deliverer.wake()
    return {"summary": f"Subscription {name} is active.", "subscription": name, "state": "active"}


async def _resume_budget(app: App, name: str) -> Answer:
    if name not in app.engine.loops:
        raise NotThere(f"no budget is named {name!r}", hint=nearest(name, app.engine.loops))
    until = await app.engine.interventions.resume(name)
    what = f"The server of budget {name} had not asked for a pause: only its limits delay calls."
    if until is not None:
        what = f"Budget {name} makes calls again at once: its server had asked for none before {iso(until)}."
    return {"summary": what, "budget": name, "paused_until": None if until is None else iso(until)}


def _known(app: App, name: str) -> str:
    names = [one.name for one in app.config.subscriptions]
    if name not in names:
        raise NotThere(f"no subscription is named {name!r}", hint=nearest(name, names))
    return name


async def _rename(app: App, args: Rename) -> Answer:
    return await names.rename(app, args.kind, args.old, args.new)


async def _forget(app: App, args: Forget) -> Answer:
    return await names.forget(app, args.kind, args.name)


# Sources and endpoints.


async def _probe(app: App, _: Nothing) -> Answer:
    """Ask at once whatever waits after a failure."""
    app.engine.interventions.probe_now()
    count = len(app.engine.sources)
    return {"summary": f"{count} {'source is' if count == 1 else 'sources are'} asked at once.", "sources": count}


async def _inspect(app: App, args: OfEndpoint) -> Answer:
    active, w = _watching(app, args.endpoint)
    found = await inspect(active, w)
    what = found.problem or f"{w.label} answers: {counted(found.pages[0].objects, 'object')} on its first page."
    return {"summary": what, **msgspec.to_builtins(found)}


async def _hold(app: App, args: OfEndpoint) -> Answer:
    active, w = _watching(app, args.endpoint)
    was_held = not await app.engine.interventions.hold(active, w)
    what = f"Endpoint {w.label} {'was held already' if was_held else 'is held'}: nothing of it is recorded."
    return {"summary": what, "endpoint": w.label, "held": True, "was_held": was_held}


async def _release(app: App, args: Release) -> Answer:
    active, w = _watching(app, args.endpoint)
    if args.accept and args.emit:
        raise PollerError("release: either accept or emit, not both")
    if w.state.held is None and w.guards.recount is None:
        if args.accept and w.state.uncertain is not None:
            await app.engine.interventions.accept_doubts(w)
            what = f"The contradictions of {w.label} are accepted: from its next sweep on it counts as complete."
            return {"summary": what, "endpoint": w.label, "held": False, **args.model_dump(include={"accept", "emit"})}
        raise NotNow(f"{w.label} is not held: there is nothing to release", hint="poller status")
    way = {"accept": args.accept, "emit": args.emit}
    why = "on command" + next((f", {word}" for word, chosen in way.items() if chosen), "")
    await app.engine.interventions.release(active, w, why=why, **way)
    how = "with its current objects recorded without events" if args.accept else "with its changes reported as events"
    what = f"Endpoint {w.label} is released{f', {how}' if args.accept or args.emit else ''}."
    return {"summary": what, "endpoint": w.label, "held": False, **way}


async def _rebaseline(app: App, args: OfEndpoint) -> Answer:
    active, w = _watching(app, args.endpoint)
    await app.engine.interventions.rebaseline(active, w)
    what = f"The next sweep of {w.label} is its new baseline: it is recorded without events."
    return {"summary": what, "endpoint": w.label, "baseline": True}


def _watching(app: App, text: str) -> tuple[ActiveSource, WatchedEndpoint]:
    sources = app.engine.sources
    source, endpoint = find_endpoint(
        ((active.name, name) for active in sources.values() for name in active.endpoints), text
    )
    return sources[source], sources[source].endpoints[endpoint]


COMMANDS: Final[Mapping[str, Command]] = {
    "probe": Command(args=Nothing, do=_probe),
    "inspect": Command(args=OfEndpoint, do=_inspect),
    "redeliver": Command(args=Redeliver, do=_redeliver),
    "replay": Command(args=Replay, do=_replay),
    "ping": Command(args=OfSubscription, do=_ping),
    "pause": Command(args=OfSubscription, do=_pause),
    "resume": Command(args=Resume, do=_resume),
    "rename": Command(args=Rename, do=_rename),
    "forget": Command(args=Forget, do=_forget),
    "hold": Command(args=OfEndpoint, do=_hold),
    "release": Command(args=Release, do=_release),
    "rebaseline": Command(args=OfEndpoint, do=_rebaseline),
}
