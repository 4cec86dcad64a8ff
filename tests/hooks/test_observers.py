"""Plugins that observe are told what has happened, once, in order, and cannot stand in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller import Attempt, Receipt, hookimpl
from poller.hooks.loading import Plugins
from poller.hooks.observers import MOST_WAITING, Observers
from poller.hooks.payloads import AttemptFinished, Polled
from poller.hooks.plugin_loops import CallersLoop
from poller.hooks.sink_on_loop import SinkOnLoop
from poller.testing import make_event
from state.deliveries import AttemptRow, Job
from state.errors import StateError
from state.records import Event
from tests.support.command_line import Run, Shop

PLUGIN = """
import pathlib
from poller import Attempt, Receipt, hookimpl

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


class Changing:
    """A plugin that sees the name of an event's object, and changes it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def event_recorded(self, event: Event) -> None:
        self.seen.append(event.data["object"]["name"])
        event.data["object"]["name"] = "changed"

    @hookimpl
    def delivery_finished(self, delivery: AttemptFinished) -> None:
        self.event_recorded(delivery.jobs[0].event)

    async def deliver(self, events: list[Event], attempt: Attempt) -> Receipt:
        self.event_recorded(events[0])
        return Receipt("ok")

    async def __aenter__(self) -> Changing:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_what_a_plugin_changes_in_an_event_is_seen_by_no_other() -> None:
    plugins, both = Plugins(), [Changing(), Changing()]
    event = make_event({"id": 1, "name": "Pear"})
    for number, plugin in enumerate(both):
        plugins.add(f"changing{number}", plugin)
    job = Job(id=1, event=event, attempts=0, retries=0, refusals=0)
    attempt = AttemptRow(number=1, at=0.0, latency=0.0, status="ok")

    await plugins.observe("event_recorded", event=event)
    finished = AttemptFinished(subscription="a", jobs=(job,), state="delivered", attempt=attempt)
    await plugins.observe("delivery_finished", delivery=finished)
    async with SinkOnLoop(lambda: both[0], CallersLoop()) as sink:
        for number in (1, 2):
            await sink.deliver([event], Attempt(number=number, delivery_id="1"))

    assert [plugin.seen for plugin in both] == [["Pear"] * 4, ["Pear"] * 2]
    assert event.data["object"] == {"id": 1, "name": "Pear"}
