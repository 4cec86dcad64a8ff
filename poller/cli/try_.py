"""`poller try`: the answer of one endpoint, without recording anything."""

from __future__ import annotations

import click
import msgspec

from poller.cli.context import CliContext
from poller.cli.findings import PATIENCE, inspected, report
from poller.cli.names import named
from poller.cli.output import print_json, say
from poller.cli.process import run_coroutine
from poller.cli.view import endpoint_of
from poller.operations.inspection import Inspection
from poller.operations.run_command import run_command


@click.command("try")
@click.argument("endpoint", metavar="SOURCE/ENDPOINT", shell_complete=named("endpoint"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def try_(context: CliContext, endpoint: str, as_json: bool) -> int:
    """Ask one endpoint and show its requests, objects, ids, next page, total, and contradictions to the configuration.

    Nothing is recorded. Example: poller try shop/items
    """
    with context.daemon() as daemon:
        if daemon is not None:
            found = inspected(daemon, *endpoint_of(daemon, endpoint))
        else:
            config, plugins = context.load()
            answer = run_coroutine(run_command(config, plugins, "inspect", {"endpoint": endpoint}, timeout=PATIENCE))
            found = msgspec.convert(answer, Inspection)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return 1 if found.problem else 0
    for page in found.pages:
        say(page.request)
        say(f"  objects  {page.objects}" + (f" of {page.total}" if page.total is not None else ""))
        say(f"  ids      {', '.join(page.ids) or 'none'}")
        say(f"  next     {page.next if page.next else 'none: the list ends here'}")
    if found.item is not None:
        say(found.item.request)
        say(f"  status   {found.item.status}")
    return report(found)
