"""The command line as a user types it, and a small shop whose API it asks."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, kind = shop.said(self.path)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            for name, value in shop.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shop.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
