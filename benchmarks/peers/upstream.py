"""A list on loopback, page by page, that can misbehave; it counts every call and refuses those beyond its limit."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.support.loopback import Handler, serving_handler

PER_PAGE = 20


@dataclass(slots=True)
class Shop:
    """The objects, the fault of the moment, and what was asked."""

    objects: list[dict[str, Any]]
    fault: str = "none"
    most: int | None = None  # calls a second
    calls: int = 0
    refused: int = 0
    recent: deque[float] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body of one call."""
        with self.lock:
            self.calls += 1
            if self._beyond_the_limit():
                self.refused += 1
                return 429, b'{"error": "too many requests"}'
            return self._page(int(parse_qs(urlsplit(path).query).get("page", ["1"])[0]))

    def _beyond_the_limit(self) -> bool:
        now = time.monotonic()
        while self.recent and now - self.recent[0] >= 1.0:
            self.recent.popleft()
        self.recent.append(now)
        return self.most is not None and len(self.recent) > self.most

    def _page(self, number: int) -> tuple[int, bytes]:
        shown = self.objects[(number - 1) * PER_PAGE : number * PER_PAGE]
        body = orjson.dumps(shown)
        match self.fault:
            case "500" if number == 2:
                return 500, b'{"error": "internal"}'
            case "html" if number == 2:
                return 200, b"<html><body><h1>Back in a minute</h1></body></html>"
            case "half" if number == 2:
                return 200, body[: len(body) // 2]
            case "empty page" if number == 2:
                return 200, b"[]"
            case "empty list":
                return 200, b"[]"
            case "other order":
                return 200, orjson.dumps(shown[::-1])
            case "other spelling":
                return 200, body.replace(b'"price":', b'"price" : ').replace(b"0,", b"0.0,")
        return 200, body


@contextmanager
def serving(shop: Shop) -> Iterator[str]:
    """The URL of the list while it is served."""

    class List(Handler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = shop.answer(self.path)
            self.answer(status, body, "text/html" if body.startswith(b"<") else "application/json")

    with serving_handler(List) as address:
        yield f"http://{address}/items"
