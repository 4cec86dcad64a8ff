"""`POST .../filtered` of the sandbox: operators, kinds of values, sorting, refusals."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from plugins.nutcache.profiles import V4
from tests.plugins.nutcache.test_sandbox import sandbox


def filtered(http: httpx.Client, path: str, *rules: tuple[str, str, Any], sort: str = "", query: str = "") -> Any:
    body: dict[str, Any] = {"filter_rules": [{"property": p, "operator": o, "value": v} for p, o, v in rules]}
    if sort:
        name, direction = sort.split()
        body["sorting_rules"] = [{"property": name, "direction": direction}]
    answer = http.post(f"{path}/filtered{query}", json=body)
    return answer.json()[path.rpartition("/")[2]] if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (("id", "eq", "154601"), lambda row: row["id"] == 154601),
        (("id", "eq", 154601), lambda row: row["id"] == 154601),
        (("id", "neq", 154601), lambda row: row["id"] != 154601),
        (("id", "gt", 154603), lambda row: row["id"] > 154603),
        (("id", "gte", "154603"), lambda row: row["id"] >= 154603),
        (("id", "lt", 154603), lambda row: row["id"] < 154603),
        (("id", "lte", 154603), lambda row: row["id"] <= 154603),
        (("name", "ct", "e"), lambda row: "e" in row["name"].lower()),
        (("NAME", "sw", "B"), lambda row: row["name"].startswith("B")),
        (("name", "ew", "Inc."), lambda row: row["name"].endswith("Inc.")),
        (("state", "eq", 63), lambda row: False),
        (("state", "neq", 63), lambda row: True),
    ],
)
def test_a_rule_gives_the_records_that_fit_and_no_other(rule, fits):
    with sandbox() as (_, http):
        everything = http.get("customers?limit=100").json()["customers"]

        assert filtered(http, "customers", rule, query="?limit=100") == list(filter(fits, everything))


@pytest.mark.parametrize(
    ("path", "rule", "count"),
    [
        ("invoices", ("total", "eq", "100.5"), 1),
        ("invoices", ("due_date", "gte", "2031-01-01"), 1),
        ("invoices", ("status", "eq", "Disputed"), 1),
        ("invoices", ("status", "eq", 5), 1),
        ("invoices/14801/invoice_details", ("description", "eq", "The only one"), 1),
        ("time_entries", ("creation_date", "gt", "2030-01-01T00:00Z"), 1),
        ("time_entries", ("creation_date", "gt", "2030-01-01T00:00+01"), 1),
        ("expenses", ("billable", "eq", "true"), 12),
        ("timers", ("guid", "eq", "{0D9C8B7A-1111-4222-8333-944455566677}"), 1),
    ],
)
def test_values_are_read_in_the_propertys_own_kind(path, rule, count):
    with sandbox() as (server, http):
        office = server.office
        for invoice in office.ids("invoices"):
            office.edit("invoices", invoice, status=1)
        for expense in office.ids("expenses"):
            office.edit("expenses", expense, billable=True)
        office.edit("invoices", 14801, total="100.50", due_date="2031-02-03", status=5)
        office.edit("invoice_details", office.ids("invoice_details", parent=14801)[0], description="The only one")
        office.edit("timers", 3601, guid="0d9c8b7a-1111-4222-8333-944455566677")
        office.create("time_entries", creation_date=1900000000.0)

        assert len(filtered(http, path, rule, query="?limit=100")) == count


def test_all_rules_must_hold():
    with sandbox() as (_, http):
        rows = filtered(http, "time_entries", ("id", "gt", 201510), ("id", "lte", 201513))

        assert [row["id"] for row in rows] == [201511, 201512, 201513]


@pytest.mark.parametrize(
    ("direction", "descending"), [("asc", False), ("ascending", False), ("desc", True), ("descending", True)]
)
def test_records_are_sorted(direction, descending):
    with sandbox() as (_, http):
        names = [row["name"] for row in filtered(http, "customers", sort=f"name {direction}", query="?limit=100")]

        assert names == sorted(names, key=str.casefold, reverse=descending)


def test_several_sorting_rules_apply_in_their_order():
    with sandbox() as (_, http):
        rules = [{"property": "status", "direction": "asc"}, {"property": "id", "direction": "desc"}]
        rows = http.post("projects/filtered?limit=100", json={"sorting_rules": rules}).json()["projects"]
        keys = [(row["status"], -row["id"]) for row in rows]

        assert keys == sorted(keys)


def test_pages_of_a_filtered_list_are_linked_as_posts():
    with sandbox() as (_, http):
        answer = http.post("time_entries/filtered?limit=50&page=2", json={}).json()

        assert len(answer["time_entries"]) == 50
        assert answer["links"] == [
            {"href": "time_entries/filtered?limit=50&page=1", "rel": "navigation-previous", "type": "POST"},
            {"href": "time_entries/filtered?limit=50&page=3", "rel": "navigation-next", "type": "POST"},
        ]
    with sandbox("filtered_links=absent") as (_, http):
        assert "links" not in http.post("time_entries/filtered?limit=50", json={}).json()


REFUSED = [
    {"filter_rules": [{"property": "modified", "operator": "gt", "value": "1"}]},
    {"filter_rules": [{"property": "id", "operator": "in", "value": "1"}]},
    {"filter_rules": [{"property": "id", "operator": "ct", "value": "1"}]},
    {"filter_rules": [{"property": "id", "operator": "gt", "value": "many"}]},
    {"filter_rules": [{"property": "id", "operator": "gt"}]},
    {"filter_rules": [{"property": "id", "operator": "gt", "value": "1", "and": "more"}]},
    {"sorting_rules": [{"property": "id", "direction": "up"}]},
    {"sorting_rules": [{"property": "modified", "direction": "asc"}]},
    {"filters": []},
]


@pytest.mark.parametrize("body", REFUSED)
def test_a_rule_that_is_not_understood_is_refused_or_ignored(body):
    with sandbox() as (_, http):
        assert http.post("customers/filtered", json=body).status_code == 400
    with sandbox("filters=ignore") as (_, http):
        assert len(http.post("customers/filtered?limit=100", json=body).json()["customers"]) == 12


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"filter_rules": {}}'])
def test_a_body_that_is_no_set_of_rules_is_refused(body):
    with sandbox() as (_, http):
        headers = {"Content-Type": "application/json"}
        assert http.post("customers/filtered", content=body, headers=headers).status_code == 400


def test_the_content_type_must_be_json():
    with sandbox() as (_, http):
        assert http.post("customers/filtered", content=b"{}").status_code == 400


def test_a_field_that_the_user_may_not_see_cannot_be_filtered():
    with sandbox() as (server, http):
        server.sandbox.hide("customers.phone")

        assert filtered(http, "customers", ("phone", "sw", "9")) == 400


@pytest.mark.parametrize("resource", V4.resources)
def test_every_list_can_be_filtered(resource):
    known = V4.resources[resource]
    with sandbox() as (server, http):
        parent = server.office.ids(known.parent)[0] if known.parent else None
        path = known.path.format(parent=parent)
        whole = http.get(f"{path}?limit=100").json()[resource]

        assert http.post(f"{path}/filtered?limit=100", json={}).json()[resource] == whole


def test_states_of_one_country_can_be_filtered():
    with sandbox() as (_, http):
        [state] = filtered(http, "countries/40/states", ("code", "eq", "CA_QC"))

        assert (state["id"], state["country"]) == (63, 40)
