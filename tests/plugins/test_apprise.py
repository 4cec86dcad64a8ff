"""The apprise sink against local services: all are told, a failed one again, the others not twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError

from plugins.apprise import AppriseOptions, AppriseSink
from poller import Attempt, Event, Receipt, Rejected, RetryLater
from tests.support.endless import endless

# apprise loads all its services at the first use, and one of them imports imghdr.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
FIRST = Attempt(number=1, delivery_id="7")


def make_event(**fields: Any) -> Event:
    return Event(
        **{
            "id": "k4x",
            "source": "/sources/acme",
            "type": "nutcache.projects.deleted",
            "subject": "projects/7",
            "time": 1795472732.123,
            "observed_after": None,
            "raw": b'{"object":{"id":7,"name":"<Website>"},"version":3}',
            "seq": 1234,
            **fields,
        }
    )


@dataclass
class Services:
    """Two services that take JSON, each by its path."""

    place: str = ""
    failing: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        name = request.path.strip("/")
        self.requests.append((request.method, name, dict(request.headers)))
        if name == "moved":
            return web.Response(status=301, headers={"Location": "/one"})
        if name in self.failing:
            return web.Response(status=500)
        self.told.append((name, orjson.loads(await request.read())))
        return web.Response()

    def url(self, name: str) -> str:
        return f"json://{self.place}/{name}"


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    server = Services()
    app = web.Application()
    app.router.add_route("*", "/{name:.*}", server.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.place = f"127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def sink(*urls: str, **keys: Any) -> AppriseSink:
    return AppriseSink("many", AppriseOptions.model_validate({"urls": urls, "allow_private": True, **keys}))


async def test_every_service_is_told(services: Services) -> None:
    async with sink(services.url("one"), services.url("two")) as many:
        receipt = await many.deliver([make_event()], FIRST)

    assert receipt == Receipt(status="sent", text="2 services")
    assert [name for name, _ in services.told] == ["one", "two"]
    assert services.told[0][1]["title"] == "Project “<Website>” (7) deleted"
    assert services.told[0][1]["type"] == "warning"


async def test_only_the_service_that_failed_is_told_again(services: Services) -> None:
    services.failing = {"two"}
    async with sink(services.url("one"), services.url("two")) as many:
        with pytest.raises(RetryLater) as failure:
            await many.deliver([make_event()], FIRST)
        services.failing = set()
        await many.deliver([make_event()], Attempt(number=2, delivery_id="7"))

    assert [name for name, _ in services.told] == ["one", "two"]
    assert "number 2" in failure.value.receipt.text
    assert services.place not in failure.value.receipt.text


async def test_a_redirect_is_not_followed(services: Services) -> None:
    async with sink(services.url("moved")) as many:
        with pytest.raises(RetryLater):
            await many.deliver([make_event()], FIRST)

    assert [(method, name) for method, name, _ in services.requests] == [("POST", "moved")]


async def test_nothing_of_the_environment_is_heeded(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ana password s3cret\n")
    for name, value in {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / ".netrc"),
        "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    async with sink(services.url("one")) as many:
        await many.deliver([make_event()], FIRST)

    [(_, _, headers)] = services.requests
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    "url", ["json://{place}/one", "rsyslog://{host}", "mailto://u:p@x.example?smtp={host}&port={port}"]
)
async def test_private_addresses_are_refused_whichever_way_a_service_connects(services: Services, url: str) -> None:
    host, _, port = services.place.partition(":")
    url = url.format(place=services.place, host=host, port=port)
    async with sink(url, allow_private=False) as many:
        with pytest.raises(RetryLater) as failure:
            await many.deliver([make_event()], FIRST)

    assert "127.0.0.1 is loopback; allow it with `allow_private = true`" in failure.value.receipt.text
    assert services.requests == []


async def test_a_service_that_never_answers_is_given_up_and_the_next_is_notified(services: Services) -> None:
    async with endless(b"HTTP/1.1 200 OK\r\n", b"") as place, sink(f"json://{place}/", services.url("one")) as many:
        await many._notifier.notify(url=services.url("two"), title="", body="the process runs", kind="info")
        many._notifier._patience = 0.5
        outcome = await many._notifier.notify(url=f"json://{place}/", title="", body="never", kind="info")
        many._notifier._patience = 30.0
        again = await many._notifier.notify(url=services.url("one"), title="", body="a new one", kind="info")

    assert (outcome.ok, outcome.error) == (False, "no answer within 0.5 s")
    assert again.ok


async def test_of_an_answer_without_end_little_is_read(services: Services) -> None:
    async with endless(b"HTTP/1.1 200 OK\r\n\r\n") as place, sink(f"json://{place}/") as many:
        receipt = await many.deliver([make_event()], FIRST)

    assert receipt.status == "sent"


async def test_a_digest_is_one_notification(services: Services) -> None:
    async with sink(services.url("one")) as many:
        await many.deliver([make_event(), make_event(subject="projects/8")], FIRST)

    [(_, told)] = services.told
    assert told["title"] == "2 events"
    assert told["message"].count("deleted") >= 2


async def test_a_template_makes_the_text(services: Services) -> None:
    async with sink(services.url("one"), template="{{ event.thing }} {{ event.key }} is gone") as many:
        await many.deliver([make_event()], FIRST)

    assert services.told[0][1]["message"] == "project 7 is gone"


async def test_a_template_that_fails_is_a_dead_letter(services: Services) -> None:
    async with sink(services.url("one"), template="{{ 1 / 0 }}") as many:
        with pytest.raises(Rejected):
            await many.deliver([make_event()], FIRST)


@pytest.mark.parametrize("urls", [["s3cret://nobody/knows"], ["s3cret"], []])
def test_a_url_of_no_service_is_refused_without_repeating_it(urls: list[str]) -> None:
    with pytest.raises(ValidationError) as failure:
        AppriseOptions.model_validate({"urls": urls})

    assert not any("s3cret" in error["msg"] for error in failure.value.errors())


def test_a_url_that_is_not_there_is_no_error_for_a_command_that_only_looks() -> None:
    AppriseOptions.model_validate({"urls": [{"env": "NOT_SET_ANYWHERE"}]}, context={"secrets": "later"})

    with pytest.raises(ValidationError, match="NOT_SET_ANYWHERE"):
        AppriseOptions.model_validate({"urls": [{"env": "NOT_SET_ANYWHERE"}]})
