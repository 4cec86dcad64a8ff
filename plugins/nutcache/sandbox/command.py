"""`poller sandbox`: the strict local Nutcache server alone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from plugins.nutcache.profiles import LIMITS, PROFILES
from plugins.nutcache.sandbox.admission import ACCESS_TOKEN, API_KEY, PASSWORD, USERNAME
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import COMPANY_GUID, Size
from plugins.nutcache.sandbox.server import Server, serving
from plugins.nutcache.sandbox.variants import Variants, choices, parse_variants
from poller import Limit
from poller.options.quantities import parse_rate
from poller.rendering.counting import counted

LOOPBACK = ("127.0.0.1", "localhost")
DEFAULT_PORT = 8764


def _limits(_: click.Context, __: click.Parameter, text: str) -> tuple[Limit, ...]:
    try:
        return tuple(parse_rate(rate) for rate in text.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _variants(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> Variants:
    try:
        return parse_variants(texts)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _size(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> Size:
    known = [field.name for field in fields(Size)]
    sizes: dict[str, int] = {}
    for text in texts:
        name, _equals, number = text.rpartition("=")
        name = name or "time_entries"
        if name not in known or not number.isdigit():
            raise click.BadParameter(f"{text!r}: write NAME=NUMBER; names are {', '.join(known)}")
        sizes[name] = int(number)
    if min(sizes.get("companies", 1), sizes.get("customers", 1), sizes.get("projects", 1)) < 1:
        raise click.BadParameter("an office needs at least one company, one customer and one project")
    return Size(**sizes)


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="Port; 0 takes any free one."
)
@click.option(
    "--host", type=click.Choice(LOOPBACK), default="127.0.0.1", show_default=True, help="Address or name to listen on."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same office.")
@click.option("--speed", type=click.FloatRange(0), default=60.0, show_default=True, help="Office seconds per second.")
@click.option(
    "--pace", type=click.FloatRange(0), default=0.0, help="Changes per second, day and night, instead of --speed."
)
@click.option(
    "--profile", type=click.Choice(list(PROFILES)), default="v4", show_default=True, help="Version of the API."
)
@click.option(
    "--size",
    multiple=True,
    callback=_size,
    metavar="[NAME=]NUMBER",
    help="Number of records, such as invoices=500; repeatable.",
)
@click.option(
    "--limits",
    default=",".join(LIMITS),
    show_default=True,
    callback=_limits,
    metavar="RATES",
    help="Rate limits per API key.",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    callback=_variants,
    metavar="NAME=VALUE",
    help="A variant of the API, see --list-variants.",
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append every change to this file, as JSON Lines.",
)
@click.option("--list-variants", is_flag=True, help="List every variant and its values, the default first.")
def sandbox(
    port: int,
    host: str,
    seed: int,
    speed: float,
    pace: float,
    profile: str,
    size: Size,
    limits: tuple[Limit, ...],
    variants: Variants,
    journal: Path | None,
    list_variants: bool,
) -> None:
    """Serve a strict local Nutcache API whose records change as in a busy office.

    Example: poller sandbox --pace 1 --variant errors=html
    """
    if list_variants:
        for name, values in choices().items():
            click.echo(f"{name}={'|'.join(values)}")
        return
    settings = Settings(
        profile=PROFILES[profile],
        variants=variants,
        limits=limits,
        size=size,
        seed=seed,
        start=working_morning(datetime.now(UTC)),
        journal_path=journal,
    )
    try:
        asyncio.run(_serve(settings, host=host, port=port, speed=speed, pace=pace))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}. Try: --port 0") from error


async def _serve(settings: Settings, *, host: str, port: int, speed: float, pace: float) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    async with serving(settings, host=host, port=port, speed=speed, pace=pace) as server:
        for name, text in introduction(server).items():
            click.echo(f"{name:<14}{text}")
        await over.wait()
        calls = server.sandbox.calls()
    made, changes = counted(calls["calls"], "call"), counted(len(server.journal.entries), "change")
    click.echo(f"{made}, {calls['refused']} refused, {changes}", err=True)


def introduction(server: Server) -> Mapping[str, str]:
    """The address and credentials that a client needs."""
    return {
        "server": server.url,
        "profile": server.sandbox.profile.name,
        "company": COMPANY_GUID,
        "access_token": ACCESS_TOKEN,
        "username": USERNAME,
        "password": PASSWORD,
        "api_key": API_KEY,
        "journal": f"{server.origin}/_sandbox/journal?after=0",
        "calls": f"{server.origin}/_sandbox/calls",
    }


def working_morning(now: datetime) -> float:
    """Unix seconds of nine o'clock (14:00 UTC) of the latest working day, a busy time in the office."""
    morning = now.replace(hour=14, minute=0, second=0, microsecond=0)
    while morning > now or morning.weekday() >= 5:
        morning -= timedelta(days=1)
    return morning.timestamp()
