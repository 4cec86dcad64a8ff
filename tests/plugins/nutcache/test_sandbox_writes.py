"""Writing time entries through the sandbox's API."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.nutcache.sandbox.server import Server
from tests.plugins.nutcache.test_sandbox import sandbox


def entry(server: Server, **fields: Any) -> dict[str, Any]:
    office = server.office
    membership = office.get("project_members", office.ids("project_members", parent=7301)[0])
    service = office.ids("project_services", parent=7301)[0]
    usual = {"project": 7301, "project_service": service, "member": membership["member"], "minutes": 30, "note": "x"}
    return {"timeentries": [{**usual, **fields}]}


def test_a_new_entry_is_at_the_end_of_the_list_and_in_the_journal():
    with sandbox() as (server, http):
        answer = http.post("time_entries?notify=true", json=entry(server, working_date="2026-11-20", invoice=""))
        [written] = answer.json()["time_entries"]

        assert answer.status_code == 201
        assert (written["working_date"], written["minutes"], written["invoice"]) == ("2026-11-20T00:00:00", 30, None)
        assert written["creation_date"] == "2026-11-23T14:00:00Z"
        assert server.office.ids("time_entries")[-1] == written["id"]
        assert [(line.resource, line.id, line.kind) for line in server.journal.entries] == [
            ("time_entries", written["id"], "created")
        ]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-05T09:00", "2026-11-05T10:30"),
        ("2026-11-05T09:00Z", "2026-11-05T10:30:00Z"),
        ("2026-11-05T09:00:00", "2026-11-05T12:30:00+02:00"),
        ("2026-11-05T09:00:00", "2026-11-05T12:30:00+02"),
        ("2026-11-05T09:00:00", "2026-11-05T12:30:00+0200"),
    ],
)
def test_start_and_end_may_be_written_in_every_documented_form(start, end):
    with sandbox() as (server, http):
        body = entry(server, start_time=start, end_time=end)
        del body["timeentries"][0]["minutes"]
        [written] = http.post("time_entries", json=body).json()["time_entries"]

        assert (written["minutes"], written["working_date"]) == (90, "2026-11-05T00:00:00")


def test_an_edit_changes_what_is_given_and_nothing_else():
    with sandbox() as (server, http):
        new = http.post("time_entries", json=entry(server)).json()["time_entries"][0]["id"]
        answer = http.put(f"time_entries/{new}", json={"timeentries": [{"note": "y"}]})

        assert answer.status_code == 200
        assert (answer.json()["time_entries"][0]["note"], answer.json()["time_entries"][0]["minutes"]) == ("y", 30)
        assert server.journal.entries[-1].changed == ("note",)


def test_a_deleted_entry_is_gone():
    with sandbox() as (server, http):
        new = http.post("time_entries", json=entry(server)).json()["time_entries"][0]["id"]

        assert (http.delete(f"time_entries/{new}").status_code, http.delete(f"time_entries/{new}").status_code) == (
            204,
            404,
        )
        assert server.journal.entries[-1].kind == "deleted"


def test_writes_may_answer_with_200_and_nothing():
    with sandbox("writes=empty") as (server, http):
        created = http.post("time_entries", json=entry(server))
        new = server.office.ids("time_entries")[-1]
        edited = http.put(f"time_entries/{new}", json={"timeentries": [{"note": "y"}]})
        deleted = http.delete(f"time_entries/{new}")

        assert [(answer.status_code, answer.content) for answer in (created, edited, deleted)] == [(200, b"")] * 3


@pytest.mark.parametrize(("variants", "status"), [((), 400), (("write_refusal=403",), 403)])
def test_an_entry_on_an_invoice_cannot_be_written(variants, status):
    with sandbox(*variants) as (server, http):
        server.office.edit("time_entries", 201501, invoice=14801)

        assert http.put("time_entries/201501", json={"timeentries": [{"note": "y"}]}).status_code == status
        assert http.delete("time_entries/201501").status_code == status


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 5},
        {"creation_date": "2026-01-01"},
        {"mood": "good"},
        {"project": 1},
        {"project": "7301"},
        {"member": 1},
        {"member": None},
        {"project_service": 1},
        {"invoice": 14801},
        {"minutes": -1},
        {"minutes": "30"},
        {"minutes": None},
        {"working_date": "tomorrow"},
        {"start_time": "2026-11-05T10:00", "end_time": "2026-11-05T09:00"},
    ],
)
def test_what_cannot_be_written_is_refused(fields):
    with sandbox() as (server, http):
        assert http.post("time_entries", json=entry(server, **fields)).status_code == 400
        assert server.journal.entries == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"time_entries":[{}]}', b'{"timeentries":{}}', b'{"timeentries":[{},{}]}']
)
def test_the_wrapping_keeps_the_old_name_and_holds_one_object(body):
    with sandbox() as (_, http):
        assert http.post("time_entries", content=body).status_code == 400
