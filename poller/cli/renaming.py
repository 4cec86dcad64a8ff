"""`poller rename` and `poller forget`: stored data of subscriptions and sources follows the configuration."""

from __future__ import annotations

from typing import Any

import click

from poller.cli.context import CliContext
from poller.cli.control import as_json_option, do_here, tell
from poller.cli.daemon_client import in_path
from poller.cli.names import named

source_option = click.option(
    "--source", "is_source", is_flag=True, help="The name is that of a source, not of a subscription."
)


def _asked(context: CliContext, name: str, kind: str, which: str, args: dict[str, Any]) -> dict[str, Any]:
    with context.daemon() as daemon:
        if daemon is None:
            return do_here(context, name, {"kind": kind, **args})
        body = {"new": args["new"]} if name == "rename" else {}
        return daemon.post(f"/api/v1/{kind}s/{in_path(which)}/{name}", body, timeout=PATIENCE)


PATIENCE = 600.0  # seconds: every event of a source may have to be written


@click.command()
@click.argument("old")
@click.argument("new", shell_complete=named("subscription", "source"))
@source_option
@as_json_option
@click.pass_obj
def rename(context: CliContext, old: str, new: str, is_source: bool, as_json: bool) -> None:
    """Rename the subscription OLD to NEW, with its stored data: position in the log, deliveries, pause.

    Write the new name into poller.toml first, and do not reload: this command applies the configuration. With --source
    it renames a source, with its snapshots, events, counted calls and learned rates. Later events carry the new name
    and the type that follows from it.

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
    """Delete the stored data of the subscription NAME, with its deliveries, after it was removed from poller.toml.

    With --source the objects of a source are deleted. Its events stay in the log until `retention` ends, and versions
    of its objects are kept, so that no event id is ever used twice. If a source of that name returns, it begins with a
    baseline.

    Example: poller forget crm
    """
    kind = "source" if is_source else "subscription"
    tell(_asked(context, "forget", kind, name, {"name": name}), as_json)
