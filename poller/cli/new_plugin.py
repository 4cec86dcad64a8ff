"""`poller new-plugin`: writes a template of a sink or a source, and a test that passes."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from typing import Final

import click

from poller.cli.output import say
from poller.hooks.loading import load_plugins
from state.errors import PollerError

SINK: Final = '''\
"""A sink: appends a line for each event to a file. Change `deliver` to what your receiver needs."""

from pathlib import Path

from pydantic import BaseModel

from poller import Receipt, RetryLater, hookimpl


class NAMESink:
    class Options(BaseModel, extra="forbid"):
        path: Path  # a key of [[subscriptions]]; add yours

    def __init__(self, name, options):
        self.options = options

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def deliver(self, events, attempt):
        if not self.options.path.parent.is_dir():
            raise RetryLater(None, Receipt(status="no folder", text=f"{self.options.path.parent} does not exist"))
        with self.options.path.open("a") as file:
            for event in events:
                file.write(f"{event.id} {event.type} {event.subject}\\n")
        return Receipt(status="written")


@hookimpl
def register_sinks(register):
    register("WORD", NAMESink)
'''
SINK_TEST: Final = '''\
"""Run with `pip install pytest pytest-asyncio` and `pytest`."""

import sys
from pathlib import Path

import pytest

from poller.testing import Upstream, running

sys.path.insert(0, str(Path(__file__).parents[1]))
import WORD

CONFIG = """
[sources.shop]
plugin = "rest"
base_url = "https://shop.example"
[sources.shop.endpoints.items]
path = "/items"

[[subscriptions]]
name = "mine"
plugin = "WORD"
path = "written.txt"
"""


@pytest.mark.asyncio
async def test_an_event_is_delivered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shop = Upstream({"/items": [{"id": 1, "name": "Chair"}]})
    async with running(CONFIG, tmp_path, plugins={"WORD": WORD}, upstream=shop) as poller:
        await poller.sweep()  # the baseline: nothing is sent
        shop.lists["/items"][0]["name"] = "Table"
        await poller.sweep()

    assert (tmp_path / "written.txt").read_text().endswith("shop.items.updated items/1\\n")
'''
SOURCE: Final = '''\
"""A source: a list of items, page by page. Change the URLs and `page` to what your API answers."""

import httpx
from pydantic import BaseModel

from poller import Endpoint, Limit, Page, PageError, Position, hookimpl


class NAMESource:
    class Options(BaseModel, extra="forbid"):
        url: str  # a key of [sources.NAME]; add yours

    limits = (Limit(60, 60.0),)  # 60 calls in any 60 seconds: what the API documents

    def __init__(self, name, options):
        self.url = options.url

    def endpoints(self):
        return [Endpoint(name="items", first=Position(page=1))]

    def request(self, endpoint, at):
        return httpx.Request("GET", f"{self.url}/items", params={"page": at.page})

    def page(self, endpoint, at, response):
        objects = response.json()
        if not isinstance(objects, list):
            raise PageError("the answer is not a list")
        return Page(objects=objects, next=Position(page=at.page + 1) if objects else None)

    def item_request(self, endpoint, object_id):
        return httpx.Request("GET", f"{self.url}/items/{object_id}")


@hookimpl
def register_sources(register):
    register("WORD", NAMESource)
'''
SOURCE_TEST: Final = '''\
"""Run with `pip install pytest pytest-asyncio` and `pytest`."""

import sys
from pathlib import Path

import pytest

from poller.testing import Upstream, running

sys.path.insert(0, str(Path(__file__).parents[1]))
import WORD

CONFIG = """
[sources.mine]
plugin = "WORD"
url = "https://api.example"
"""


class Api(Upstream):
    def answer(self, request):  # the second page is empty: it is the end of the list
        return self.empty() if request.url.params.get("page") == "2" else super().answer(request)


@pytest.mark.asyncio
async def test_a_change_becomes_an_event(tmp_path):
    api = Api({"/items": [{"id": 1, "name": "Chair"}]})
    async with running(CONFIG, tmp_path, plugins={"WORD": WORD}, upstream=api) as poller:
        await poller.sweep()  # the baseline: no events
        api.lists["/items"][0]["name"] = "Table"
        await poller.sweep()

        assert [event.type for event in poller.events] == ["mine.items.updated"]
'''
TEMPLATES: Final = {"sink": (SINK, SINK_TEST), "source": (SOURCE, SOURCE_TEST)}


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(TEMPLATES)), default="sink", show_default=True, help="Kind of plugin.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("plugins.d"),
    show_default=True,
    help="Where to write it: the folder of `plugins_dir`.",
)
def new_plugin(name: str, kind: str, folder: Path) -> None:
    """Write a plugin to begin with, and a test of it.

    Example: poller new-plugin pager --kind sink
    """
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        raise PollerError(
            f"{name!r} is not a valid name", hint="write lower case letters, digits and _, a letter first"
        )
    _refuse_taken(name, kind)
    (folder / "tests").mkdir(mode=0o755, parents=True, exist_ok=True)
    for file_name, template in zip((f"{name}.py", f"tests/test_{name}.py"), TEMPLATES[kind], strict=True):
        text = template.replace("WORD", name).replace("NAME", "".join(map(str.capitalize, name.split("_"))))
        _write(folder / file_name, text)
    say(f'wrote {folder / name}.py and its test; next: plugins_dir = "{folder}" under [poller], then poller plugins')


def _refuse_taken(name: str, kind: str) -> None:
    """Refuse a name under which the plugin could not be registered, or its test not import it."""
    plugins = load_plugins(lazily=True)
    if name in (plugins.sinks if kind == "sink" else plugins.sources):
        raise PollerError(f"there is a {kind} {name!r} already", hint=f"choose another name, such as my_{name}")
    if keyword.iskeyword(name) or importlib.util.find_spec(name) is not None:
        raise PollerError(f"{name!r} is a word or module of Python", hint=f"choose another name, such as my_{name}")


def _write(path: Path, text: str) -> None:
    """Write a new file. Raises PollerError if it exists."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise PollerError(f"{path} already exists", hint="choose another name, or move that file away") from None
