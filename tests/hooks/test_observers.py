"""Plugins that observe are told what has happened, once, in order, and cannot stand in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller import hookimpl
from poller.hooks.loading import Plugins
from poller.hooks.observers import MOST_WAITING, Observers
from poller.hooks.payloads import Polled
from state.errors import StateError
from tests.support.command_line import Run, Shop

PLUGIN = """
import pathlib
from poller import hookimpl

def note(text):
    with pathlib.Path("told.txt").open("a") as told:
        print(text, file=told)

@hookimpl
async def event_recorded(event):
    note(f"event {event.seq} {event.type}")

@hookimpl
def poll_finished(poll):
    note(f"poll {poll.endpoint} {poll.changed} {list(poll.events)}")

@hookimpl
async def delivery_finished(delivery):
    note(f"delivery {delivery.subscription} {delivery.state}")

@hookimpl
def template_environment(env):
    env.filters["loud"] = str.upper
"""


LOUD = """
[[subscriptions]]
name = "loud"
plugin = "http"
url = "https://receiver.example/"
template = "{{ event.type | loud }}"
"""


class Telling:
    """A plugin that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @hookimpl
    async def poll_finished(self, poll: Polled) -> None:
        self.told.append(poll.unit)
        if poll.error:
            raise RuntimeError(poll.error)


def polled(unit: str, error: str | None = None) -> Polled:
    return Polled(source="shop", endpoint="items", unit=unit, error=error)


async def no_event(_: int) -> None:
    raise AssertionError("no event is asked for")


@pytest.fixture
def telling() -> Telling:
    return Telling()


@pytest.fixture
def plugins(telling: Telling) -> Plugins:
    found = Plugins()
    found.add("telling", telling)
    return found


async def test_what_waits_is_told_before_the_end_in_order(plugins: Plugins, telling: Telling) -> None:
    async with Observers(plugins, no_event) as observers:
        for number in range(100):
            observers.tell("poll_finished", poll=polled(str(number)))

    assert telling.told == [str(number) for number in range(100)]


async def test_an_observer_that_raises_is_named_and_told_the_next(plugins: Plugins, telling: Telling) -> None:
    async with Observers(plugins, no_event) as observers:
        observers.tell("poll_finished", poll=polled("1", error="boom"))
        observers.tell("poll_finished", poll=polled("2"))

    assert telling.told == ["1", "2"]
    assert [(failed.name, failed.origin) for failed in plugins.failed] == [("telling", "poll_finished")]


async def test_what_too_slow_an_observer_misses_is_bounded(plugins: Plugins, telling: Telling) -> None:
    async with Observers(plugins, no_event) as observers:
        for number in range(MOST_WAITING + 5):
            observers.tell("poll_finished", poll=polled(str(number)))

    assert len(telling.told) == MOST_WAITING


async def test_nothing_waits_for_hooks_that_nobody_has(plugins: Plugins) -> None:
    async with Observers(plugins, no_event) as observers:
        observers.tell_recorded(range(3))  # no_event would raise


async def test_a_state_that_cannot_be_read_costs_the_event_and_not_the_observers(
    plugins: Plugins, telling: Telling
) -> None:
    class Reading:
        @hookimpl
        def event_recorded(self, event: object) -> None:
            raise AssertionError("no event can be read")

    async def unreadable(_: int) -> None:
        raise StateError("the disk is full")

    plugins.add("reading", Reading())
    async with Observers(plugins, unreadable) as observers:
        observers.tell_recorded([1])
        observers.tell("poll_finished", poll=polled("1"))

    assert telling.told == ["1"]


@pytest.fixture
def configured(shop: Shop, tmp_path: Path) -> Path:
    """A configuration with the plugin in its folder."""
    folder = tmp_path / "plugins.d"
    folder.mkdir()
    (folder / "note.py").write_text(PLUGIN)
    config = shop.configure(tmp_path)
    config.write_text(config.read_text().replace("[poller]", '[poller]\nplugins_dir = "plugins.d"'))
    return config


@pytest.mark.usefixtures("configured")
def test_a_one_file_plugin_hears_of_polls_events_and_deliveries(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.items = [{"id": 1, "name": "A"}]
    assert poller("once").status == 0
    shop.items = [{"id": 1, "name": "B"}]
    assert poller("once").status == 0

    told = (tmp_path / "told.txt").read_text().splitlines()

    assert told[0] == "poll items 0 []"
    assert sorted(told[1:]) == ["delivery file delivered", "event 1 shop.items.updated", "poll items 1 [1]"]


def test_a_plugins_filter_is_there_in_templates(poller: Run, configured: Path) -> None:
    with configured.open("a") as config:
        config.write(LOUD)

    assert "SHOP.PROJECTS.UPDATED" in poller("preview", "loud").out
