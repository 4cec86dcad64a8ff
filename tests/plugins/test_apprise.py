"""The apprise sink against local services: all are told, a failed one again, the others not twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError

from plugins.apprise import AppriseOptions, AppriseSink
from poller import Attempt, Event, Receipt, Rejected, RetryLater

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
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        name = request.path.strip("/")
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
    app.router.add_post("/{name:.*}", server.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.place = f"127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def sink(*urls: str, **keys: Any) -> AppriseSink:
    return AppriseSink("many", AppriseOptions.model_validate({"urls": urls, **keys}))


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
