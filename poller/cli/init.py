"""`poller init`: writes a first configuration."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

import click

from poller.cli.context import CliContext
from poller.cli.output import say
from state.errors import PollerError

SERVICE_STATE: Final = "/var/lib/poller/poller.db"  # state of the systemd unit

NUTCACHE = """\
#:schema ./poller.schema.json
# Poller: every key is explained in docs/configuration.md. Check this file with `poller check --online`.
# Editors complete and check it by the schema above: poller check --schema > poller.schema.json
[poller]
state = "poller.db"
listen = "127.0.0.1:8765"          # API and dashboard; "" switches them off

[sources.acme]
plugin = "nutcache"
# The local sandbox (`poller sandbox`). For the real service remove these two lines ...
server = "http://127.0.0.1:8764/webapi"
access_token = "sandbox-access-token"
# ... and write:
# access_token = { env = "NUTCACHE_TOKEN" }
# company = "11111111-2222-3333-4444-555555555555"

# If you name endpoints, only those are polled, otherwise every endpoint of Nutcache. Keys of an endpoint: weight,
# max_staleness, ignore, exclude and others; see docs/configuration.md.
[sources.acme.endpoints.customers]
[sources.acme.endpoints.projects]
weight = 5                         # a minute of delay matters five times as much here
[sources.acme.endpoints.time_entries]
[sources.acme.endpoints.invoices]
[sources.acme.endpoints.expenses]

[[subscriptions]]
name = "console"
plugin = "console"

# [[subscriptions]]
# name = "crm"
# plugin = "http"
# url = "https://crm.example/hooks/poller"
# secret = { env = "CRM_SECRET" }
# types = ["nutcache.projects.*", "*.deleted"]
"""

REST = """\
#:schema ./poller.schema.json
# Poller: every key is explained in docs/configuration.md. Check this file with `poller check --online`.
# Editors complete and check it by the schema above: poller check --schema > poller.schema.json
[poller]
state = "poller.db"

[sources.shop]
plugin = "rest"                    # any JSON API, without code
base_url = "https://shop.example/api"
# auth = { type = "bearer", token = { env = "SHOP_TOKEN" } }
[sources.shop.endpoints.items]
path = "/items"
# items = "$.data"                 # where the list is in the answer, if the answer has more than one
id = "id"                          # the field that identifies an object
# How the list continues. `size` is what the server really returns on a full page; `total = "$.total"` names its count.
pagination = { type = "page", param = "page", start = 1, size_param = "per_page", size = 100 }
#            { type = "offset", param = "offset", size_param = "limit", size = 100 }
#            { type = "cursor", param = "cursor", next = "$.next" }
#            { type = "link" }   { type = "none" }
# item_path = "/items/{id}"        # an object's own URL: only its 404 or 410 proves a deletion
# max_staleness = "10m"            # a promise: refused if the limits cannot keep it

[budgets.shop]                     # the calls of one API key: what the API's documentation allows
limits = ["1/s"]                   # several windows at once: ["5/s", "200/min", "20000/day"]

[[subscriptions]]
name = "console"
plugin = "console"

# [[subscriptions]]
# name = "crm"
# plugin = "http"
# url = "https://crm.example/hooks/poller"
# secret = { env = "CRM_SECRET" }  # whsec_ and 32 random bytes: echo "whsec_$(head -c 32 /dev/urandom | base64)"
# types = ["shop.items.*"]
# allow_private = true             # for a receiver on this machine or in your network
"""


@click.command()
@click.option(
    "--source",
    type=click.Choice(["nutcache", "rest"]),
    default="nutcache",
    show_default=True,
    help="The kind of API.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.pass_obj
def init(context: CliContext, source: str, force: bool) -> None:
    """Write a commented poller.toml.

    Example: poller init --source rest
    """
    path = context.path or Path("poller.toml")
    if path.exists() and not force:
        raise PollerError(f"{path} already exists", hint="poller init --force overwrites it")
    path.touch(0o600)  # it will hold credentials
    text = NUTCACHE if source == "nutcache" else REST
    if path.resolve().is_relative_to("/etc"):  # only configuration belongs there
        text = text.replace('state = "poller.db"', f'state = "{SERVICE_STATE}"')
    path.write_text(text, encoding="utf-8")
    _share(path)
    say(f"wrote {path}; next: poller check --online", err=True)


def _share(path: Path) -> None:
    """Let the group of a folder that is closed to others read the file: a service's user owns neither."""
    folder = path.resolve().parent.stat()
    is_closed = folder.st_mode & (stat.S_IRWXG | stat.S_IRWXO) == stat.S_IRGRP | stat.S_IXGRP
    if is_closed and folder.st_gid != os.getegid():
        os.chown(path, -1, folder.st_gid)
        path.chmod(0o640)
