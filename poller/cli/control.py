"""Commands that change something: done by the daemon where one runs, else here."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from poller.cli.context import Chosen
from poller.operations.commands import run_command


def _do(chosen: Chosen, name: str, **args: Any) -> None:
    config, plugins = chosen.load()
    answer = asyncio.run(run_command(config, plugins, name, args))
    told = " ".join(f"{key}={value}" for key, value in answer.items())
    click.echo(f"{name}: {told}" if told else f"{name}: done")


@click.command()
@click.argument("ids", nargs=-1, type=int)
@click.option("--subscription", help="All of one subscription.")
@click.option(
    "--state",
    type=click.Choice(["dead", "delivered", "pending"]),
    default="dead",
    show_default=True,
    help="In this state.",
)
@click.option("--all", "everything", is_flag=True, help="Of every subscription.")
@click.pass_obj
def redeliver(chosen: Chosen, ids: tuple[int, ...], subscription: str | None, state: str, everything: bool) -> None:
    """Deliver again, by number or all of a state: same id, same sequence, outside the order.

    Example: poller redeliver --subscription crm --state dead
    """
    if not ids and subscription is None and not everything:
        raise click.UsageError("name deliveries, a --subscription, or --all")
    _do(chosen, "redeliver", ids=ids, subscription=subscription, state=state, all=everything)


@click.command()
@click.argument("subscription")
@click.option("--after", required=True, metavar="SEQ", help="A number of the log, or a time with its offset.")
@click.pass_obj
def replay(chosen: Chosen, subscription: str, after: str) -> None:
    """Deliver again what a SUBSCRIPTION has read behind a number or since a time.

    Example: poller replay crm --after 1200
    """
    _do(chosen, "replay", subscription=subscription, after=int(after) if after.isdecimal() else after)


def _of_subscription(name: str, text: str) -> click.Command:
    @click.command(name, help=f"{text}\n\nExample: poller {name} crm")
    @click.argument("subscription")
    @click.pass_obj
    def command(chosen: Chosen, subscription: str) -> None:
        _do(chosen, name, subscription=subscription)

    return command


def _of_endpoint(name: str, text: str) -> click.Command:
    @click.command(name, help=f"{text}\n\nExample: poller {name} acme/projects")
    @click.argument("endpoint")
    @click.pass_obj
    def command(chosen: Chosen, endpoint: str) -> None:
        _do(chosen, name, endpoint=endpoint)

    return command


ping = _of_subscription("ping", "Send a test event to a SUBSCRIPTION.")
pause = _of_subscription("pause", "Stop delivering to a SUBSCRIPTION; nothing is lost meanwhile.")
resume = _of_subscription("resume", "Go on delivering to a SUBSCRIPTION.")
hold = _of_endpoint("hold", "Record nothing of an ENDPOINT until it is released.")
rebaseline = _of_endpoint("rebaseline", "Take the next sweep of an ENDPOINT as it is, without events.")


@click.command()
@click.argument("endpoint")
@click.option("--accept", is_flag=True, help="Record what is there now silently.")
@click.option("--emit", is_flag=True, help="Tell what is there now as events.")
@click.pass_obj
def release(chosen: Chosen, endpoint: str, accept: bool, emit: bool) -> None:
    """End the hold of an ENDPOINT.

    Example: poller release acme/projects --accept
    """
    if accept and emit:
        raise click.UsageError("--accept and --emit exclude each other")
    _do(chosen, "release", endpoint=endpoint, accept=accept, emit=emit)
