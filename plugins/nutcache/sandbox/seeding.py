"""The initial records of the office: they belong together, and have a past."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal

from plugins.nutcache.sandbox import acts, drafts, geography
from plugins.nutcache.sandbox.world import Record, World

COMPANY_GUID = "5f0c1d2e-77aa-4b1c-9d3e-0a1b2c3d4e5f"
FOREIGN_GUID = "99999999-0000-4000-8000-000000000001"
DAY = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The number of initial records. There is one more company, which the user does not belong to."""

    companies: int = 1
    members: int = 9
    customers: int = 40
    projects: int = 60
    time_entries: int = 900
    invoices: int = 150
    expenses: int = 200
    timers: int = 3


def seed(world: World, size: Size) -> None:
    """Fill an empty world. The office's clock shows the same time afterwards."""
    geography.settle(world)
    now = world.now
    world.visible = [2101 + number for number in range(size.companies)]
    for number, company in enumerate(world.visible):
        _found(world, company, guid=COMPANY_GUID if number == 0 else str(_guid(world)), name=_NAMES[number % 3])
        _furnish(world, company, size)
    foreign = 2101 + size.companies
    _found(world, foreign, guid=FOREIGN_GUID, name="Somebody else")
    _furnish(world, foreign, Size(customers=2, projects=2, time_entries=5, invoices=2, expenses=2, timers=0))
    world.now = now


_NAMES = ("Maple Works", "Maple Works Europe", "Maple Lab")


def _guid(world: World) -> uuid.UUID:
    return uuid.UUID(int=world.random.getrandbits(128), version=4)


def _found(world: World, company: int, *, guid: str, name: str) -> None:
    values = {
        "guid": guid,
        "name": name,
        "email": "office@maple.example",
        "city": "Laval",
        "country": 40,
        "state": 63,
        "currency": 25,
        "logo_url": "",
        "last_activity_date": world.now,
        "notification_count": 3,
        "active_user_count": 4,
        "is_owner": True,
        "is_demo": False,
        "status": 0,
        "date_format": 0,
        "time_format": 0,
        "time_span_format": 1,
        "time_rounding": 0,
        "time_rounding_minutes": 0,
        "time_tracking_type": 0,
    }
    world.add(world.profile.companies, values, record_id=company)


def _furnish(world: World, company: int, size: Size) -> None:
    own = {world.profile.company_field: company}
    for code, rate in (("HST", drafts.TAX_RATE), ("GST", Decimal("0.05"))):
        world.add("taxes", {**own, "code": code, "rate": rate})
    for name in drafts.SERVICES:
        world.add("items", {**own, "name": name})
    for _ in range(size.members):
        name, mail = drafts.person(world)
        world.add("members", {**own, "name": name, "email": mail})
    now = world.now
    for _ in range(size.customers):
        world.add("customers", drafts.customer(world, company))
    for _ in range(size.projects):
        project = world.add("projects", drafts.project(world, company))
        for _ in acts.staff(world, project):
            pass
    _work(world, company, size.time_entries, until=now)
    _bill(world, company, size.invoices, until=now)
    _spend(world, company, size.expenses, until=now)
    for _ in range(size.timers if size.projects else 0):
        world.now = now - world.random.uniform(60, 3 * 3600)
        world.add("timers", drafts.timer(world, _pick(world, "projects", company)))
    world.now = now


def _pick(world: World, resource: str, company: int) -> Record:
    return world.tables[resource][world.random.choice(world.ids(resource, company))]


def _work(world: World, company: int, count: int, *, until: float) -> None:
    """Time entries of the past: about forty a day, at least a month long."""
    span = max(30.0, count / 40) * DAY
    for number in range(count):
        world.now = until - span * (1 - number / count)
        world.add("time_entries", drafts.time_entry(world, _pick(world, "projects", company)))


def _bill(world: World, company: int, count: int, *, until: float) -> None:
    """Invoices of the last half year, most of them sent and paid; each with a few of its project's time entries."""
    entries: dict[int, list[Record]] = {}
    for entry in world.rows("time_entries", company):
        entries.setdefault(entry["project"], []).append(entry)
    for number in range(count):
        world.now = until - 180 * DAY * (1 - number / count)
        project = _pick(world, "projects", company)
        customer = world.get("customers", project["customer"]) or _pick(world, "customers", company)
        invoice = acts.write_invoice(world, customer, project)
        for _ in range(min(2, len(entries.get(project.id, ())))):
            world.change(entries[project.id].pop(0), invoice=invoice.id)
        _age(world, invoice, number / count)


def _age(world: World, invoice: Record, age: float) -> None:
    """Advance older invoices: sent, seen, paid."""
    luck = world.random.random()
    if luck < 0.03:
        world.change(invoice, status=world.random.choice((5, 6, 7)))
    elif luck > age:
        acts.pay(world, invoice, in_full=world.random.random() < 0.9)
    elif luck < 0.8:
        world.change(invoice, status=world.random.choice((1, 2)))


def _spend(world: World, company: int, count: int, *, until: float) -> None:
    for number in range(count):
        world.now = until - 120 * DAY * (1 - number / count)
        expense = acts.write_expense(world, _pick(world, "projects", company))
        if world.random.random() < 0.7:
            due = expense["amount_due"]
            world.change(expense, amount_paid=due, amount_due=Decimal(0), status=2)
        elif world.random.random() < 0.05:
            world.change(expense, status=3)
