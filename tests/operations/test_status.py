"""What status, doctor and dashboard say of a situation: from the situation itself to the screen."""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from poller.operations.doctor import of_status
from poller.operations.gathering import status
from poller.operations.live import live_of
from poller.operations.status import BudgetStatus, EndpointStatus, Held, LimitStatus, Status, document, parse
from state.sqlite.store import open_reader
from tests.polling.test_engine_planning import World
from tests.polling.test_episodes import town
from tests.support.command_line import Run, Shop
from tests.support.daemon import running_daemon, wait_for
from tests.support.loopback import Handler, serving_handler

MANY = [{"id": number, "name": f"item {number}"} for number in range(1, 61)]
CRM = """
[[subscriptions]]
name = "crm"
plugin = "http"
url = "{url}"
allow_private = true
retry = ["1ms", "1ms", "1ms"]
"""
TWO = '[sources.shop.endpoints.orders]\npath = "/orders"\n'


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Screens:
    """One situation on every screen, as text."""

    text: str
    json: dict[str, Any]
    doctor: str
    dashboard: str

    def says(self, words: str) -> bool:
        shown = re.sub("<[^>]+>", "", self.dashboard)
        return all(words in screen for screen in (self.text, self.doctor, shown))


def screens(poller: Run, url: str) -> Screens:
    """Beside the daemon at this address."""
    return Screens(
        text=poller("status").out,
        json=poller("status", "--json").json,
        doctor=poller("doctor").out,
        dashboard=httpx.get(url).text,
    )


@pytest.fixture
def told(poller: Run, shop: Shop, tmp_path: Path) -> Iterator[str]:
    """The address of a daemon that runs on the shop after its first sweep by `once`."""
    shop.items[:] = MANY
    port = free_port()
    shop.configure(tmp_path, listen=f"127.0.0.1:{port}", more=TWO)
    assert poller("once").status == 0
    return f"http://127.0.0.1:{port}"


def endpoint(found: dict[str, Any], name: str = "items") -> dict[str, Any]:
    return next(one for one in found["endpoints"] if one["endpoint"] == name)


def test_a_hold_by_the_guard_says_what_is_gone_on_every_screen(
    poller: Run, shop: Shop, told: str, tmp_path: Path
) -> None:
    shop.answers["/items"] = (200, b"[]", "application/json")
    assert poller("once").status == 1
    with running_daemon(tmp_path / "poller.toml"):
        found = screens(poller, told)

    assert found.says("60 of 60 objects are gone at once")
    assert "on command" not in found.text + found.doctor + found.dashboard
    shown = endpoint(found.json)
    assert (shown["state"], shown["held"]["why"]) == ("held", "60 of 60 objects are gone at once")
    assert shown["held"]["since"].endswith("Z")
    assert endpoint(found.json, "orders")["state"] == "ok"


def test_a_hold_on_command_says_so_on_every_screen(poller: Run, told: str, tmp_path: Path) -> None:
    assert poller("hold", "items").status == 0
    with running_daemon(tmp_path / "poller.toml"):
        found = screens(poller, told)

    assert found.says("on command")
    assert endpoint(found.json)["held"]["by_hand"] is True


def test_lists_of_a_refused_source_are_blocked_and_not_ok(poller: Run, shop: Shop, told: str, tmp_path: Path) -> None:
    shop.answer = (401, b"who are you?", "text/plain")
    shop.answers.clear()
    with running_daemon(tmp_path / "poller.toml"):
        wait_for("the refusal", lambda: poller("status", "--json").json["sources"][0]["state"] == "blocked")
        found = screens(poller, told)

    assert [one["state"] for one in found.json["endpoints"]] == ["blocked", "blocked"]
    assert [one["expected_delay_s"] for one in found.json["endpoints"]] == [None, None]
    assert all("401" in one["reason"] for one in found.json["endpoints"])
    assert '"ok"' not in found.dashboard.partition("<h2>Endpoints</h2>")[2].partition("<h2>Subscriptions</h2>")[0]
    assert "answers" not in next(line for line in found.doctor.splitlines() if "source shop" in line)


def test_without_a_daemon_a_source_of_which_nothing_answers_is_failing(poller: Run, shop: Shop, told: str) -> None:
    shop.answer = (403, b"no", "text/plain")
    assert poller("once").status == 1
    found = poller("status", "--json").json

    assert found["sources"][0]["state"] == "failing"
    assert {one["state"] for one in found["endpoints"]} == {"failing"}
    assert "source shop: failing" in poller("doctor").out


@pytest.mark.slow
def test_a_list_that_was_never_complete_is_not_ok(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path, more=TWO)
    shop.answers["/orders"] = (200, b"no list", "text/plain")
    poller("once")
    found = poller("status", "--json").json

    assert [(one["endpoint"], one["state"]) for one in found["endpoints"]] == [("items", "ok"), ("orders", "failing")]


# With what only the running program knows, in a time of its own.


def standing(w: World) -> Status:
    with open_reader(w.app.config.poller.state) as reader:
        return status(reader, w.app.config, now=w.clock.now(), live=live_of(w.app))


async def test_a_source_does_not_answer_while_every_unit_of_it_fails(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        for number in range(4, 11):  # what is left is one page
            del t.shop.items[number]
        async with t.watched() as w:
            await w.run(60)
            assert (standing(w).sources[0].state, standing(w).sources[0].units) == ("ok", 1)
            t.shop.failing = {"/items": 500}
            while not standing(w).sources[0].failing:
                await w.run(1)
            found = standing(w)

            assert not w.events("poller.source.failing"), "it is too young to be told"
            assert found.sources[0].state == "failing"
            assert "answers" not in [one.what for one in of_status(found, w.app.config)]


async def test_one_failing_page_among_others_is_no_failing_source(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(600)
        t.shop.failing = {"/items?2": 500}
        while not standing(w).sources[0].failing:
            await w.run(5)
        (source, *_) = [one for one in of_status(standing(w), w.app.config) if one.about == "source shop"]

        assert source.what == "answers, but 1 of 3 units fails"


@pytest.mark.parametrize("status", [429, 503])
async def test_no_next_try_is_told_that_is_sooner_than_the_budget_may_ask(status: int, tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(60)
        t.shop.failing, t.shop.headers = {"/items": status}, {"retry-after": "3600"}
        looks = 0
        while not w.events("poller.source.failing") or not looks:
            await w.run(1000)
            found = standing(w)
            until = found.budgets[0].throttled_until
            if until is None:
                continue
            looks += 1
            assert all(one.next_try is not None and one.next_try >= until for one in found.endpoints)
            assert found.sources[0].next_probe is None or found.sources[0].next_probe >= until
        (failing,) = w.events("poller.source.failing")

        assert datetime.fromisoformat(failing.data["detail"]["next_try"]).timestamp() >= failing.time + 3599


def test_the_json_of_a_status_is_read_back_as_it_was() -> None:
    noon = datetime(2027, 1, 15, 12, tzinfo=UTC)
    held = Held(why="on command", since=noon, by_hand=True)
    whole = Status(
        time=noon,
        running=True,
        log_id="1",
        last_seq=3,
        budgets=(BudgetStatus(name="shop", limits=(LimitStatus(rate="1/s", used=1, remaining=0),)),),
        endpoints=(EndpointStatus(source="shop", endpoint="items", state="held", held=held, notes={"page=1": "odd"}),),
    )

    assert parse(document(whole)) == whole
    assert document(whole)["time"] == "2027-01-15T12:00:00.000Z"
    assert parse({**document(whole), "of a later version": 1}) == whole


class Refusing(Handler):
    """A receiver that refuses every event."""

    def do_POST(self) -> None:
        self.body()
        self.answer(400)


def test_dead_letters_are_shown_with_what_to_do(poller: Run, shop: Shop, tmp_path: Path) -> None:
    with serving_handler(Refusing) as address:
        shop.configure(tmp_path, more=CRM.format(url=f"http://{address}/"))
        poller("once")
        shop.items[0] = {"id": 1, "name": "Quince"}
        for _ in range(20):
            poller("once")
            if poller("deliveries", "--state", "dead", "--json").out:
                break

    assert "crm: 1 dead letter: `poller deliveries --subscription crm --state dead`" in poller("status").out
    (found,) = [row for row in poller("doctor", "--json").lines if row["what"] == "1 dead letter"]
    assert found["hint"].endswith("once fixed, poller redeliver --subscription crm")
