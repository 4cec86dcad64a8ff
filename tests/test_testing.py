"""What plugin authors test with, and the test of the guide itself."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from poller import Attempt, Event, Receipt, RetryLater, hookimpl
from poller.testing import Upstream, make_event, running

GUIDE = (Path(__file__).parent.parent / "docs" / "writing-plugins.md").read_text()
CONFIG = """
[poller]
listen = ""
[sources.shop]
plugin = "rest"
base_url = "https://shop.example"
[sources.shop.endpoints.items]
path = "/items"
item_path = "/items/{id}"
absent_for = "0s"
[[subscriptions]]
name = "moody"
plugin = "moody"
retry = ["1h"]
"""


class MoodySink:
    """Takes an event at the second attempt."""

    class Options(BaseModel):
        pass

    def __init__(self, name: str, options: BaseModel) -> None:
        pass

    async def __aenter__(self) -> MoodySink:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        if attempt.number == 1:
            raise RetryLater(None, Receipt(status="moody"))
        return Receipt(status="fine")


class Moody:
    @hookimpl
    def register_sinks(self, register: Any) -> None:
        register("moody", MoodySink)


@pytest.fixture
def shop() -> Upstream:
    return Upstream({"/items": [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}]})


async def test_a_change_is_swept_told_and_delivered_at_the_second_attempt(tmp_path: Path, shop: Upstream) -> None:
    async with running(CONFIG, tmp_path, plugins={"moody": Moody()}, upstream=shop) as poller:
        assert await poller.sweep() == []
        shop.lists["/items"][1]["name"] = "C"
        await poller.sweep()
        assert [(event.type, event.subject) for event in poller.events] == [("shop.items.updated", "items/2")]
        assert [delivery.state for delivery in poller.deliveries] == ["pending"]

        await poller.advance(2 * 3600)
        assert [(delivery.state, delivery.attempts) for delivery in poller.deliveries] == [("delivered", 2)]


async def test_an_upstream_that_fails_is_told_and_deletes_nothing(tmp_path: Path, shop: Upstream) -> None:
    async with running(CONFIG, tmp_path, plugins={"moody": Moody()}, upstream=shop) as poller:
        await poller.sweep()
        shop.status = 503
        assert len(await poller.sweep()) == 1
        assert poller.events == []


async def test_an_object_that_is_gone_is_confirmed_by_its_own_url(tmp_path: Path, shop: Upstream) -> None:
    async with running(CONFIG, tmp_path, plugins={"moody": Moody()}, upstream=shop) as poller:
        await poller.sweep()
        del shop.lists["/items"][0]
        await poller.sweep()
        assert [event.type for event in poller.events] == ["shop.items.deleted"]
        confirmed = ["/items/1", "/items/2", "/items/1"]  # beside it one that is there
        assert [request.url.path for request in shop.requests[-3:]] == confirmed


def test_a_made_up_event_is_like_one_of_the_engine() -> None:
    event = make_event({"id": 7, "name": "B"}, changes={"/name": ("A", "B")}, endpoint="projects", seq=3)

    assert (event.type, event.source, event.subject, event.seq) == (
        "acme.projects.updated",
        "/sources/acme",
        "projects/7",
        3,
    )
    assert event.data["changes"] == [{"path": "/name", "before": "A", "after": "B"}]
    assert event.id == make_event({"id": 7, "name": "B"}, changes={"/name": ("A", "B")}, endpoint="projects").id


async def test_the_guides_test_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {found[1]: found[0] for found in re.findall(r'```python\n("""([\w./]+)"""\n.*?)```', GUIDE, re.DOTALL)}
    wiki = types.ModuleType("wiki")
    exec(code["plugins.d/wiki.py"], vars(wiki))
    monkeypatch.setitem(sys.modules, "wiki", wiki)
    test: dict[str, Any] = {}
    exec(code["tests/test_wiki.py"], test)

    await test["test_a_renamed_page_is_told"](tmp_path)
