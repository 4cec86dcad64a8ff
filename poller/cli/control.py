"""Commands that change something. The daemon executes them if one runs, else this process does. Each reports what it
did.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Final

import click

from poller.cli.context import CliContext
from poller.cli.daemon_client import DaemonClient, in_path
from poller.cli.names import named
from poller.cli.output import print_json, say
from poller.cli.process import run_coroutine
from poller.cli.view import endpoint_of
from poller.operations.places import HIGHEST, parse_place
from poller.operations.run_command import run_command
from poller.options.problems import NotThere, nearest
from state.open import open_reader

PING_FOR: Final = 30.0  # seconds to wait for the answer to a test
LOOK_EVERY: Final = 0.05
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def do_here(context: CliContext, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Have a command done where no daemon listens."""
    config, plugins = context.load()
    return run_coroutine(run_command(config, plugins, name, args))


def tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        say(answer["summary"])


# poller redeliver, replay


@click.command()
@click.argument("ids", nargs=-1, type=click.IntRange(1, HIGHEST))
@click.option(
    "--subscription",
    metavar="NAME",
    shell_complete=named("subscription"),
    help="All deliveries of one subscription.",
)
@click.option(
    "--state",
    type=click.Choice(["dead", "delivered", "pending"]),
    default="dead",
    show_default=True,
    help="Only deliveries in this state.",
)
@click.option("--all", "everything", is_flag=True, help="Deliveries of every subscription.")
@as_json_option
@click.pass_obj
def redeliver(
    context: CliContext, ids: tuple[int, ...], subscription: str | None, state: str, everything: bool, as_json: bool
) -> None:
    """Repeat deliveries by number, or all in a state, with the same event id and sequence, outside the order.

    Example: poller redeliver --subscription crm --state dead
    """
    if not ids and subscription is None and not everything:
        raise click.UsageError("name deliveries, a --subscription, or --all")
    if bool(ids) + bool(subscription) + everything > 1:
        raise click.UsageError("deliveries by number, --subscription and --all exclude each other")
    which: dict[str, Any] = {"ids": ids} if ids else {"state": state}
    which |= {"subscription": subscription} if subscription else {"all": True} if everything else {}
    with context.daemon() as daemon:
        done = daemon.post("/api/v1/redeliver", which) if daemon else do_here(context, "redeliver", which)
    tell(done, as_json)


@click.command()
@click.argument("subscription", shell_complete=named("subscription"))
@click.option("--after", required=True, metavar="PLACE", help="A number of the log, or a time with its offset.")
@as_json_option
@click.pass_obj
def replay(context: CliContext, subscription: str, after: str, as_json: bool) -> None:
    """Deliver again the events that a SUBSCRIPTION has read after a number or since a time.

    Example: poller replay crm --after 1200
    """
    found = parse_place(after, what="--after")
    place = found if isinstance(found, int) else after
    with context.daemon() as daemon:
        if daemon is not None:
            done = daemon.post(f"/api/v1/subscriptions/{in_path(subscription)}/replay", {"after": place})
        else:
            done = do_here(context, "replay", {"subscription": subscription, "after": place})
    tell(done, as_json)


# poller pause, resume, ping


def _of_subscription(name: str, text: str) -> click.Command:
    @click.command(name, help=f"{text}\n\nExample: poller {name} crm")
    @click.argument("subscription", shell_complete=named("subscription"))
    @as_json_option
    @click.pass_obj
    def command(context: CliContext, subscription: str, as_json: bool) -> None:
        with context.daemon() as daemon:
            if daemon is not None:
                done = daemon.post(f"/api/v1/subscriptions/{in_path(subscription)}/{name}")
            else:
                done = do_here(context, name, {"subscription": subscription})
        tell(done, as_json)

    return command


pause = _of_subscription("pause", "Stop delivering to a SUBSCRIPTION; its events are kept.")


@click.command()
@click.argument("name", shell_complete=named("subscription", "budget"))
@click.option("--budget", "is_budget", is_flag=True, help="NAME is a budget, even if a subscription has the same name.")
@as_json_option
@click.pass_obj
def resume(context: CliContext, name: str, is_budget: bool, as_json: bool) -> None:
    """Continue delivering to the subscription NAME, or end the pause that the server of the budget NAME asked for.

    A resumed budget makes calls at once, within its own limits. If a subscription and a budget have the same name, NAME
    means the subscription unless --budget is given.

    Example: poller resume crm
    """
    with context.daemon() as daemon:
        if daemon is not None:
            running = daemon.get("/api/v1/configuration")
            kind = "budget" if is_budget else _resumed_kind(name, running["subscriptions"], running["budgets"])
            done = daemon.post(f"/api/v1/{kind}s/{in_path(name)}/resume")
        else:
            config, plugins = context.load()
            subscriptions = [one.name for one in config.subscriptions]
            kind = "budget" if is_budget else _resumed_kind(name, subscriptions, config.budgets)
            done = run_coroutine(run_command(config, plugins, "resume", {kind: name}))
    tell(done, as_json)


def _resumed_kind(name: str, subscriptions: Collection[str], budgets: Collection[str]) -> str:
    """Whether a name is a subscription or a budget. Raises NotThere."""
    if name in subscriptions:
        return "subscription"
    if name in budgets:
        return "budget"
    hint = nearest(name, [*subscriptions, *budgets])
    raise NotThere(f"no subscription and no budget is named {name!r}", hint=hint)


@click.command()
@click.argument("subscription", shell_complete=named("subscription"))
@as_json_option
@click.pass_obj
def ping(context: CliContext, subscription: str, as_json: bool) -> int:
    """Send a test event to a SUBSCRIPTION at once, even while it is failing, and show the answer.

    Exit status 1 if the test did not arrive.

    Example: poller ping crm
    """
    with context.daemon() as daemon:
        if daemon is not None:
            queued = daemon.post(f"/api/v1/subscriptions/{in_path(subscription)}/ping")
            waits = queued.get("state") in ("paused", "disabled")
            state, attempt = ("pending", None) if waits else _outcome(daemon, queued["delivery"])
        else:
            queued = do_here(context, "ping", {"subscription": subscription})
            waits = queued.get("state") in ("paused", "disabled")
            state, attempt = _outcome_here(context, queued["delivery"])
    number = queued["delivery"]
    summary = queued["summary"] if waits else _answered(subscription, number, state, attempt)
    answered = {"subscription": subscription, "delivery": number, "delivered": state == "delivered", "attempt": attempt}
    tell({"summary": summary, **answered}, as_json)
    return 0 if state == "delivered" else 1


def _outcome(daemon: DaemonClient, number: int) -> tuple[str, dict[str, Any] | None]:
    """State and first attempt of a test, once it was attempted."""
    until = time.monotonic() + PING_FOR
    while True:
        found = daemon.get(f"/api/v1/deliveries/{number}")
        if found["log"] or time.monotonic() > until:
            return found["state"], next(iter(found["log"]), None)
        time.sleep(LOOK_EVERY)


def _outcome_here(context: CliContext, number: int) -> tuple[str, dict[str, Any] | None]:
    """State and first attempt of a test that this process delivers, if it can."""
    config, _ = context.load(reveal=False)
    with open_reader(config.poller.state) as reader:
        found, attempts = reader.deliveries.delivery(number), reader.deliveries.attempts(number)
    first = next(({"status": one.status, "latency": one.latency, "text": one.text} for one in attempts), None)
    return ("pending" if found is None else found.state), first


def _answered(subscription: str, number: int, state: str, attempt: dict[str, Any] | None) -> str:
    if attempt is None:
        return f"{subscription} was not reached within {PING_FOR:g} s: poller deliveries show {number}, poller status"
    text = "" if state == "delivered" or not attempt["text"] else f": {attempt['text'][:200]}"
    return f"{subscription} answered {attempt['status']} in {attempt['latency'] * 1000:.0f} ms{text}"


# poller hold, release, rebaseline


def _at_endpoint(context: CliContext, name: str, endpoint: str, **how: bool) -> dict[str, Any]:
    with context.daemon() as daemon:
        if daemon is None:
            return do_here(context, name, {"endpoint": endpoint, **how})
        return daemon.post(
            f"/api/v1/endpoints/{in_path(*endpoint_of(daemon, endpoint))}/{name}",
            {word: True for word, wanted in how.items() if wanted},
        )


def _of_endpoint(name: str, text: str) -> click.Command:
    @click.command(name, help=f"{text}\n\nExample: poller {name} acme/projects")
    @click.argument("endpoint", shell_complete=named("endpoint"))
    @as_json_option
    @click.pass_obj
    def command(context: CliContext, endpoint: str, as_json: bool) -> None:
        tell(_at_endpoint(context, name, endpoint), as_json)

    return command


hold = _of_endpoint("hold", "Record nothing of an ENDPOINT until it is released.")
rebaseline = _of_endpoint("rebaseline", "Record the next sweep of an ENDPOINT as its new baseline, without events.")


@click.command()
@click.argument("endpoint", shell_complete=named("endpoint"))
@click.option("--accept", is_flag=True, help="Record the current objects without events.")
@click.option("--emit", is_flag=True, help="Report the differences as events.")
@as_json_option
@click.pass_obj
def release(context: CliContext, endpoint: str, accept: bool, emit: bool, as_json: bool) -> None:
    """End the hold of an ENDPOINT. Without an option, it is counted again, and held again if nothing changed.

    Example: poller release acme/projects --accept
    """
    if accept and emit:
        raise click.UsageError("--accept and --emit exclude each other")
    tell(_at_endpoint(context, "release", endpoint, accept=accept, emit=emit), as_json)
