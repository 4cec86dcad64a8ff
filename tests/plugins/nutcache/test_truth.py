"""Whatever the server leaves open, the program tells what the office's journal says, and nothing else."""

from collections import Counter
from pathlib import Path

import pytest

from plugins.nutcache.profiles import PROFILES
from plugins.nutcache.sandbox.admission import ACCESS_TOKEN
from plugins.nutcache.sandbox.office import Office
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.server import Server, serving
from plugins.nutcache.sandbox.variants import choices, parse_variants
from poller import Limit
from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from tests.support.absence import believed_at_once

SIZE = Size(customers=3, projects=3, time_entries=12, invoices=4, expenses=4, timers=2)
VARIANTS = [f"{name}={value}" for name, values in choices().items() for value in values[1:]]
CONFIG = """
[budgets.acme]
limits = ["100000/s"]
[sources.acme]
plugin = "nutcache"
server = "{url}"
access_token = "{token}"
profile = "{profile}"
{more}
"""


def work(office: Office) -> None:
    """One change of each kind, of objects that no other call touches."""
    office.edit("customers", office.ids("customers")[0], city="Halifax")
    office.edit("projects", office.ids("projects")[0], description="Phase two")
    office.create("time_entries", note="late")
    office.delete("time_entries", office.ids("time_entries")[0])
    invoices, expenses = office.ids("invoices"), office.ids("expenses")
    office.edit("invoice_details", office.ids("invoice_details", parent=invoices[0])[0], description="reworded")
    office.soft_delete("invoices", invoices[-1])
    office.soft_delete("expenses", expenses[-1])


def journal_of(server: Server, *, without: str = "") -> Counter[tuple[str, str, str]]:
    told = Counter()
    for entry in server.journal.entries:
        key = ":".join(map(str, entry.id)) if isinstance(entry.id, tuple) else str(entry.id)
        if entry.kind != without or entry.soft:
            told[entry.resource, key, entry.kind] += 1
    return told


def told_by(app: App, server: Server) -> Counter[tuple[str, str, str]]:
    """What the log tells; the children of what was soft deleted go with it."""
    gone = {entry.id for entry in server.journal.entries if entry.soft}
    told = Counter()
    for event in app.store.log.read(limit=10_000):
        resource, *_, key = event.subject.split("/")
        parents = {event.data["object"].get("invoice"), event.data["object"].get("expense")}
        if resource in ("invoice_details", "invoice_taxes", "expense_taxes") and parents & gone:
            continue
        told[resource, key, event.type.rpartition(".")[2]] += 1
    return told


async def watched(folder: Path, profile: str, *variants: str) -> tuple[Counter, Counter]:
    settings = Settings(
        limits=(Limit(1_000_000, 1.0),), size=SIZE, profile=PROFILES[profile], variants=parse_variants(variants)
    )
    async with serving(settings) as server:
        header = [v for v in variants if v.startswith("company_header=")]
        more = f'company_header = "{header[0].partition("=")[2]}"' if header else ""
        file = folder / "poller.toml"
        file.write_text(CONFIG.format(url=server.url, token=ACCESS_TOKEN, profile=profile, more=more))
        plugins = load_plugins(lazily=True)
        async with open_app(believed_at_once(load(file, plugins)), plugins) as app:
            assert await sweep_once(app) == []
            work(server.office)
            for _ in range(3):
                assert await sweep_once(app) == []
            return told_by(app, server), journal_of(server, without="deleted" if "unknown=403" in variants else "")


@pytest.mark.parametrize("profile", list(PROFILES))
async def test_the_log_is_the_journal(profile, tmp_path):
    told, happened = await watched(tmp_path, profile)

    assert told == happened
    assert {kind for _, _, kind in told} == {"created", "updated", "deleted"}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_the_log_is_the_journal_however_the_server_answers(variant, tmp_path):
    told, happened = await watched(tmp_path, "v4", variant)

    assert told == happened
