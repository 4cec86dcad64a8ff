"""The command line as a user types it, and a small shop whose API it asks."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.support.loopback import Handler, serving_handler

CONFIG = """
[poller]
listen = "{listen}"
[budgets.shop]
limits = ["1000/s"]
[sources.shop]
plugin = "rest"
base_url = "{url}"
[sources.shop.endpoints.items]
path = "/items"
absent_for = "0s"
[[subscriptions]]
name = "file"
plugin = "jsonl"
path = "out.jsonl"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@dataclass(slots=True)
class Shop:
    """An API of one list; `answer` is what it says instead, where it is set."""

    items: list[Any] = field(default_factory=list)
    answer: tuple[int, bytes, str] | None = None  # status, body, content type
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # of every answer
    answers: dict[str, tuple[int, bytes, str]] = field(default_factory=dict)  # by path, for what is no list of ours

    def said(self, path: str) -> tuple[int, bytes, str]:
        return self.answers.get(path) or self.answer or (200, orjson.dumps(self.items), "application/json")

    def configure(self, folder: Path, *, listen: str = "", more: str = "") -> Path:
        path = folder / "poller.toml"
        path.write_text(CONFIG.format(url=self.url, listen=listen) + more)
        return path


@contextlib.contextmanager
def open_shop() -> Iterator[Shop]:
    """A shop with two items, on a port of loopback."""
    shop = Shop([{"id": 1, "name": "Apple"}, {"id": 2, "name": "Pear"}])

    class List(Handler):
        def do_GET(self) -> None:
            self.answer(*shop.said(self.path), shop.headers)

    with serving_handler(List) as address:
        shop.url = f"http://{address}"
        yield shop
