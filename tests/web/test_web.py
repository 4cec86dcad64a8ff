"""The HTTP side of a running daemon: what it answers, whom, and what its dashboard shows."""

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command_line import Run, Shop, open_shop
from tests.support.daemon import Daemon, running_daemon, wait_for

ROUTES = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/v1/events",
    "/api/v1/events/stream",
    "/api/v1/status",
    "/api/v1/plan",
}
ROUTES |= {"/api/v1/deliveries", "/api/v1/deliveries/{number}", "/api/v1/deliveries/{number}/redeliver"}
ROUTES |= {f"/api/v1/subscriptions/{{name}}/{command}" for command in ("replay", "ping", "pause", "resume")}
ROUTES |= {
    f"/api/v1/{of}/{command}" for of in ("subscriptions/{name}", "sources/{source}") for command in ("rename", "forget")
}
ROUTES |= {
    f"/api/v1/endpoints/{{source}}/{{endpoint}}/{what}"
    for what in ("hold", "release", "rebaseline", "inspect", "object")
}
ROUTES |= {"/api/v1/redeliver", "/api/v1/events/types", "/api/v1/ledger", "/api/v1/configuration"}
ROUTES |= {"/api/v1/budgets/{name}/resume"}
ROUTES |= {"/api/v1/probe", "/api/v1/tables/{table}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[tuple[Daemon, Shop]]:
    """A daemon that has told of one change: its value is markup, as any value may be."""
    with open_shop() as shop, running_daemon(shop.configure(folder, listen="127.0.0.1:0")) as daemon:
        url = wait_for("the URL", daemon.url)
        wait_for("the baseline", lambda: httpx.get(f"{url}/api/v1/status").json()["endpoints"][0]["last_sweep"])
        shop.items = [{"id": 1, "name": "<script>alert(1)</script>"}, *shop.items[1:]]
        wait_for("the event", lambda: httpx.get(f"{url}/api/v1/events").json()["events"])
        wait_for("the delivery", lambda: (folder / "out.jsonl").exists())
        yield daemon, shop


@pytest.fixture
def api(daemon: tuple[Daemon, Shop]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=daemon[0].url() or "", trust_env=False, timeout=30) as client:
        yield client


def test_it_says_that_it_lives_and_is_ready(api: httpx.Client) -> None:
    assert [api.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_every_route_of_the_design_is_described(api: httpx.Client) -> None:
    assert set(api.get("/openapi.json").json()["paths"]) == ROUTES


def test_the_status_is_that_of_the_running_program(api: httpx.Client) -> None:
    status = api.get("/api/v1/status").json()

    assert status["running"] is True
    assert status["endpoints"][0]["objects"] == 2
    assert {"rate", "used", "remaining"} <= status["budgets"][0]["limits"][0].keys()


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 1),
        ("?after=0&limit=1", 1),
        ("?after=1", 0),
        ("?type=*.updated", 1),
        ("?type=*.deleted", 0),
        ("?source=x", 0),
        ("?source=shop", 1),
        ("?source=/sources/shop", 1),
        ("?subject=items/1", 1),
        ("?subject=items/*", 1),
        ("?subject=items/2", 0),
        ("?before=1", 0),
        ("?after=2020-01-01T00:00:00Z", 1),
        ("?before=2020-01-01T00:00:00Z", 0),
        ("?newest=true", 1),
    ],
)
def test_events_are_given_from_a_number_on(api: httpx.Client, query: str, count: int) -> None:
    answer = api.get(f"/api/v1/events{query}").json()
    of_the_shop = [event for event in answer["events"] if event["source"] == "/sources/shop"]

    assert len(of_the_shop) == count  # commands that other tests give the same daemon are notices in the log, too
    assert answer["next"] >= count


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/events?after=99", 410),
        ("/api/v1/events?after=0123456789abcdef-1", 410),
        ("/api/v1/events?after=soon", 400),
        ("/api/v1/events?limit=0", 422),
        ("/api/v1/events?after=1000000000000000000000000000000", 400),
        ("/api/v1/events?after=9007199254740991", 410),
        ("/api/v1/events?before=99999999999999999999", 400),
        ("/api/v1/events?before=2026-11-23T08:00:00", 400),
        ("/api/v1/events?after=", 400),
        ("/api/v1/events?limit=99999999999999999999", 422),
        ("/api/v1/deliveries?state=lost", 422),
        ("/api/v1/deliveries?before=99999999999999999999", 400),
        ("/api/v1/deliveries/99", 404),
        ("/api/v1/deliveries/99999999999999999999", 422),
        ("/api/v1/deliveries/-1", 422),
        ("/api/v1/endpoints/shop/items/object?id=99", 404),
        ("/api/v1/endpoints/shop/nope/object?id=99", 404),
        ("/api/v1/nothing", 404),
    ],
)
def test_what_cannot_be_answered_is_told_with_what_to_do(api: httpx.Client, path: str, status: int) -> None:
    answer = api.get(path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["detail"]
    assert answer.json()["hint"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/endpoints/shop/nope/object?id=99", ("no endpoint is named 'shop/nope'", "shop/items'?")),
        ("/api/v1/endpoints/shop/items/object?id=99", ("shop/items has no object '99'", "its id is the end of")),
        ("/api/v1/deliveries?state=lost", ("state: this must be pending, delivered or dead",)),
        ("/api/v1/plan?weight=items", ("weight.0: a weight is an endpoint and a number above 0, such as projects=5",)),
        ("/api/v1/plan?limits=fast", ("limits.0: a rate is calls per window, such as 5/s",)),
    ],
)
def test_what_is_wrong_is_said_in_words_and_with_what_there_is(
    api: httpx.Client, path: str, said: tuple[str, ...]
) -> None:
    answer = api.get(path).json()

    assert all(words in f"{answer['detail']}; {answer['hint']}" for words in said)


def test_a_body_that_is_no_json_is_called_so(api: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.post("/api/v1/redeliver", content='{"all": }', headers=headers)

    assert (answer.status_code, answer.json()["detail"][:28]) == (422, "the body is not valid JSON: ")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/deliveries/99999999999999999999/redeliver", "", 422),
        ("/api/v1/subscriptions/file/replay", '{"after": 99999999999999999999}', 422),
        ("/api/v1/subscriptions/file/replay", '{"after": -1}', 422),
        ("/api/v1/subscriptions/file/replay", '{"after": "\\ud800"}', 422),
        ("/api/v1/subscriptions/file/replay", "{", 422),
        ("/api/v1/redeliver", '{"ids": [99999999999999999999]}', 422),
        ("/api/v1/redeliver", "{}", 422),
        ("/api/v1/subscriptions/none/ping", "", 404),
        ("/api/v1/endpoints/shop/none/hold", "", 404),
    ],
)
def test_a_command_that_cannot_be_done_is_a_problem(api: httpx.Client, path: str, body: str, status: int) -> None:
    answer = api.post(path, content=body, headers={"content-type": "application/json"})

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", "/api/v1/events?limit=x", "limit: this is not a whole number"),
        ("GET", "/api/v1/events?limit=0", "limit: this must be at least 1"),
        ("POST", "/api/v1/redeliver", "body: required, but missing"),
    ],
)
def test_an_invalid_request_is_told_in_plain_words(api: httpx.Client, method: str, path: str, detail: str) -> None:
    assert api.request(method, path).json()["detail"] == detail


def test_every_problem_is_described(api: httpx.Client) -> None:
    for path, operations in api.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            kinds = {kind for one in operation["responses"].values() for kind in one.get("content", {})}
            assert "application/problem+json" in kinds, path


def test_head_is_answered_where_get_is(api: httpx.Client) -> None:
    paths = [path for path in ROUTES if "{" not in path and "get" in api.get("/openapi.json").json()["paths"][path]]
    for path in [*paths, "/"]:
        answer = api.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path


def test_no_answer_names_the_scheme_of_the_request(api: httpx.Client) -> None:
    answer = api.get("/api/v1/status/", follow_redirects=False)
    assert (answer.status_code, "location" in answer.headers) == (404, False)


def test_the_commands_of_the_api_say_a_sentence(api: httpx.Client) -> None:
    said = [
        api.post(path, json={}).json()["summary"]
        for path in (
            "/api/v1/subscriptions/file/pause",
            "/api/v1/subscriptions/file/resume",
            "/api/v1/endpoints/shop/items/hold",
            "/api/v1/endpoints/shop/items/release",
            "/api/v1/endpoints/shop/items/rebaseline",
        )
    ]

    assert said == [
        "Subscription file is paused: its events are kept until you resume it.",
        "Subscription file is active.",
        "Endpoint shop/items is held: nothing of it is recorded.",
        "Endpoint shop/items is released.",
        "The next sweep of shop/items is its new baseline: it is recorded without events.",
    ]


def test_a_delivery_is_shown_with_its_attempts_and_can_be_sent_again(api: httpx.Client, folder: Path) -> None:
    (first, *_) = api.get("/api/v1/deliveries?state=delivered").json()["deliveries"]
    assert len(api.get(f"/api/v1/deliveries/{first['id']}").json()["log"]) == 1

    before = (folder / "out.jsonl").read_bytes()
    assert api.post(f"/api/v1/deliveries/{first['id']}/redeliver").status_code == 202
    assert api.post("/api/v1/subscriptions/file/replay", json={"after": 0}).status_code == 202
    wait_for("both copies", lambda: len((folder / "out.jsonl").read_bytes()) == 3 * len(before))


def test_the_plan_can_be_asked_what_if(api: httpx.Client) -> None:
    plan = api.get("/api/v1/plan?limits=1/s&weight=items=5").json()

    assert [unit["endpoint"] for unit in plan["units"]] == ["items"]


def test_metrics_name_what_an_alarm_needs(api: httpx.Client) -> None:
    text = api.get("/metrics").text

    for name in ("calls_total", "budget_remaining", "source_ok", "endpoint_staleness_seconds", "subscription_lag"):
        assert re.search(rf"^poller_{name}{{?.* [0-9.e+]+$", text, re.MULTILINE), name


# The dashboard.


def test_the_dashboard_shows_everything_and_loads_nothing_from_elsewhere(api: httpx.Client) -> None:
    page = api.get("/")

    assert "All is well" in page.text
    assert all(word in page.text for word in ("1000/s", ">items</a>", ">file</a>", "items/1"))
    assert not re.search(r'(src|href)="(https?:)?//', page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_values_are_text_on_the_dashboard(api: httpx.Client) -> None:
    page = api.get("/").text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_what_is_wrong_stands_first_on_the_dashboard(shop: Shop, tmp_path: Path) -> None:
    shop.answer = (403, b"no", "text/plain")
    with running_daemon(shop.configure(tmp_path, listen="127.0.0.1:0")) as daemon:
        url = wait_for("the URL", daemon.url)
        page = wait_for("what to do", lambda: (text := httpx.get(url).text) and "check --online" in text and text)

    assert page.index("source shop") < page.index("403 Forbidden") < page.index("<h2>Endpoints</h2>")
    assert "403 Forbidden" in page


# Who may ask.


def test_a_name_that_is_not_ours_is_not_answered(api: httpx.Client) -> None:
    assert api.get("/api/v1/status", headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
)
def test_a_page_of_another_site_changes_nothing(api: httpx.Client, headers: dict[str, str]) -> None:
    answer = api.post("/api/v1/subscriptions/file/replay", json={"after": 0}, headers=headers)

    assert answer.status_code == 403


def configured(shop: Shop, folder: Path, **settings: Any) -> Path:
    """A configuration with more keys in [poller]."""
    path = shop.configure(folder, listen=settings.pop("listen", "127.0.0.1:0"))
    keys = "".join(f"{key} = {value}\n" for key, value in settings.items())
    path.write_text(path.read_text().replace("[poller]\n", f"[poller]\n{keys}"))
    return path


def test_with_a_token_only_probes_are_open(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame\n")
    with running_daemon(configured(shop, tmp_path, token='{ file = "token" }')) as daemon:
        url = wait_for("the URL", daemon.url)
        asked = [httpx.get(f"{url}{path}").status_code for path in ("/healthz", "/readyz", "/", "/metrics")]
        bearer = httpx.get(f"{url}/api/v1/status", headers={"authorization": "Bearer sesame"})
        basic = httpx.get(f"{url}/", auth=("anybody", "sesame"))
        wrong = httpx.get(f"{url}/", auth=("anybody", "sesam"))

    assert asked == [200, 200, 401, 401]
    assert [bearer.status_code, basic.status_code, wrong.status_code] == [200, 200, 401]


def test_only_allowed_hosts_are_answered(shop: Shop, tmp_path: Path) -> None:
    with running_daemon(configured(shop, tmp_path, allowed_hosts='["poller.example"]')) as daemon:
        url = wait_for("the URL", daemon.url)
        statuses = [
            httpx.get(f"{url}/healthz", headers={"host": host}).status_code
            for host in ("poller.example", "POLLER.example:443", "127.0.0.1")
        ]

    assert statuses == [200, 200, 421]


def test_with_an_empty_listen_nothing_is_opened(shop: Shop, tmp_path: Path) -> None:
    with running_daemon(configured(shop, tmp_path, listen="")) as daemon:
        pass

    assert "http.listening" not in daemon.log


# The life of the daemon.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_also_with_an_open_stream(shop: Shop, tmp_path: Path, number: int) -> None:
    with running_daemon(configured(shop, tmp_path)) as daemon:
        url = wait_for("the URL", daemon.url)
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stream:
            stream.sendall(b"GET /api/v1/events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert stream.recv(100).startswith(b"HTTP/1.1 200")
            daemon.signal(number)
            assert daemon.stop() == 0
    assert "poller.stopped" in daemon.log
    assert "Traceback" not in daemon.log


def test_a_reload_takes_over_what_is_valid_and_keeps_the_old_one_else(poller: Run, shop: Shop, tmp_path: Path) -> None:
    config = configured(shop, tmp_path)
    with running_daemon(config) as daemon:
        valid = config.read_text()
        config.write_text(valid.replace("types", "typs").replace("[poller]", "[poller]\nnope = 1"))
        daemon.signal(signal.SIGHUP)
        wait_for("the refusal", lambda: "config.refused" in daemon.log)
        config.write_text(valid + '[[subscriptions]]\nname = "second"\nplugin = "jsonl"\npath = "second.jsonl"\n')
        daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: "config.reloaded" in daemon.log)
        url = wait_for("the URL", daemon.url)
        names = [one["name"] for one in httpx.get(f"{url}/api/v1/status").json()["subscriptions"]]

    assert "poller.nope: unknown key" in daemon.log
    assert names == ["file", "second"]
