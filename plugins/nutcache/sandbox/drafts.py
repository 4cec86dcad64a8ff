"""Realistic values for new records of the sandbox's office."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from plugins.nutcache.sandbox.world import Record, World

OFFSET = -5 * 3600  # the office's time zone, in seconds from UTC

FIRST = "Ana Ben Carla Dev Elif Finn Grace Hugo Ines Jonas Kira Liam Maya Noah Olga Pavel Quinn Rosa Sven Tara".split()  # noqa: SIM905
LAST = "Roy Stone Tremblay Novak Okafor Lindqvist Costa Weber Moreau Singh Haddad Kowalski Fraser Ito Bauer".split()  # noqa: SIM905
_WORDS = "Bluebird Maple Northwind Harbor Granite Cedar Lumen Orchard Pilot Quarry Ridge Saffron Tundra Violet Willow"
_FORMS = ("Ltd", "Inc.", "& Sons", "Studio", "Group", "GmbH", "Coopérative")
_STREETS = ("Quay St", "Main St", "Elm Ave", "King St W", "Rue Saint-Denis", "Station Rd", "Mill Lane")
_CITIES = (("Halifax", "B3H 1A1"), ("Laval", "H7T 2Y5"), ("Toronto", "M5V 2T6"), ("Boston", "02108"), ("Köln", "50667"))
_WORK = ("Website refresh", "Brand book", "Mobile app", "Annual report", "Data migration", "Intranet", "Campaign")
SERVICES = ("Design", "Development", "Consulting", "Testing", "Project management", "Copywriting")
NOTES = (
    "Wireframes",
    "Call with the customer",
    "Fixed the export",
    "Review & tests",
    "Second draft",
    "Meeting – notes in the wiki",
    "Deployed to staging",
    None,
    "Bug 4711: totals off by a cent",
    "Trav. préparatoires",
    "A &amp; B variants",
)
_SPENDING = ("Fonts", "Train to Ottawa", "Hosting", "Stock photos", "Hotel", "Lunch with the customer", "Licences")
_COLORS = ("#3f51b5", "#00897b", "#e53935", "#fb8c00", "#8e24aa", "#546e7a")
TAX_RATE = Decimal("0.150000")
CENT = Decimal("0.01")


def local_day(at: float) -> date:
    """The office's calendar day at an instant."""
    return datetime.fromtimestamp(at + OFFSET, UTC).date()


def day_text(day: date) -> str:
    return day.isoformat()


def person(world: World) -> tuple[str, str]:
    """A name and a mail address."""
    first, last = world.random.choice(FIRST), world.random.choice(LAST)
    return f"{first} {last}", f"{first}.{last}@people.example".lower()


def customer(world: World, company: int) -> dict[str, Any]:
    pick = world.random
    city, code = pick.choice(_CITIES)
    name = f"{pick.choice(_WORDS.split())} {pick.choice(_FORMS)}"
    contact, mail = person(world)
    return {
        world.profile.company_field: company,
        "name": name,
        "status": 0,
        "email": mail,
        "contact": contact,
        "address": f"{pick.randint(1, 400)} {pick.choice(_STREETS)}",
        "city": city,
        "zip_code": code,
        "phone": f"902-555-{pick.randint(100, 9999):04}",
        "country": 40,
        "communication_culture_code": pick.choice(("en-CA", "fr-CA", "en-US")),
        "tax": pick.choice(world.ids("taxes", company) or [None]),
        "currency": 25,
    }


def project(world: World, company: int) -> dict[str, Any]:
    pick = world.random
    customers = world.ids("customers", company)
    started = local_day(world.now) - timedelta(days=pick.randint(0, 60))
    hourly = pick.choice((0, Decimal("85"), Decimal("112.5")))
    return {
        world.profile.company_field: company,
        "code": f"{pick.choice(_WORK)} {len(world.tables['projects']) + 1}",
        "display_color": pick.choice(_COLORS),
        "status": pick.choice((0, 1, 1, 1)),
        "project_type": pick.choice((0, 0, 1)),
        "description": pick.choice(("New public site", "As agreed in the kick-off", None)),
        "start_date": day_text(started),
        "budget_scope": 0,
        "budget_type": 0,
        "effectivebudgetamount": Decimal(0),
        "effectivebudgetminutes": pick.choice((0, 2400, 6000)),
        "budget_approved_only": False,
        "budget_restrictive": False,
        "billing_method": 4 if hourly else 0,
        "billing_invoice_method_fixed_fee": Decimal(0),
        "billing_invoice_method_hourly_rate": Decimal(hourly),
        "billing_approved_entries_only": False,
        "customer": pick.choice(customers) if customers else None,
    }


def project_member(world: World, project: Record) -> dict[str, Any]:
    """A membership of a person who is not in the project yet, if there is one."""
    taken = {row["member"] for row in world.rows("project_members", project.id)}
    people = list(world.rows("members", project.company))
    member = world.random.choice([row for row in people if row.id not in taken] or people)
    return {
        "project": project.id,
        "member": member.id,
        "name": member["name"],
        "email": member["email"],
        "display_color": world.random.choice(_COLORS),
        "status": 1,
        "budget_amount": Decimal(0),
        "budget_minutes": 0,
    }


def project_service(world: World, project: Record) -> dict[str, Any]:
    order = len(world.ids("project_services", project.id))
    return {
        "project": project.id,
        "description": SERVICES[order % len(SERVICES)],
        "order": order,
        "status": 0,
        "billing_rate": world.random.choice((Decimal(90), Decimal("112.5"), None)),
        "budget_amount": Decimal(0),
        "budget_minutes": 0,
        "item": world.random.choice(world.ids("items", project.company) or [None]),
    }


def time_entry(world: World, project: Record) -> dict[str, Any]:
    pick = world.random
    members = world.ids("project_members", project.id)
    services = world.ids("project_services", project.id)
    member = world.tables["project_members"][pick.choice(members)]["member"] if members else None
    minutes = 15 * pick.randint(1, 24)
    company = world.tables[world.profile.companies][project.company]
    by_the_clock = company["time_tracking_type"] == 1
    return {
        "project": project.id,
        "project_service": pick.choice(services) if services else None,
        "member": member,
        "working_date": day_text(local_day(world.now)),
        "minutes": minutes,
        "billable_minutes": minutes if project["billing_method"] else 0,
        "start_time": math.floor(world.now) - 60.0 * minutes if by_the_clock else None,
        "end_time": float(math.floor(world.now)) if by_the_clock else None,
        "note": pick.choice(NOTES),
        "creation_date": _milliseconds(world.now),
        "creation_userprofile": member,
    }


def timer(world: World, project: Record) -> dict[str, Any]:
    entry = time_entry(world, project)
    wall = math.floor((world.now + OFFSET) / 60) * 60
    midnight = math.floor((world.now + OFFSET) / 86400 + 1) * 86400 - OFFSET
    return {
        "guid": str(uuid.UUID(int=world.random.getrandbits(128), version=4)),
        "member": entry["member"],
        "project": project.id,
        "project_service": entry["project_service"],
        "status": 0,
        "minutes": 0,
        "time_start_utc": _milliseconds(world.now),
        "time_start_local": float(wall),
        "max_end_time_utc": float(midnight + 4),
        "email_reminder_sent": False,
    }


def invoice(world: World, customer: Record) -> dict[str, Any]:
    """A draft without lines, so without amounts."""
    issued = local_day(world.now)
    country = world.get("countries", customer["country"])
    return {
        world.profile.company_field: customer.company,
        "customer": customer.id,
        "invoice_number": f"{len(world.ids('invoices', customer.company)) + 1:04}",
        "customer_name": customer["name"],
        "customer_address": customer["address"],
        "customer_city": customer["city"],
        "customer_contact": customer["contact"],
        "customer_country": country["name_enus"] if country else None,
        "customer_email": customer["email"],
        "customer_phone": customer["phone"],
        "customer_postal_zip_code": customer["zip_code"],
        "invoice_date": day_text(issued),
        "due_date": day_text(issued + timedelta(days=30)),
        "responsible": world.random.choice(world.ids("members", customer.company) or [None]),
        "status": 0,
        "terms": world.random.choice((None, "Net 30", "Payable à 30 jours")),
        "total_amount_before_taxes": Decimal(0),
        "taxes_amount": Decimal(0),
        "total": Decimal(0),
        "paid_to_date": Decimal(0),
        "balance": Decimal(0),
    }


def expense(world: World, project: Record) -> dict[str, Any]:
    pick = world.random
    before = Decimal(pick.randint(500, 90000)) / 100
    taxes = (before * TAX_RATE).quantize(CENT)
    spent = local_day(world.now)
    members = world.ids("members", project.company)
    return {
        world.profile.company_field: project.company,
        "expense_number": f"{len(world.ids('expenses', project.company)) + 1:04}",
        "description": pick.choice(_SPENDING),
        "expense_date": day_text(spent),
        "due_date": day_text(spent + timedelta(days=25)),
        "project": project.id,
        "member": pick.choice(members) if members else None,
        "billable": pick.random() < 0.7,
        "status": 0,
        "amount_before_taxes": before,
        "taxes_amount": taxes,
        "amount_after_taxes": before + taxes,
        "amount_paid": Decimal(0),
        "amount_due": before + taxes,
    }


def invoice_detail(world: World, invoice: Record, *, project: Record | None = None) -> dict[str, Any]:
    pick = world.random
    quantity = Decimal(pick.randint(1, 40)) / 4
    price = Decimal(pick.choice((45, 85, 90, 112.5, 140)))
    return {
        "invoice": invoice.id,
        "description": pick.choice(SERVICES) if project else pick.choice(_SPENDING),
        "quantity": quantity,
        "price": price,
        "total_price": (quantity * price).quantize(CENT),
        "invoice_detail_type": 1 if project else 0,
        "item": pick.choice(world.ids("items", invoice.company) or [None]),
        "tax": pick.choice(world.ids("taxes", invoice.company) or [None]),
        "project": project.id if project else None,
    }


def _milliseconds(at: float) -> float:
    return round(at, 3)


def _any(world: World, resource: str, company: int) -> Record:
    ids = world.ids(resource, company)
    if not ids:
        raise LookupError(f"the office has no {resource} yet")
    return world.tables[resource][world.random.choice(ids)]


def _parent(draft: Callable[..., dict[str, Any]], resource: str, field: str) -> Callable[..., dict[str, Any]]:
    def fill(world: World, company: int, given: Mapping[str, Any]) -> dict[str, Any]:
        parent = world.get(resource, given.get(field)) or _any(world, resource, company)
        return draft(world, parent)

    return fill


def _alone(draft: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def fill(world: World, company: int, _: Mapping[str, Any]) -> dict[str, Any]:
        return draft(world, company)

    return fill


_DRAFTS: Mapping[str, Callable[[World, int, Mapping[str, Any]], dict[str, Any]]] = {
    "customers": _alone(customer),
    "projects": _alone(project),
    "project_members": _parent(project_member, "projects", "project"),
    "project_services": _parent(project_service, "projects", "project"),
    "time_entries": _parent(time_entry, "projects", "project"),
    "timers": _parent(timer, "projects", "project"),
    "invoices": _parent(invoice, "customers", "customer"),
    "invoice_details": _parent(invoice_detail, "invoices", "invoice"),
    "expenses": _parent(expense, "projects", "project"),
}


def draft(world: World, resource: str, company: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a new record; those in `given` are used as they are."""
    fill = _DRAFTS.get(resource)
    return {**(fill(world, company, given) if fill else {}), **given}
