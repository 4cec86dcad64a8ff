"""Faults on demand, and what the sandbox tells and takes below `/_sandbox/`."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.plugins.nutcache.test_sandbox import sandbox


def test_the_next_calls_of_a_path_get_a_status_and_then_all_is_well():
    with sandbox() as (server, http):
        server.sandbox.faults.add("status", "customers", times=2, status=503, retry_after="7")

        assert [http.get(path).status_code for path in ("timers", "customers", "customers", "customers")] == [
            200,
            503,
            503,
            200,
        ]


def test_a_fault_may_name_a_page_and_come_later():
    with sandbox() as (server, http):
        server.sandbox.faults.add("status", "time_entries*page=2", after=1)
        urls = ["time_entries?limit=50&page=1", "time_entries?limit=50&page=2", "time_entries?limit=50&page=2"]

        assert [http.get(url).status_code for url in urls] == [200, 200, 500]


def test_a_fault_without_end_lasts_until_cleared():
    with sandbox() as (server, http):
        server.sandbox.faults.add("status", times=None)
        assert {http.get("timers").status_code for _ in range(5)} == {500}
        server.sandbox.faults.clear()
        assert http.get("timers").status_code == 200


def test_html_may_come_with_200():
    with sandbox() as (server, http):
        server.sandbox.faults.add("html")
        answer = http.get("timers")

        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_json_may_end_in_the_middle():
    with sandbox() as (server, http):
        whole = http.get("customers").content
        server.sandbox.faults.add("truncated")

        assert http.get("customers").content == whole[: len(whole) // 2]


def test_a_body_may_be_anything():
    with sandbox() as (server, http):
        server.sandbox.faults.add("body", body='{"customers":null}')

        assert http.get("customers").json() == {"customers": None}


def test_a_connection_may_be_dropped_or_cut():
    with sandbox() as (server, http):
        server.sandbox.faults.add("drop")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            http.get("timers")
        server.sandbox.faults.add("cut")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            http.get("timers")
        assert [call.status for call in server.sandbox.log] == [0, 200]
        assert http.get("timers").status_code == 200


def test_an_answer_may_be_late():
    with sandbox() as (server, http):
        server.sandbox.faults.add("delay", seconds=30.0)
        with pytest.raises(httpx.ReadTimeout):
            http.get("timers", timeout=0.05)
        begun = time.monotonic()
    assert time.monotonic() - begun < 20  # stopping does not wait for the late answer


def test_an_unknown_fault_names_the_known_ones():
    with sandbox() as (server, _), pytest.raises(ValueError, match="truncated"):
        server.sandbox.faults.add("explode")  # type: ignore[arg-type]


# Over HTTP


def test_the_journal_can_be_read_from_any_number_on():
    with sandbox() as (server, http):
        journal = f"{server.origin}/_sandbox/journal"
        for city in ("Laval", "Halifax", "Laval"):
            server.office.edit("customers", 154600, city=city)
        seen = http.get(journal, params={"after": 1}).json()

        assert [entry["n"] for entry in seen["entries"]] == list(range(2, seen["last"] + 1))
        assert seen["entries"][-1]["changed"] == ["city"]


def test_edits_and_life_can_be_ordered():
    with sandbox() as (server, http):
        office = f"{server.origin}/_sandbox/office"
        new = http.post(office, json={"do": "create", "resource": "customers", "values": {"name": "N"}}).json()["id"]
        edit = {"do": "edit", "resource": "customers", "id": new, "values": {"name": "M"}}
        assert http.post(office, json=edit).json() == {"changed": ["name"]}
        http.post(office, json={"do": "delete", "resource": "customers", "id": new})
        http.post(office, json={"do": "soft_delete", "resource": "invoices", "id": 14801})
        steps = http.post(f"{server.origin}/_sandbox/advance", json={"steps": 3}).json()

        kinds = [entry.kind for entry in server.journal.entries]
        assert kinds[:4] == ["created", "updated", "deleted", "deleted"]
        assert len(kinds) == 4 + steps["changes"]
        assert http.get(office).json()["records"]["countries"] == 10


def test_faults_tokens_and_permissions_can_be_ordered():
    with sandbox() as (server, http):
        orders = f"{server.origin}/_sandbox/"
        http.post(orders + "faults", json={"kind": "status", "path": "timers"})
        assert http.get("timers").status_code == 500
        http.post(orders + "faults", json={"kind": "status", "path": "timers"})
        http.delete(orders + "faults")
        http.post(orders + "hidden", json={"resources": ["expenses"], "fields": ["customers.phone"]})
        assert [http.get(path).status_code for path in ("timers", "expenses")] == [200, 403]
        assert http.get("customers").json()["customers"][0]["phone"] is None
        http.post(orders + "expire")
        assert http.get("timers").status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("office", {"do": "burn", "resource": "customers"}, 400),
        ("office", {"do": "edit", "resource": "customers", "id": 1, "values": {}}, 400),
        ("office", {"do": "create", "resource": "customers", "values": {"mood": 1}}, 400),
        ("office", [], 400),
        ("faults", {"kind": "explode"}, 400),
        ("nothing", {}, 404),
    ],
)
def test_an_order_that_makes_no_sense_says_so(path, body, status):
    with sandbox() as (server, http):
        answer = http.post(f"{server.origin}/_sandbox/{path}", json=body)

        assert answer.status_code == status
        assert answer.json()["message"]
