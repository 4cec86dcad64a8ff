"""A peer that echoes all that it was sent finds none of our secrets kept, told, shown or logged."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Run
from tests.support.raw_server import answer, answering

CONFIG = """
[poller]
state = "poller.db"
listen = ""
[budgets.b]
limits = ["1000/s"]
{sources}
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{sink}/services/C4NARY-sink-path-00000001?key=C4NARY-sink-query"
headers = {{ "X-Key" = "C4NARY-sink-header" }}
allow_private = true
types = ["*", "poller.*"]
retry = ["1s"]
"""
SOURCE = """
[sources.{name}]
plugin = "rest"
budget = "b"
base_url = "{url}"
auth = {auth}
headers = {{ "X-Custom" = "C4NARY-custom-header-{name}" }}
[sources.{name}.endpoints.things]
path = "/things"
baseline = "emit"
"""
AUTHS = {
    "bearer": '{ type = "bearer", token = "C4NARY-bearer" }',
    "basic": '{ type = "basic", username = "poller", password = "C4NARY-b/a#s+ic" }',
    "header": '{ type = "header", name = "X-Api-Key", value = "C4NARY-key-header" }',
    "query": '{ type = "query", name = "cursor", value = "C4NARY-query key" }',
    "oauth": '{{ type = "oauth2", token_url = "{url}/token", client_id = "me", '
    'client_secret = "C4NARY-oauth-secret" }}',
    "body": '{{ type = "oauth2", token_url = "{url}/token", client_id = "me", client_secret = "C4NARY-body-secret", '
    'client_auth = "body", refresh_token = "C4NARY-refresh" }}',
}
ECHOED = ("C4NARY", "QzROQVJZ", "pDNE5BUl", "M0TkFSW")  # as it is, and in Base64 at any of its three places


class Echo:
    """Answers with the request: in the body, in headers, and as a redirect's target."""

    def __init__(self, status: bytes) -> None:
        self._status = status

    def __call__(self, request: bytes) -> bytes:
        line = request.partition(b"\r\n")[0]
        if b" /token" in line:
            return answer(b'{"access_token": "C4NARY-given-token", "refresh_token": "C4NARY-given-refresh"}')
        head = b" ".join(request.split())[:1500]
        body = json.dumps([{"id": 1, "echo": head.decode("latin-1"), "again": line.decode()}]).encode()
        marks = (b'ETag: "%s"' % head, b"Last-Modified: " + head, b"X-Echo: " + head, b"Link: <?%s>; rel=x" % head)
        return answer(body, *marks, status=self._status)


@pytest.fixture
def echoing() -> Iterator[dict[bytes, str]]:
    """An echoing server for each status, on a thread with a loop of its own."""
    urls: dict[bytes, str] = {}
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with answering(Echo(b"403 Forbidden")) as urls[b"403"], answering(Echo(b"200 OK")) as urls[b"200"]:
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    yield urls
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@pytest.mark.parametrize("status", [b"403", b"200"])
def test_no_secret_that_is_echoed_is_kept_told_or_shown(poller: Run, echoing, status, tmp_path: Path):
    url = echoing[status]
    sources = "".join(
        SOURCE.format(name=name, url=url, auth=auth.format(url=url) if "{{" in auth else auth)
        for name, auth in AUTHS.items()
    )
    (tmp_path / "poller.toml").write_text(CONFIG.format(sources=sources, sink=echoing[b"403"]))

    said = [
        poller("once", "--wait", "3s"),
        poller("check", "--online"),
        poller("status"),
        poller("status", "--json"),
        poller("events", "--json"),
        poller("deliveries", "--json"),
        poller("doctor"),
    ]

    found = {
        f"{path.name}: {text}"
        for path in tmp_path.glob("poller.db*")
        for text in ECHOED
        if text.encode() in path.read_bytes()
    }
    assert found == set()
    shown = "\n".join(ran.out + ran.err for ran in said)
    assert [line for line in shown.splitlines() if any(text in line for text in ECHOED)] == []
    assert "**********" in shown
