"""A peer that echoes all that it was sent finds none of our secrets kept, told, shown or logged."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command_line import Run
from tests.support.daemon import running_daemon, wait_for
from tests.support.raw_server import answer, answering

CONFIG = """
[poller]
state = "poller.db"
listen = ""
plugins_dir = "plugins.d"
[budgets.b]
limits = ["1000/s"]
{sources}
[sources.ours]
plugin = "ours"
budget = "b"
url = "{ours}"
key = "C4NARY-ours-key"
more = {{ keys = ["C4NARY-ours-more"] }}
[[subscriptions]]
name = "ours"
plugin = "ours"
url = "{sink}"
key = "C4NARY-ours-sink"
more = {{ keys = ["C4NARY-ours-more"] }}
types = ["*", "poller.*"]
retry = ["1s"]
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
PLUGIN = """
import os
import threading
import warnings

import httpx
from pydantic import BaseModel

from poller import Endpoint, Limit, Position, hookimpl
from poller.options.secrets import Secret


class Options(BaseModel, extra="forbid"):
    url: str
    key: Secret
    more: dict[str, list[Secret]]


class Ours:
    Options = Options
    limits = (Limit(1000, 1.0),)

    def __init__(self, name, options):
        self.url, self.text = options.url, options.key.reveal() + options.more["keys"][0].reveal()
        if self.url == "none":
            self.fail()

    def fail(self, *_):
        raise RuntimeError(self.text)

    def endpoints(self):
        return [Endpoint(name="things", first=Position(page=1))]

    def discover(self):
        if "LOUD" in os.environ:
            threading.Thread(target=self.fail).start()
            warnings.warn(self.text)
            type("Bad", (), {"__del__": self.fail})()
        yield from ()

    def request(self, endpoint, at):
        return httpx.Request("GET", f"{self.url}/things?key={self.text}", headers={"X-Key": self.text})

    def page(self, endpoint, at, response):
        raise RuntimeError(f"{response.request.url} {response.request.headers.raw} {response.text}")

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.fail()

    async def deliver(self, events, attempt):
        self.fail()


@hookimpl
def register_sources(register):
    register("ours", Ours)


@hookimpl
def register_sinks(register):
    register("ours", Ours)


@hookimpl
def poll_finished(poll):
    raise RuntimeError("C4NARY-ours-key")
"""
LOOKS = (
    "check --online",
    "status",
    "status --json",
    "plan --all",
    "try ours/things",
    "try bearer/things",
    "events --json",
    "deliveries --json",
    "deliveries show 1",
    "ledger",
    "doctor",
    "plugins",
    "preview hook",
    "ping ours",
    *(f"export {table}" for table in ("events", "changes", "objects", "deliveries", "polls")),
)
ECHOED = ("C4NARY", "QzROQVJZ", "DNE5BUl", "0TkFSW")  # as it is, and in Base64 at any of its three places


class Echo:
    """Answers with the request: in the body, in headers, and as a redirect's target."""

    def __init__(self, status: bytes) -> None:
        self._status = status
        self.bodies: list[bytes] = []  # what it was sent

    def __call__(self, request: bytes) -> bytes:
        self.bodies.append(request.partition(b"\r\n\r\n")[2])
        line = request.partition(b"\r\n")[0]
        if b" /token" in line:
            return answer(b'{"access_token": "C4NARY-given-token", "refresh_token": "C4NARY-given-refresh"}')
        head = b" ".join(request.split())[:1500]
        body = json.dumps([{"id": 1, "echo": head.decode("latin-1"), "again": line.decode()}]).encode()
        marks = (b'ETag: "%s"' % head, b"Last-Modified: " + head, b"X-Echo: " + head, b"Link: <?%s>; rel=x" % head)
        marks += (b"Location: http://other.example/" + head.replace(b" ", b"/"),)
        return answer(body, *marks, status=self._status)


async def echo_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A mail server that refuses every login, and says which: as it came, and in plain text."""
    writer.write(b"220 mail.example ESMTP\r\n")
    while (line := await reader.readline()) and not line.startswith(b"QUIT"):
        reply = b"250-mail.example\r\n250 AUTH PLAIN"
        if line.startswith(b"AUTH PLAIN "):
            given = line.split()[2]
            reply = b"535 5.7.8 not with %s: %s" % (given, base64.b64decode(given).replace(b"\0", b" "))
        writer.write(reply + b"\r\n")
    writer.close()


@pytest.fixture
def echoes() -> dict[bytes, Echo]:
    return {status[:3]: Echo(status) for status in (b"403 Forbidden", b"200 OK", b"302 Found")}


@pytest.fixture
def echoing(echoes) -> Iterator[dict[bytes, str]]:
    """An echoing server for each status, and the port of a mail server, on a thread with a loop of its own."""
    urls: dict[bytes, str] = {}
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as open_:
            for status, echo in echoes.items():
                urls[status] = await open_.enter_async_context(answering(echo))
            mailer = await open_.enter_async_context(await asyncio.start_server(echo_mail, "127.0.0.1", 0))
            urls[b"mail"] = str(mailer.sockets[0].getsockname()[1])
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    yield urls
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def shown_by_commands(poller: Run, *commands: str) -> dict[str, str]:
    """What each command prints."""
    return {words: ran.out + ran.err for words in commands if (ran := poller(*words.split()))}


@pytest.mark.parametrize(
    "login",
    [
        "me:C4NARY%zz@127.0.0.1:9/x",
        "me:C4NARY 1@127.0.0.1:9/x",
        "me:1@C4NARY@127.0.0.1:9/x",
        "127.0.0.1:9/x?password=C4NARY%00",
        "127.0.0.1:9/x?password=1&C4NARY",
        "me:C4NARY/1@127.0.0.1:9/x",
        "me:C4NARY@127.0.0.1:9/x",
    ],
)
def test_no_password_of_a_database_is_shown(poller: Run, tmp_path: Path, login: str):
    (tmp_path / "poller.toml").write_text(f'[poller]\nstate = "postgresql://{login}"\nlisten = ""')

    said = shown_by_commands(poller, "once", "status", "doctor")

    assert [line for text in said.values() for line in text.splitlines() if "C4NARY" in line] == []
    assert all("the database" in text for text in said.values())


@pytest.mark.parametrize("status", [b"403", b"200"])
def test_no_secret_that_is_echoed_is_kept_told_or_shown(poller: Run, echoing, status, tmp_path: Path):
    url = echoing[status]
    sources = "".join(
        SOURCE.format(name=name, url=url, auth=auth.format(url=url) if "{{" in auth else auth)
        for name, auth in AUTHS.items()
    )
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "ours.py").write_text(PLUGIN)
    config = CONFIG.format(sources=sources, sink=echoing[b"403"], ours="{ours}")
    path = tmp_path / "poller.toml"

    path.write_text(config.replace("{ours}", echoing[b"403"]))  # a poll that its plugin fails would be repeated
    once = subprocess.run(
        [sys.executable, "-m", "poller", "once", "--wait", "1s"],
        env={**os.environ, "LOUD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    path.write_text(config.replace("{ours}", url))
    said = {"once": once.stdout + once.stderr, **shown_by_commands(poller, *LOOKS)}
    path.write_text(config.replace("{ours}", "none"))
    said |= {f"{words} refused": text for words, text in shown_by_commands(poller, "check", "doctor").items()}

    found = {
        f"{path.name}: {text}"
        for path in tmp_path.glob("poller.db*")
        for text in ECHOED
        if text.encode() in path.read_bytes()
    }
    assert found == set()
    shown = "\n".join(said.values())
    assert all(f"Exception {how}" in once.stderr for how in ("in thread", "ignored in"))
    assert "UserWarning: **********" in once.stderr
    assert [(at, line) for at, one in said.items() for line in one.splitlines() if any(t in line for t in ECHOED)] == []
    assert "**********" in shown


EVERYWHERE = """
[poller]
state = "poller.db"
listen = "127.0.0.1:0"
token = "C4NARY-api-token"
heartbeat = "{refusing}/beat/C4NARY-heartbeat-path?key=C4NARY-heartbeat-key"
log_level = "debug"
[budgets.b]
limits = ["1000/s"]
{sources}
[sources.behind]
plugin = "rest"
budget = "b"
base_url = "http://api.example"
proxy = "http://poller:C4NARY-source-proxy@{proxy}"
[sources.behind.endpoints.things]
path = "/things"
[sources.tunnelled]
plugin = "rest"
budget = "b"
base_url = "https://api.example"
proxy = "http://poller:C4NARY-tunnel-proxy@{proxy}"
[sources.tunnelled.endpoints.things]
path = "/things"
"""
SINK = """
[[subscriptions]]
name = "{name}"
types = ["*", "poller.*"]
retry = ["1h"]
{keys}
"""
SINKS = {
    "hook": 'plugin = "http"\nallow_private = true\nheaders = {{ "X-Key" = "C4NARY-sink-header" }}\n'
    'url = "http://poller:C4NARY-sink-password@{at}/services/C4NARY-sink-path-000001?key=C4NARY-sink-query"\n'
    'secret = "whsec_QzROQVJZLXNpZ25pbmctc2VjcmV0LTAwMDAw"',
    "proxied": 'plugin = "http"\nurl = "http://hook.example/x"\nallow_private = true\n'
    'proxy = "http://poller:C4NARY-sink-proxy@{at}"',
    "slack": 'plugin = "slack"\nallow_private = true\nwebhook_url = "{refusing}/services/T00/B00/C4NARY-slack-path"',
    "bot": 'plugin = "slack"\nallow_private = true\ntoken = "xoxb-C4NARY-slack-token"\nchannel = "c"\n'
    'api_url = "{refusing}/api/"',
    "mail": 'plugin = "email"\nhost = "127.0.0.1"\nport = {mail}\ntls = "none"\nusername = "poller"\n'
    'password = "C4NARY-mail-password"\nfrom = "poller@maple.example"\nto = "ana@maple.example"',
    "many": 'plugin = "apprise"\nallow_private = true\nurls = ['
    '"json://poller:C4NARY-apprise-password@{at}/C4NARY-apprise-path-000001?+X-Key=C4NARY-apprise-header", '
    '"mailto://poller:C4NARY-apprise-mail@127.0.0.1:{mail}?mode=insecure&smtp=127.0.0.1&from=poller@maple.example&to=ana@maple.example"]',
    "took": 'plugin = "http"\nallow_private = true\nurl = "{taking}/took"',
}
TOKEN = {"Authorization": "Bearer C4NARY-api-token"}
ROUTES = ("/", "/metrics", "/openapi.json", "/readyz", "/api/v1/nothing")


def shown_by(url: str) -> dict[str, str]:
    """What every route that looks answers, with the token and without, by its path."""
    client = httpx.Client(base_url=url, headers=TOKEN, trust_env=False)
    with client:
        described = client.get("/openapi.json").json()["paths"]
        looks = [path for path, methods in described.items() if "get" in methods and not path.endswith("/stream")]
        paths = [path.format(number=1, id=1, source="bearer", endpoint="things", table="deliveries") for path in looks]
        paths += [f"/api/v1/deliveries/{one['id']}" for one in client.get("/api/v1/deliveries").json()["deliveries"]]
        shown = {path: str(answer.headers) + answer.text for path in (*ROUTES, *paths) if (answer := client.get(path))}
        shown |= {f"{path} refused": client.get(path, headers={"Authorization": "x"}).text for path in paths}
        for path in ("/api/v1/probe", "/api/v1/endpoints/bearer/things/inspect", "/api/v1/subscriptions/hook/ping"):
            shown[path] = client.post(path, json={}).text
        return shown


def test_a_daemon_shows_no_secret_in_its_log_api_metrics_pages_and_messages(echoing, echoes, tmp_path: Path):
    refusing, taking = echoing[b"403"], echoing[b"200"]
    at = {"at": refusing.removeprefix("http://"), "refusing": refusing, "taking": taking, "mail": echoing.pop(b"mail")}
    sources = "".join(
        SOURCE.format(name=f"{name}{status.decode()}", url=url, auth=auth.format(url=url) if "{{" in auth else auth)
        for name, auth in AUTHS.items()
        for status, url in echoing.items()
    )
    sinks = "".join(SINK.format(name=name, keys=keys.format(**at)) for name, keys in SINKS.items())
    config = tmp_path / "poller.toml"
    config.write_text(EVERYWHERE.format(sources=sources, proxy=at["at"], refusing=refusing) + sinks)

    with running_daemon(config) as daemon:
        url = wait_for("the URL", daemon.url)
        with httpx.Client(base_url=url, headers=TOKEN, trust_env=False) as client:

            def read(path: str) -> Any:
                return client.get(f"/api/v1/{path}").json()

            def tried() -> set[str]:
                return {one["subscription"] for one in read("deliveries?limit=1000")["deliveries"] if one["attempts"]}

            def failing() -> list[str]:
                return [one["endpoint"] for one in read("status")["endpoints"] if one["state"] not in ("ok", "new")]

            wait_for("every sink to be asked", lambda: tried() == set(SINKS))
            wait_for("every source to have failed", lambda: len(failing()) >= len(AUTHS) + 2)
        shown = shown_by(url)
        config.write_text(
            config.read_text().replace('log_level = "debug"', 'log_level = "debug"\nlog_format = "journal"')
        )
        daemon.signal(signal.SIGHUP)
        wait_for("failures in lines of the journal", lambda: "<4>poll.failed" in daemon.log)
    shown |= {path.name: path.read_bytes().decode("latin-1") for path in tmp_path.glob("poller.db*") if path.is_file()}
    shown["daemon.log"] = daemon.log
    received = [*echoes[b"403"].bodies, *echoes[b"200"].bodies]
    ours = [body for body in received if b"grant_type" not in body]  # to a token endpoint its secrets have to be sent
    shown |= {f"message {number}": body.decode("latin-1") for number, body in enumerate(ours)}

    assert "403" in daemon.log
    assert '"event": ' not in daemon.log.partition("[config.reloaded]")[2]  # every line is one of the journal
    assert len(shown) > 40
    assert {(place, found) for place, text in shown.items() for found in ECHOED if found in text} == set()
