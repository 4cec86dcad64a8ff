"""What a daemon meets while it is killed: an API with strict windows that knows its truth, and a failing receiver."""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlparse

import orjson

LIMITS: Final = ((30, 1.0), (1500, 60.0))  # calls, seconds: strict, by arrival
SIZE: Final = 10  # objects on a page
MOST_DELETED: Final = 45  # an hour: from 50 on the endpoint would be held
BY_CHANCE: Final = 15  # of these; the others are for lives that are to end at a deletion
POISON: Final = 7  # every fiftieth object from here on is refused by the receiver for good


class Served:
    """An HTTP server on loopback, on threads of its own."""

    def __init__(self) -> None:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(*served.answer(self.path, b""))

            def do_POST(self) -> None:
                self._say(*served.answer(self.path, self.rfile.read(int(self.headers["content-length"]))))

            def _say(self, status: int, body: bytes) -> None:
                try:
                    if not status:  # it hangs up
                        self.close_connection = True
                        return
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the daemon is dead

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass  # the daemon is dead

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.lock = threading.Lock()

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body. Status 0: it hangs up."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Api(Served):
    """A list of things in pages, each with a URL of its own. It counts every call, and remembers all it ever was."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.things: dict[int, dict[str, Any]] = {}
        self.history: defaultdict[int, list[dict[str, Any] | None]] = defaultdict(lambda: [None])
        self.arrivals: list[float] = []
        self.refused = 0
        self._random = random.Random(seed)
        self._edits = 0
        self._deleted: list[float] = []  # when
        for _ in range(25):
            self._create()

    def change(self) -> None:
        """Let one thing happen."""
        with self.lock:
            act = self._random.choice(("create", "edit", "edit", "edit", "edit", "delete"))
            if act == "create" and len(self.things) < 60:
                self._create()
            elif act == "delete" and self._deletes() < BY_CHANCE and self._random.random() < 0.3:
                self._delete()
            else:
                self._put(self._random.choice(sorted(self.things)))

    def delete(self) -> None:
        """Delete something, unless much was deleted lately."""
        with self.lock:
            if self._deletes() < MOST_DELETED:
                self._delete()

    def _deletes(self) -> int:
        """How many things were deleted in the last hour."""
        return sum(at > time.monotonic() - 3600.0 for at in self._deleted)

    def _create(self) -> None:
        self._put(max(self.history, default=0) + 1)

    def _put(self, number: int) -> None:
        self._edits += 1
        self.things[number] = {"id": number, "name": f"edit {self._edits}"}
        self.history[number].append(self.things[number])

    def _delete(self) -> None:
        number = self._random.choice(sorted(self.things))
        self._deleted.append(time.monotonic())
        del self.things[number]
        self.history[number].append(None)

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """See Served. Refused calls count as well."""
        url = urlparse(path)
        with self.lock:
            now = time.monotonic()
            self.arrivals.append(now)
            if any(self._since(now - seconds) > calls for calls, seconds in LIMITS):
                self.refused += 1
                return 429, b""
            parts = url.path.strip("/").split("/")
            if len(parts) == 2:
                thing = self.things.get(int(parts[1]))
                return (404, b"") if thing is None else (200, orjson.dumps(thing))
            begin = (int(parse_qs(url.query).get("page", ["1"])[0]) - 1) * SIZE
            return 200, orjson.dumps([self.things[n] for n in sorted(self.things)[begin : begin + SIZE]])

    def _since(self, at: float) -> int:
        return len(self.arrivals) - bisect_right(self.arrivals, at)

    def worst(self) -> list[tuple[int, int, float]]:
        """(most calls in any window, allowed, seconds) of each limit."""
        found = []
        for calls, seconds in LIMITS:
            most, first = 0, 0
            for last, at in enumerate(self.arrivals):
                while self.arrivals[first] <= at - seconds:
                    first += 1
                most = max(most, last - first + 1)
            found.append((most, calls, seconds))
        return found


class Receiver(Served):
    """A callback that fails at random, hangs up, and refuses some objects for good. It keeps what it has accepted."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.accepted: list[dict[str, Any]] = []  # in order, repetitions included
        self.attempts = 0
        self.is_kind = False  # from now on it fails no more
        self._random = random.Random(seed)

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """See Served."""
        event = orjson.loads(body)
        with self.lock:
            self.attempts += 1
            chance = 1.0 if self.is_kind else self._random.random()
            if is_poisoned(event["subject"]):
                return 400, b""
            if chance < 0.05:
                return 503, b""
            if chance < 0.07:
                return 0, b""
            self.accepted.append(event)
            # Now and then it has taken the event, and the answer is lost.
            return (0, b"") if chance < 0.09 else (204, b"")


def is_poisoned(subject: str) -> bool:
    """Whether the receiver refuses events of this object for good."""
    return subject.startswith("things/") and int(subject.split("/")[1]) % 50 == POISON


class Busy(threading.Thread):
    """Does something again and again, until it is to end."""

    def __init__(self, work: Callable[[], None], seconds: float) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._seconds = seconds
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._seconds):
            self._work()

    def end(self) -> None:
        """Do nothing more."""
        self._over.set()
        self.join()
