"""The sandbox's office: records that belong together, a life that is deterministic, a journal that tells the truth."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.nutcache.profiles import V3, V4
from plugins.nutcache.sandbox.drafts import CENT
from plugins.nutcache.sandbox.journal import Entry
from plugins.nutcache.sandbox.office import MONDAY_MORNING, Office, busyness
from plugins.nutcache.sandbox.rendering import Renderer
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.server import live, serving
from plugins.nutcache.sandbox.variants import Variants
from tests.plugins.nutcache.test_sandbox import SMALL, Clock, every, sandbox

DAY = 86400.0


def make_office(**fields: Any) -> Office:
    return Office(**{"size": SMALL, "clock": Clock(), **fields})


def picture(office: Office) -> dict[tuple[str, Any], bytes]:
    """Every visible record as its list shows it, by its key. Running timers' minutes stand still."""
    world, renderer = office.world, Renderer(office.world, Variants())
    renderer.forget()
    return {
        (name, world.key(row)): renderer.write(row, "list")
        for name in world.profile.resources
        for row in world.tables[name].values()
        if row.company in world.visible or row.scope == 0
    }


# The world as it is found


@pytest.mark.parametrize("days", [0, 4])
def test_every_reference_points_at_a_record_of_the_same_company(days):
    office = make_office()
    office.advance(days * DAY)
    world = office.world

    for resource in world.profile.resources.values():
        for row in world.tables[resource.name].values():
            for field in resource.fields.values():
                value = row[field.name]
                if value is None or field.refers is None or (days and field.refers == "project_services"):
                    continue
                target = world.get(field.refers, value)
                assert target is not None, (resource.name, row.id, field.name)
                assert field.refers in ("countries", "states", "currencies") or target.company == row.company


@pytest.mark.parametrize("days", [0, 4])
def test_the_amounts_of_an_invoice_add_up(days):
    office = make_office()
    office.advance(days * DAY)

    for record in office.ids("invoices"):
        invoice = office.get("invoices", record)
        lines = [office.get("invoice_details", line) for line in office.ids("invoice_details", parent=record)]
        taxes = [office.get("invoice_taxes", tax) for tax in office.ids("invoice_taxes", parent=record)]
        assert all(line["total_price"] == (line["quantity"] * line["price"]).quantize(CENT) for line in lines)
        assert invoice["total_amount_before_taxes"] == sum(line["total_price"] for line in lines)
        assert invoice["taxes_amount"] == sum(tax["total"] for tax in taxes)
        assert invoice["total"] == invoice["total_amount_before_taxes"] + invoice["taxes_amount"]
        assert invoice["balance"] == invoice["total"] - invoice["paid_to_date"]
        assert invoice["status"] != 4 or invoice["balance"] == 0


def test_the_amounts_of_an_expense_add_up():
    office = make_office()
    office.advance(4 * DAY)

    for record in office.ids("expenses"):
        expense = office.get("expenses", record)
        [tax] = [office.get("expense_taxes", row) for row in office.ids("expense_taxes", parent=record)]
        assert expense["amount_after_taxes"] == expense["amount_before_taxes"] + tax["tax_amount"]
        assert expense["amount_after_taxes"] == expense["amount_paid"] + expense["amount_due"]


def test_a_small_office_has_the_size_of_a_small_office():
    office = Office()

    counts = {name: len(office.ids(name)) for name in ("customers", "projects", "time_entries", "invoices", "expenses")}
    assert counts == {"customers": 40, "projects": 60, "time_entries": 900, "invoices": 150, "expenses": 200}
    assert office.journal.entries == []


def test_time_entries_were_written_in_the_order_of_their_ids():
    office = make_office()
    created = [office.get("time_entries", record)["creation_date"] for record in office.ids("time_entries")]

    assert created == sorted(created)
    assert created[-1] <= MONDAY_MORNING


@pytest.mark.parametrize("profile", [V3, V4], ids=lambda profile: profile.name)
def test_both_profiles_tell_of_the_same_office(profile):
    office, other = make_office(profile=profile), make_office(profile=V4)

    assert office.get("customers", 154600)["name"] == other.get("customers", 154600)["name"]
    assert office.get("customers", 154600)[profile.company_field] == 2101


# Life


def test_the_same_seed_gives_the_same_life():
    offices = [make_office(seed=7) for _ in range(2)]
    for office in offices:
        office.advance(2 * DAY)

    assert picture(offices[0]) == picture(offices[1])
    assert offices[0].journal.entries == offices[1].journal.entries
    assert picture(make_office(seed=8)) != picture(make_office(seed=7))


def test_the_cut_of_time_into_steps_changes_nothing():
    whole, parts = make_office(), make_office()
    whole.advance(DAY)
    for _ in range(96):
        parts.advance(DAY / 96)

    assert picture(whole) == picture(parts)


def test_a_step_makes_at_least_one_change():
    office = make_office()
    steps = [office.step() for _ in range(200)]

    assert min(steps) >= 1
    assert sum(steps) == len(office.journal.entries)


def test_a_fortnight_changes_every_kind_of_record_in_every_way():
    office = make_office(size=Size())
    office.advance(14 * DAY)
    kinds = {(entry.resource, entry.kind) for entry in office.journal.entries}

    assert {("time_entries", kind) for kind in ("created", "updated", "deleted")} <= kinds
    assert {("customers", kind) for kind in ("created", "updated", "deleted")} <= kinds
    assert {("invoices", kind) for kind in ("created", "updated", "deleted")} <= kinds
    assert {("expenses", kind) for kind in ("created", "updated", "deleted")} <= kinds
    assert {(name, "created") for name in V4.resources} - kinds == {
        (name, "created") for name in ("companies", "countries", "states", "currencies")
    }
    assert any(entry.soft for entry in office.journal.entries)


def test_people_work_by_day_and_rest_on_sunday():
    office = make_office(size=Size())
    changes = [office.advance(3600) for _ in range(24 * 7)]

    assert sum(changes[:8]) > 10 * sum(changes[12:20])
    assert sum(changes[:24]) > 5 * sum(changes[-24:])
    assert busyness(MONDAY_MORNING) > 10 * busyness(MONDAY_MORNING - DAY)


def test_changes_come_in_bursts():
    office = make_office(size=Size())
    times = []
    for _ in range(400):
        office.step()
        times.append(office.now)
    gaps = [later - earlier for earlier, later in pairwise(times)]

    assert sum(gap <= 20 for gap in gaps) > len(gaps) / 4


def test_stopping_a_timer_writes_a_time_entry_and_clears_the_timer():
    office = make_office()
    office.advance(7 * DAY)
    kinds = Counter((entry.resource, entry.kind) for entry in office.journal.entries)

    assert kinds["timers", "updated"] > 5
    assert abs(kinds["timers", "deleted"] - kinds["timers", "updated"]) <= 1


def test_a_payment_moves_balance_sum_and_status_together():
    office = make_office(size=Size())
    office.advance(7 * DAY)
    moved = {entry.changed for entry in office.journal.entries if entry.resource == "invoices"}

    assert any({"balance", "paid_to_date", "status"} <= set(changed) for changed in moved)


def test_billing_sets_the_invoice_of_time_entries():
    office = make_office(size=Size())
    office.advance(7 * DAY)
    billed = [e for e in office.journal.entries if e.resource == "time_entries" and "invoice" in e.changed]

    assert billed


def test_renaming_a_customer_leaves_the_copy_on_old_invoices():
    office = make_office()
    invoice = office.get("invoices", 14801)
    office.edit("customers", invoice["customer"], name="Renamed")

    assert office.get("invoices", 14801)["customer_name"] == invoice["customer_name"]
    assert [entry.resource for entry in office.journal.entries] == ["customers"]


async def test_life_goes_on_in_real_time_at_a_pace():
    async with serving(Settings(size=SMALL), pace=2000.0) as server:
        while len(server.journal.entries) < 20:
            await asyncio.sleep(0.001)


async def test_life_goes_on_in_real_time_at_a_speed():
    office = make_office()
    life = asyncio.create_task(live(office, speed=1_000_000.0))
    while len(office.journal.entries) < 20:
        await asyncio.sleep(0.001)
    life.cancel()
    with pytest.raises(asyncio.CancelledError):
        await life


# The journal


def fold(before: set[tuple[str, Any]], entries: list[Entry]) -> set[tuple[str, Any]]:
    there = set(before)
    for entry in entries:
        if entry.soft:
            continue
        if entry.kind == "created":
            assert (entry.resource, entry.id) not in there
            there.add((entry.resource, entry.id))
        elif entry.kind == "deleted":
            there.remove((entry.resource, entry.id))
        else:
            assert (entry.resource, entry.id) in there
            assert entry.changed
    return there


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_journal_tells_exactly_what_became_of_the_world(seed):
    office = make_office(seed=seed)
    before = picture(office)
    office.advance(1.5 * DAY)
    after = picture(office)

    assert fold(set(before), office.journal.entries) == set(after)
    told = {(entry.resource, entry.id) for entry in office.journal.entries}
    assert {key for key in before.keys() & after.keys() if before[key] != after[key]} <= told


def test_an_edit_without_a_difference_is_no_change():
    office = make_office()
    customer = office.get("customers", 154600)

    assert office.edit("customers", 154600, name=customer["name"]) == ()
    paid = office.get("expenses", 234501)["amount_paid"]
    assert office.edit("expenses", 234501, amount_paid=paid.quantize(Decimal("0.0001"))) == ()
    assert office.journal.entries == []


def test_numbers_are_kept_exactly():
    office = make_office()
    office.edit("invoices", 14801, total=0.1)

    assert office.get("invoices", 14801)["total"] == Decimal("0.1")


def test_a_deletion_takes_the_children_along():
    office = make_office()
    office.delete("expenses", 234501)

    assert [(entry.resource, entry.kind, entry.parent) for entry in office.journal.entries] == [
        ("expense_taxes", "deleted", 234501),
        ("expenses", "deleted", None),
    ]


def test_a_soft_deletion_and_its_undoing_are_told_as_such():
    office = make_office()
    office.edit("invoices", 14801, status=1)
    start = len(office.journal.entries)
    office.soft_delete("invoices", 14801)
    office.edit("invoices", 14801, status=1)

    assert [(entry.kind, entry.soft) for entry in office.journal.entries[start:]] == [
        ("deleted", True),
        ("created", True),
    ]


def test_a_record_without_an_id_is_named_by_what_identifies_it():
    office = make_office()
    [tax] = office.ids("invoice_taxes", parent=14801)
    office.edit("invoice_taxes", tax, identification="R123")

    assert office.journal.entries[-1].id == (14801, 1, 411, "HST")


def test_a_deleted_record_can_come_back_under_its_id():
    office = make_office()
    office.delete("time_entries", 201505)
    office.create("time_entries", record_id=201505)

    assert [entry.kind for entry in office.journal.entries] == ["deleted", "created"]
    assert office.ids("time_entries")[4] == 201505


def test_changes_in_a_foreign_company_are_none_of_ours():
    office = make_office()
    foreign = office.ids("customers", company=2102)[0]
    office.edit("customers", foreign, city="Laval")
    office.delete("customers", foreign)

    assert office.journal.entries == []


@pytest.mark.parametrize(
    ("resource", "fields"), [("customers", {"mood": 1}), ("nothing", {}), ("invoices", {"Total": 1})]
)
def test_an_edit_of_what_does_not_exist_is_an_error(resource, fields):
    office = make_office()
    with pytest.raises(KeyError):
        office.edit(resource, 154600, **fields)


def test_the_journal_is_dated_by_the_servers_clock_and_written_line_by_line(tmp_path):
    clock = Clock(1234.5)
    office = make_office(clock=clock, journal_path=tmp_path / "journal.jsonl")
    office.create("customers")
    clock.now += 1
    office.edit("customers", 154600, city="Anywhere")
    office.journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]

    assert [(line["n"], line["at"], line["kind"]) for line in lines] == [(1, 1234.5, "created"), (2, 1235.5, "updated")]
    assert lines[1]["changed"] == ["city"]


def test_a_reader_over_http_sees_what_life_left():
    with sandbox() as (server, http):
        server.office.advance(2 * DAY)

        for name in ("customers", "projects", "time_entries", "invoices", "expenses", "timers"):
            assert [row["id"] for row in every(http, name, name)] == server.office.ids(name)


@pytest.mark.parametrize("companies", [1, 2])
def test_an_office_that_begins_with_next_to_nothing_lives_on(companies):
    bare = Size(
        companies=companies, members=1, customers=1, projects=1, time_entries=0, invoices=0, expenses=0, timers=0
    )
    office = make_office(size=bare)

    assert office.advance(5 * DAY) > 100
