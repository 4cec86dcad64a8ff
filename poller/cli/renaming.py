"""`poller rename` and `poller forget`: what is kept of subscriptions and sources follows the configuration."""

from __future__ import annotations

from typing import Any

import click

from poller.cli.context import CliContext
from poller.cli.control import as_json_option, do_here, tell
from poller.cli.daemon_client import in_path

source_option = click.option("--source", "is_source", is_flag=True, help="It is a source, not a subscription.")


def _asked(context: CliContext, name: str, kind: str, which: str, args: dict[str, Any]) -> dict[str, Any]:
    with context.daemon() as daemon:
        if daemon is None:
            return do_here(context, name, {"kind": kind, **args})
        body = {"new": args["new"]} if name == "rename" else {}
        return daemon.post(f"/api/v1/{kind}s/{in_path(which)}/{name}", body, timeout=PATIENCE)


PATIENCE = 600.0  # seconds: every event of a source may be written


@click.command()
@click.argument("old")
@click.argument("new")
@source_option
@as_json_option
@click.pass_obj
def rename(context: CliContext, old: str, new: str, is_source: bool, as_json: bool) -> None:
    """Keep what is kept of the subscription OLD under the name NEW: its place in the log, its deliveries, a pause.

    Write the new name into poller.toml first, and do not reload: this command takes the configuration over. Of a
    source everything is kept: snapshots, events, calls that count, and what was learned. Its next events carry the
    new name, and the type that follows from it.

    Example: poller rename crm sales
    """
    kind = "source" if is_source else "subscription"
    tell(_asked(context, "rename", kind, old, {"old": old, "new": new}), as_json)


@click.command()
@click.argument("name")
@source_option
@as_json_option
@click.pass_obj
def forget(context: CliContext, name: str, is_source: bool, as_json: bool) -> None:
    """Forget the subscription NAME, with its deliveries, once it was removed from poller.toml.

    Of a source the objects are forgotten. Events stay in the log until `retention` ends, and so do the numbers of
    calls. Should a source of that name come back, it begins with a baseline.

    Example: poller forget crm
    """
    kind = "source" if is_source else "subscription"
    tell(_asked(context, "forget", kind, name, {"name": name}), as_json)
