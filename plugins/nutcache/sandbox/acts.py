"""Acts of the people in the sandbox's office. An act is a generator that pauses after each visible change.

Changes that belong together (a payment changes three fields, billing marks the time entries) happen without a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import TypeVar

from plugins.nutcache.sandbox import drafts
from plugins.nutcache.sandbox.world import Record, World

T = TypeVar("T")
Act = Callable[[World, int], Iterator[None]]
RECENT = 200  # records that count as recent
OLD = 0.05  # share of acts that may concern an older record


def some(world: World, resource: str, scope: int, where: Callable[[Record], bool] | None = None) -> Record | None:
    """A matching record, usually a recent one; None if there is none."""
    ids = world.ids(resource, scope)
    begin = max(0, len(ids) - RECENT)
    if world.random.random() < OLD:
        begin = world.random.randint(0, begin)
    ids = ids[begin : begin + RECENT]
    fitting = list(filter(where, map(world.tables[resource].__getitem__, ids)))
    return world.random.choice(fitting) if fitting else None


def _running(project: Record) -> bool:
    return project["status"] in (0, 1)


def _unbilled(entry: Record) -> bool:
    return entry["invoice"] is None


# Time


def log_time(world: World, company: int) -> Iterator[None]:
    project = some(world, "projects", company, _running)
    if project:
        world.add("time_entries", drafts.time_entry(world, project))
        yield


def fill_in_the_week(world: World, company: int) -> Iterator[None]:
    """Somebody enters the time of several days at once."""
    project = some(world, "projects", company, _running)
    if project is None:
        return
    entry = drafts.time_entry(world, project)
    today = date.fromisoformat(entry["working_date"])
    for back in range(world.random.randint(3, 5), 0, -1):
        fresh = drafts.time_entry(world, project)
        fresh |= {"member": entry["member"], "working_date": drafts.day_text(today - timedelta(days=back))}
        world.add("time_entries", fresh)
        yield


def correct_time(world: World, company: int) -> Iterator[None]:
    entry = some(world, "time_entries", company, _unbilled)
    if entry:
        _correct(world, entry)
        yield


def tidy_up_time(world: World, company: int) -> Iterator[None]:
    """A burst: somebody corrects recent time entries."""
    for _ in range(world.random.randint(3, 8)):
        entry = some(world, "time_entries", company, _unbilled)
        if entry is None:
            return
        _correct(world, entry)
        yield


def _correct(world: World, entry: Record) -> None:
    if world.random.random() < 0.5:
        world.change(entry, note=_another(world, drafts.NOTES, entry["note"]))
        return
    minutes = entry["minutes"] + 15 * world.random.choice((1, 2, 3)) if entry["minutes"] < 600 else 15
    world.change(entry, minutes=minutes, billable_minutes=minutes if entry["billable_minutes"] else 0)


def strike_time(world: World, company: int) -> Iterator[None]:
    entry = some(world, "time_entries", company, _unbilled)
    if entry:
        world.remove(entry)
        yield


def start_timer(world: World, company: int) -> Iterator[None]:
    project = some(world, "projects", company, _running)
    if project:
        world.add("timers", drafts.timer(world, project))
        yield


def stop_timer(world: World, company: int) -> Iterator[None]:
    """A timer is stopped, which writes a time entry; the stopped timer is deleted a little later."""
    timer = some(world, "timers", company, lambda row: row["status"] == 0)
    if timer is None:
        return
    minutes = max(1, int((world.now - timer["time_start_utc"]) / 60))
    world.change(timer, status=1, minutes=minutes)
    project = world.get("projects", timer["project"])
    if project:
        entry = drafts.time_entry(world, project)
        entry |= {"member": timer["member"], "project_service": timer["project_service"], "minutes": minutes}
        world.add("time_entries", entry)
    yield
    world.remove(timer)
    yield


# Customers and projects


def win_customer(world: World, company: int) -> Iterator[None]:
    customer = world.add("customers", drafts.customer(world, company))
    yield
    yield from _open_project(world, company, customer)


def edit_customer(world: World, company: int) -> Iterator[None]:
    customer = some(world, "customers", company)
    if customer is None:
        return
    fresh = drafts.customer(world, company)
    what = world.random.choice((("phone",), ("address", "city", "zip_code"), ("contact", "email"), ("name",)))
    world.change(customer, **{name: fresh[name] for name in what})
    yield


def rest_customer(world: World, company: int) -> Iterator[None]:
    customer = some(world, "customers", company)
    if customer:
        world.change(customer, status=1 - customer["status"])
        yield


def drop_customer(world: World, company: int) -> Iterator[None]:
    """A customer that was entered twice is deleted."""
    twin = world.add("customers", drafts.customer(world, company))
    yield
    world.remove(twin)
    yield


def open_project(world: World, company: int) -> Iterator[None]:
    yield from _open_project(world, company, some(world, "customers", company))


def _open_project(world: World, company: int, customer: Record | None) -> Iterator[None]:
    if customer is None:
        return
    project = world.add("projects", {**drafts.project(world, company), "customer": customer.id})
    yield
    yield from staff(world, project)


def staff(world: World, project: Record) -> Iterator[None]:
    """Members and services for a new project."""
    for _ in range(world.random.randint(1, 3)):
        world.add("project_members", drafts.project_member(world, project))
        yield
    for _ in range(world.random.randint(1, 3)):
        world.add("project_services", drafts.project_service(world, project))
        yield


def steer_project(world: World, company: int) -> Iterator[None]:
    project = some(world, "projects", company)
    if project is None:
        return
    pick = world.random
    match pick.randrange(4):
        case 0:
            world.change(project, status=_another(world, (0, 1, 1, 2, 3, 4), project["status"]))
        case 1:
            world.change(project, effectivebudgetminutes=project["effectivebudgetminutes"] + 600)
        case 2:
            world.change(project, description=f"Agreed on {drafts.day_text(drafts.local_day(world.now))}")
        case _:
            end = drafts.local_day(world.now) + timedelta(days=pick.randint(5, 90))
            world.change(project, end_date=drafts.day_text(end))
    yield


def restaff(world: World, company: int) -> Iterator[None]:
    """Somebody joins a project, is set inactive in it or leaves it; a service gets another price."""
    project = some(world, "projects", company, _running)
    if project is None:
        return
    member = some(world, "project_members", project.id)
    service = some(world, "project_services", project.id)
    match world.random.randrange(4):
        case 0 if member:
            world.change(member, status=1 - member["status"])
        case 1 if service:
            world.change(service, billing_rate=Decimal(world.random.randint(40, 160)))
        case 2 if member and len(world.ids("project_members", project.id)) > 1:
            world.remove(member)
        case _:
            world.add("project_members", drafts.project_member(world, project))
    yield


# Invoices


def bill(world: World, company: int) -> Iterator[None]:
    """An invoice for a project's unbilled time. Its entries are marked as billed."""
    entry = some(world, "time_entries", company, lambda row: _unbilled(row) and row["billable_minutes"] > 0)
    project = world.get("projects", entry["project"]) if entry else None
    customer = world.get("customers", project["customer"]) if project else None
    if entry is None or project is None or customer is None:
        return
    invoice = write_invoice(world, customer, project)
    entries = [
        row
        for row in map(world.tables["time_entries"].__getitem__, world.ids("time_entries", company)[-RECENT:])
        if row["project"] == project.id and _unbilled(row)
    ]
    for row in entries[:8]:
        world.change(row, invoice=invoice.id)
    yield


def write_invoice(world: World, customer: Record, project: Record | None, *, lines: int | None = None) -> Record:
    """A draft with lines, tax and correct totals."""
    values = drafts.invoice(world, customer)
    invoice = world.add("invoices", values)
    for _ in range(lines or world.random.randint(1, 3)):
        world.add("invoice_details", drafts.invoice_detail(world, invoice, project=project))
    tax = world.get("taxes", next(iter(world.ids("taxes", customer.company)), None))
    if tax:
        world.add(
            "invoice_taxes",
            {
                "invoice": invoice.id,
                "tax": tax.id,
                "code": tax["code"],
                "compound": False,
                "rate": drafts.TAX_RATE,
                "sequence_number": 1,
                "total": Decimal(0),
            },
        )
    total_up(world, invoice, fresh=True)
    return invoice


def total_up(world: World, invoice: Record, *, fresh: bool = False) -> None:
    """Compute taxes, totals and balance from the lines; for a new invoice this is not a separate change."""
    put = world.touch if fresh else world.change
    before = sum((row["total_price"] for row in world.rows("invoice_details", invoice.id)), Decimal(0))
    taxes = Decimal(0)
    for row in world.rows("invoice_taxes", invoice.id):
        amount = (before * row["rate"]).quantize(drafts.CENT)
        put(row, total=amount)
        taxes += amount
    total = before + taxes
    put(
        invoice,
        total_amount_before_taxes=before,
        taxes_amount=taxes,
        total=total,
        balance=total - invoice["paid_to_date"],
    )


def send_invoice(world: World, company: int) -> Iterator[None]:
    invoice = some(world, "invoices", company, lambda row: row["status"] == 0)
    if invoice:
        world.change(invoice, status=1)
        yield
        if world.random.random() < 0.6 and invoice["status"] == 1:
            world.change(invoice, status=2)  # the customer opened it
            yield


def receive_payment(world: World, company: int) -> Iterator[None]:
    invoice = some(world, "invoices", company, lambda row: row["status"] in (1, 2, 3) and row["balance"] > 0)
    if invoice:
        pay(world, invoice, in_full=world.random.random() < 0.7)
        yield


def pay(world: World, invoice: Record, *, in_full: bool) -> None:
    """A payment changes the invoice's balance, paid amount and status together."""
    amount = invoice["balance"] if in_full else (invoice["balance"] / 2).quantize(drafts.CENT)
    balance = invoice["balance"] - amount
    world.change(
        invoice, paid_to_date=invoice["paid_to_date"] + amount, balance=balance, status=3 if balance > 0 else 4
    )


def edit_line(world: World, company: int) -> Iterator[None]:
    """Edit a line: a new description changes only the line, a new quantity also the totals."""
    invoice = some(world, "invoices", company, lambda row: row["status"] == 0)
    line = some(world, "invoice_details", invoice.id) if invoice else None
    if invoice is None or line is None:
        return
    if world.random.random() < 0.5:
        world.change(line, description=f"{world.random.choice(drafts.SERVICES)}, phase {world.random.randint(1, 9)}")
    else:
        quantity = line["quantity"] + 1
        world.change(line, quantity=quantity, total_price=(quantity * line["price"]).quantize(drafts.CENT))
        total_up(world, invoice)
    yield


def dispute_or_void(world: World, company: int) -> Iterator[None]:
    invoice = some(world, "invoices", company, lambda row: row["status"] in (1, 2, 5))
    if invoice:
        world.change(invoice, status=6 if invoice["status"] == 5 else 5)
        yield


def bin_invoice(world: World, company: int) -> Iterator[None]:
    """A soft deletion: status 7. Its time entries become unbilled again."""
    invoice = some(world, "invoices", company, lambda row: row["status"] in (0, 6))
    if invoice is None:
        return
    world.change(invoice, status=7)
    for entry in map(world.tables["time_entries"].__getitem__, world.ids("time_entries", company)[-RECENT:]):
        if entry["invoice"] == invoice.id:
            world.change(entry, invoice=None)
    yield


# Expenses


def spend(world: World, company: int) -> Iterator[None]:
    project = some(world, "projects", company, _running)
    if project:
        write_expense(world, project)
        yield


def write_expense(world: World, project: Record) -> Record:
    """An expense with its tax."""
    expense = world.add("expenses", drafts.expense(world, project))
    values = {"expense": expense.id, "tax_amount": expense["taxes_amount"], "tax_code": "HST"}
    world.add("expense_taxes", values)
    return expense


def pay_expense(world: World, company: int) -> Iterator[None]:
    expense = some(world, "expenses", company, lambda row: row["status"] in (0, 1))
    if expense:
        due = expense["amount_due"]
        amount = due if world.random.random() < 0.7 else (due / 2).quantize(drafts.CENT)
        left = due - amount
        world.change(expense, amount_paid=expense["amount_paid"] + amount, amount_due=left, status=1 if left > 0 else 2)
        yield


def reword_expense(world: World, company: int) -> Iterator[None]:
    expense = some(world, "expenses", company, lambda row: row["status"] != 3)
    if expense:
        fresh = drafts.day_text(drafts.local_day(world.now) + timedelta(days=world.random.randint(5, 40)))
        world.change(expense, due_date=fresh, billable=not expense["billable"])
        yield


def bin_expense(world: World, company: int) -> Iterator[None]:
    """A soft deletion: status 3."""
    expense = some(world, "expenses", company, lambda row: row["status"] == 0)
    if expense:
        world.change(expense, status=3)
        yield


def _another(world: World, choices: tuple[T, ...], now: T) -> T:
    return world.random.choice([choice for choice in choices if choice != now])


# How often each act happens, relative to the others.
ACTS: tuple[tuple[int, Act], ...] = (
    (30, log_time),
    (3, fill_in_the_week),
    (12, correct_time),
    (3, tidy_up_time),
    (5, strike_time),
    (6, start_timer),
    (6, stop_timer),
    (1, win_customer),
    (5, edit_customer),
    (1, rest_customer),
    (1, drop_customer),
    (1, open_project),
    (7, steer_project),
    (3, restaff),
    (3, bill),
    (5, send_invoice),
    (5, receive_payment),
    (3, edit_line),
    (1, dispute_or_void),
    (1, bin_invoice),
    (5, spend),
    (3, pay_expense),
    (2, reword_expense),
    (1, bin_expense),
)
