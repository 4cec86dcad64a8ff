"""The repository_dispatch example: its configuration as it is, and a server as strict as GitHub takes its body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from plugins.http import HttpOptions, HttpSink
from poller import Attempt, Event
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.sinks.protocol import Refused

EXAMPLE = Path(__file__).parents[2] / "examples" / "github-dispatch" / "poller.toml"
FIRST = Attempt(number=1, delivery_id="7")


def make_event(data: dict[str, Any], type: str = "nutcache.projects.updated") -> Event:
    return Event(
        id="k4x",
        source="/sources/acme",
        type=type,
        subject="projects/7",
        time=1795472732.123,
        observed_after=None,
        raw=orjson.dumps(data),
        seq=1234,
    )


class GitHub:
    """`POST /repos/{owner}/{repo}/dispatches` by docs.github.com/rest/repos/repos: what it refuses, it refuses here."""

    def __init__(self) -> None:
        self.dispatched: list[dict[str, Any]] = []

    async def dispatch(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer ghp_s3cret":
            return web.json_response({"message": "Bad credentials"}, status=401)
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            return web.json_response({"message": "Problems parsing JSON"}, status=400)
        if set(body) - {"event_type", "client_payload"} or not 0 < len(body["event_type"]) <= 100:
            return web.json_response({"message": "Invalid request."}, status=422)
        if len(body["client_payload"]) > 10:
            return web.json_response({"message": "No more than 10 properties are allowed"}, status=422)
        self.dispatched.append(body)
        return web.Response(status=204)


@pytest.fixture
async def github() -> AsyncIterator[tuple[GitHub, str]]:
    server = GitHub()
    app = web.Application()
    app.router.add_post("/repos/OWNER/NAME/dispatches", server.dispatch)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, authorization: str) -> HttpOptions:
    """The example's options, with GitHub's place taken by another."""
    monkeypatch.setenv("NUTCACHE_TOKEN", "t0ken")
    (tmp_path / "authorization").write_text(authorization + "\n")
    text = EXAMPLE.read_text().replace('url = "https://api.github.com', f'allow_private = true\nurl = "{place}')
    (tmp_path / "poller.toml").write_text(text)
    [subscription] = load(tmp_path / "poller.toml", load_plugins()).subscriptions
    assert isinstance(subscription.options, HttpOptions)
    return subscription.options


@pytest.mark.parametrize(
    "event",
    [
        make_event({"object": {"id": 7, "name": "Website"}, "changes": [{"path": "/name", "before": None}]}),
        make_event({"object": {"id": 7, "name": 'a "quoted"\n</script> {{ name }}'}}),
        make_event({"object": {}, "version": 1}, type="nutcache.projects." + "x" * 200),
    ],
)
async def test_github_takes_the_body(
    github: tuple[GitHub, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: Event
) -> None:
    server, place = github
    async with HttpSink("actions", read(tmp_path, monkeypatch, place, "Bearer ghp_s3cret")) as sink:
        receipt = await sink.deliver([event], FIRST)

    payload = server.dispatched[0]["client_payload"]
    assert receipt.status == "204"
    assert payload["object"] == event.data["object"]
    assert payload["changes"] == event.data.get("changes")


async def test_wrong_credentials_are_told(
    github: tuple[GitHub, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HttpSink("actions", read(tmp_path, monkeypatch, github[1], "Bearer wr0ng")) as sink:
        with pytest.raises(Refused) as failure:
            await sink.deliver([make_event({"object": {}})], FIRST)

    assert "Bad credentials" in failure.value.receipt.text
