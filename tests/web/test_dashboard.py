"""The pages of the dashboard, as a browser without a script asks for them: what they show, and what their forms do."""

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import httpx
import pytest

from poller.config.models import Config
from poller.operations.commands import COMMANDS
from poller.operations.doctor import Level
from poller.operations.status import EndpointStatus, SourceStatus, Status, SubscriptionStatus
from poller.web.dashboard import charts
from poller.web.dashboard.actions import FIELDS, arguments
from poller.web.dashboard.delivery_pages import readable
from poller.web.dashboard.html import Outcome, Outcomes, number, span
from poller.web.dashboard.overview import causes
from tests.support.command_line import Shop, open_shop
from tests.support.daemon import running_daemon, wait_for

BROWSER = {"accept": "text/html,application/xhtml+xml", "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def pages(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A browser, and a daemon that has reported two changes of one object to a subscription."""
    with running_daemon(shop.configure(tmp_path_factory.mktemp("pages"), listen="127.0.0.1:0")) as daemon:
        url = wait_for("the URL", daemon.url)
        with httpx.Client(base_url=url, headers={**BROWSER, "origin": url}, trust_env=False, timeout=30) as client:
            wait_for("the baseline", lambda: client.get("/api/v1/status").json()["endpoints"][0]["last_sweep"])
            for at, name in enumerate(("Quince", "<b>Medlar</b>"), start=1):
                shop.items = [{"id": 1, "name": name}, *shop.items[1:]]
                wait_for("the event", lambda at=at: len(client.get("/api/v1/events").json()["events"]) >= at)
            wait_for(
                "the deliveries",
                lambda: len(client.get("/api/v1/deliveries?state=delivered").json()["deliveries"]) >= 2,
            )
            yield client


def text_of(answer: httpx.Response) -> str:
    """What a reader sees of a page."""
    assert answer.headers["content-type"].startswith("text/html"), answer.text
    main = answer.text.partition("<main")[2].partition("</main>")[0]
    return " ".join(unescape(re.sub(r"<(title|style)>.*?</\1>|<[^>]+>", " ", main)).split())


def send(pages: httpx.Client, command: str, **fields: str) -> str:
    """Send a form as a browser does, and give what the page shows that it leads to."""
    answer = pages.post(f"/do/{command}", data={"back": "/", **fields})
    assert answer.status_code == 303, answer.text
    return text_of(pages.get(answer.headers["location"]))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", ["All is well", "items", "file", "1000/s"]),
        ("/endpoints/shop/items", ["Changes by unit", "Latest polls", "list", "Stale at most", "Delay measured"]),
        ("/events", ["items/1", "Apple → Quince"]),
        ("/events?type=*.deleted", ["No event matches."]),
        (
            "/events/1",
            ["What changed", "/name", "Apple", "Quince", "Version 1", "Version 2", "delivered", "CloudEvents"],
        ),
        ("/events/2?a=1&b=2", ["Version 1 and version 2", "<b>Medlar</b>"]),
        ("/deliveries", ["items/1", "file", "written"]),
        ("/deliveries?state=dead&state=pending", ["No delivery matches."]),
        ("/deliveries?status=wri*&subscription=file&after=2020-01-01", ["items/1"]),
        ("/deliveries?status=500", ["No delivery matches."]),
        ("/deliveries/1", ["Attempts", "attempt 1", "Request", '"type":"shop.items.updated"']),
        ("/subscriptions/file", ["active", "Latest deliveries", "Replay", "jsonl"]),
        ("/budgets", ["shop", "1000/s", "Calls since the start"]),
        ("/plan", ["Expected delay", "shop/items"]),
        ("/plan?share=0.5&weight=shop/items=5", ["What if"]),
        ("/endpoints/shop/items/object?id=1", ["Version 2", "Medlar"]),
    ],
)
def test_every_page_shows_what_it_is_about(pages: httpx.Client, path: str, shown: list[str]) -> None:
    answer = pages.get(path)

    assert answer.status_code == 200, answer.text
    text = text_of(answer)
    assert [word for word in shown if word not in text] == []


@pytest.mark.parametrize(
    "path", ["/events/99", "/deliveries/99", "/subscriptions/none", "/endpoints/shop/none", "/none"]
)
def test_what_is_not_there_is_said_on_a_page(pages: httpx.Client, path: str) -> None:
    answer = pages.get(path)

    assert answer.status_code == 404
    assert "Not Found" in text_of(answer)


@pytest.mark.parametrize("path", ["/plan?limits=soon", "/plan?weight=x", "/events?after=soon", "/deliveries?before=x"])
def test_a_wrong_parameter_is_said_on_a_page(pages: httpx.Client, path: str) -> None:
    assert pages.get(path).status_code in (400, 422)
    assert "Overview" in text_of(pages.get(path))


def test_no_page_shows_a_value_as_markup_or_needs_what_its_policy_forbids(pages: httpx.Client) -> None:
    for path in (
        "/",
        "/events",
        "/events/2",
        "/events/2?a=1&b=2",
        "/deliveries/2",
        "/endpoints/shop/items",
        "/budgets",
        "/plan",
    ):
        answer = pages.get(path)
        assert "<b>Medlar" not in answer.text
        assert not re.search(r"<script(?! src)|<style|\sstyle=|\son\w+=", answer.text), path
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_assets_are_kept_by_the_browser_and_change_their_address_when_they_change(pages: httpx.Client) -> None:
    for url in re.findall(r'(?:href|src)="(/assets/[^"]+)"', pages.get("/").text):
        answer = pages.get(url)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "?v=" in url


def test_the_forms_of_the_pages_do_their_commands_and_say_what_they_did(pages: httpx.Client) -> None:
    assert "Subscription file is paused" in send(pages, "pause", subscription="file")
    assert "paused with 0 events waiting" in text_of(pages.get("/"))
    assert "Subscription file is active" in send(pages, "resume", subscription="file")
    assert "1 delivery queued again" in send(pages, "redeliver", id="1")
    assert "test event was queued" in send(pages, "ping", subscription="file")
    assert "will be delivered to file again" in send(pages, "replay", subscription="file", after="0")
    assert "is held" in send(pages, "hold", endpoint="shop/items", back="/endpoints/shop/items")
    assert "Held" in text_of(pages.get("/endpoints/shop/items"))
    assert "is released" in send(pages, "release", endpoint="shop/items")
    assert "answers: 2 objects" in send(pages, "inspect", endpoint="shop/items")


def test_a_command_that_is_refused_says_why(pages: httpx.Client) -> None:
    assert "no subscription is named 'none'" in send(pages, "ping", subscription="none")
    assert "is not held" in send(pages, "release", endpoint="shop/items")
    assert "greater than" in send(pages, "redeliver", id="0")
    assert "neither a number nor a time" in send(pages, "replay", subscription="file", after="soon")


def test_a_form_leads_back_to_pages_of_this_server_alone(pages: httpx.Client) -> None:
    for back in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", ""):
        answer = pages.post("/do/probe", data={"back": back})
        assert urllib.parse.urlsplit(answer.headers["location"])[:3] == ("", "", "/"), back


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_a_page_of_another_site_sends_no_form(pages: httpx.Client, headers: dict[str, str]) -> None:
    assert pages.post("/do/probe", data={"back": "/"}, headers=headers).status_code == 403


def test_the_policy_of_referrers_lets_a_browser_name_the_origin_of_a_form(pages: httpx.Client) -> None:
    assert pages.get("/").headers.get_list("referrer-policy") == ["same-origin"]


# The parts.


def test_every_command_of_a_form_is_one_of_the_daemons() -> None:
    assert set(FIELDS) <= set(COMMANDS)


def test_fields_of_forms_become_arguments() -> None:
    assert arguments("redeliver", {"id": "7", "back": "/", "state": ""}) == {"ids": [7]}
    assert arguments("replay", {"subscription": "crm", "after": "12"}) == {"subscription": "crm", "after": 12}
    assert arguments("release", {"endpoint": "a/b", "how": "emit"}) == {"endpoint": "a/b", "emit": True}
    assert arguments("release", {"endpoint": "a/b", "how": "<"}) == {"endpoint": "a/b"}
    assert arguments("redeliver", {"id": "9" * 30}) == {"ids": ["9" * 30]}


def test_outcomes_are_kept_for_a_while() -> None:
    outcomes = Outcomes()
    keys = [outcomes.keep(Outcome(text=str(at))) for at in range(200)]

    assert outcomes.get(keys[0]) is None
    assert outcomes.get(keys[-1]) == Outcome(text="199")
    assert outcomes.get("unknown") is None


def status_of(*endpoints: EndpointStatus, sources: tuple[SourceStatus, ...] = ()) -> Status:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    return Status(time=now, running=True, log_id="x", last_seq=0, sources=sources, endpoints=endpoints)


def test_a_dead_source_is_one_cause_however_many_endpoints_it_has(tmp_path: Path) -> None:
    blocked = [EndpointStatus(source="acme", endpoint=f"e{at}", state="blocked", reason="401") for at in range(7)]
    held = EndpointStatus(source="acme", endpoint="held", state="held", reason="most is missing")
    status = status_of(*blocked, held, sources=(SourceStatus(name="acme", state="blocked", reason="401"),))

    found = causes(status, Config(path=tmp_path))

    assert [one.about for one in found] == [("source acme",), ("endpoint acme/held",)]
    assert "8 endpoints not polled" in found[0].what


def test_the_same_cause_of_several_endpoints_is_one_line(tmp_path: Path) -> None:
    status = status_of(*(EndpointStatus(source="acme", endpoint=name, state="ok") for name in ("a", "b")))

    [one] = causes(status, Config(path=tmp_path))

    assert (one.level, one.about) == (Level.WARN, ("endpoint acme/a", "endpoint acme/b"))
    assert one.links == ("/endpoints/acme/a", "/endpoints/acme/b")


def test_findings_of_one_subscription_are_one_line_with_the_worst_first(tmp_path: Path) -> None:
    ailing = SubscriptionStatus(name="crm", state="failing", dead=3, last_error="422")
    status = replace(status_of(), subscriptions=(ailing,))

    [one] = causes(status, Config(path=tmp_path))

    assert (one.level, one.what) == (Level.BAD, "failing: 422; 3 dead letters")


def test_a_request_is_shown_with_its_json_indented_and_any_other_as_it_is() -> None:
    assert readable('POST /x\n\n{"a":1}') == 'POST /x\n\n{\n  "a": 1\n}'
    assert readable("a line\n\nof text") == "a line\n\nof text"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.25, "0.2 s"),
        (59.0, "59 s"),
        (150.0, "2 min"),
        (7200.0, "2 h"),
        (200_000.0, "2 d"),
        (float("inf"), "never"),
    ],
)
def test_spans_are_in_the_unit_that_leaves_a_small_number(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0"), (1234567, "1 234 567"), (0.04, "0.04"), (2.54, "2.5")]
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text.replace(" ", "\u202f")


def test_charts_keep_small_values_visible_and_stay_within_their_frame() -> None:
    bars = charts.bars([0.0, 1.0, 1000.0])
    [row] = charts.heat({"a": [0.0, 1.0, 1000.0]}, most=5)

    assert [bar.height for bar in bars] == [1.0, 2.0, 22.0]
    assert [level for _, level in row.cells] == [0, 1, 4]
    assert charts.spread([(-1, 5), (0, 1), (1, 2), (9, 7)], count=2) == [1.0, 2.0]
    assert (
        charts.area([(0.0, 5.0), (1.0, 20.0)], width=10, height=10, top=10)
        == "M0.0 10.0 L0.0 5.0 L10.0 0.0 L10.0 10.0 Z"
    )
    assert charts.area([], width=10, height=10, top=10) == ""
