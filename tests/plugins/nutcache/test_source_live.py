from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec
import pytest

from plugins.nutcache.profiles import PROFILES
from plugins.nutcache.sandbox.admission import ACCESS_TOKEN, API_KEY, PASSWORD, USERNAME
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import COMPANY_GUID, Size
from plugins.nutcache.sandbox.server import Server, serving
from plugins.nutcache.sandbox.variants import choices, parse_variants
from plugins.nutcache.source import NutcacheOptions, NutcacheSource
from poller import Endpoint, Limit, PageError, Position
from poller.sources.paths import identity

SIZE = Size(customers=6, projects=5, time_entries=230, invoices=8, expenses=6, timers=2)
LOOSE = (Limit(1_000_000, 1.0),)
LOGIN = {"username": USERNAME, "password": PASSWORD, "api_key": API_KEY}

Objects = Mapping[str, Any]
Lists = Mapping[str, Mapping[str, Objects]]  # by endpoint and id


@dataclass
class Reader:
    """A source and the sandbox that it reads."""

    source: NutcacheSource
    client: httpx.AsyncClient
    server: Server

    def endpoint(self, name: str) -> Endpoint:
        return next(known for known in self.source.endpoints() if known.name == name)

    async def ask(self, request: httpx.Request) -> httpx.Response:
        return await self.client.send(request, auth=self.source.auth)

    async def discover(self) -> None:
        flow = self.source.discover()
        try:
            request = next(flow)
            while True:
                request = flow.send(await self.ask(request))
        except StopIteration:
            return

    async def list(self, name: str, parent: Objects | None = None) -> dict[str, Objects]:
        """Every object of one list, as it is compared: without ignored and excluded fields."""
        endpoint = self.endpoint(name)
        identify = identity(endpoint.id)
        hidden = {pointer[1:] for pointer in (*endpoint.ignore, *endpoint.exclude)}
        found: dict[str, Objects] = {}
        at: Position | None = replace(endpoint.first, parent=parent)
        while at is not None:
            response = await self.ask(self.source.request(endpoint, at))
            assert response.status_code == 200, response.text
            page = self.source.page(endpoint, at, response)
            for item in page.objects:
                record = endpoint.normalise(msgspec.json.decode(item))
                found[identify(record)] = {key: value for key, value in record.items() if key not in hidden}
            at = page.next
        return found

    async def everything(self) -> Lists:
        """Every list, those per parent under one name."""
        lists: dict[str, dict[str, Objects]] = {}
        for endpoint in self.source.endpoints():
            lists[endpoint.name] = {}
            parents = [None] if endpoint.parent is None else lists[endpoint.parent].values()
            for parent in parents:
                lists[endpoint.name] |= await self.list(endpoint.name, parent)
        return lists


@asynccontextmanager
async def reading(
    *variants: str, profile: str = "v4", options: Mapping[str, Any] | None = None, size: Size = SIZE
) -> AsyncIterator[Reader]:
    settings = Settings(limits=LOOSE, size=size, profile=PROFILES[profile], variants=parse_variants(variants))
    async with serving(settings) as server, httpx.AsyncClient(trust_env=False) as client:
        table = {"server": server.url, "profile": profile, "access_token": ACCESS_TOKEN, **(options or {})}
        given = {key: value for key, value in table.items() if value is not None}
        reader = Reader(NutcacheSource("acme", NutcacheOptions.model_validate(given)), client, server)
        await reader.discover()
        yield reader


async def strict(profile: str = "v4") -> Lists:
    async with reading(profile=profile) as reader:
        return await reader.everything()


@pytest.mark.parametrize("profile", list(PROFILES))
async def test_every_record_of_every_list_is_shown_once(profile):
    async with reading(profile=profile) as reader:
        lists = await reader.everything()

        calls = reader.server.sandbox.calls()
        for name, resource in PROFILES[profile].resources.items():
            table = reader.server.office.world.tables[name]
            visible = [record for record in table.values() if record.company in (0, reader.server.office.company)]
            assert len(lists[name]) == len(visible), name
            told = set(resource.fields) - set(resource.volatile)
            assert all(told <= record.keys() for record in lists[name].values())
    assert set(calls["statuses"]) == {"200"}
    assert len(lists["time_entries"]) == SIZE.time_entries > 200


async def test_both_profiles_show_the_same_but_for_their_words():
    words = {"company": "organization", "companies": "organizations"}

    def renamed(record: Objects) -> Objects:
        return {
            words.get(key, key): words.get(value, value) if key == "type" else value for key, value in record.items()
        }

    v4 = {words.get(name, name): rows for name, rows in (await strict("v4")).items()}

    assert {name: {i: renamed(o) for i, o in rows.items()} for name, rows in v4.items()} == await strict("v3")


SAME = [
    f"{name}={value}"
    for name, values in choices().items()
    for value in values[1:]
    if name not in ("order", "soft_deleted", "company_header", "hidden")
]


@pytest.mark.parametrize("variant", SAME)
async def test_the_same_is_shown_however_the_server_answers(variant):
    async with reading(variant) as reader:
        shown = await reader.everything()

    assert shown == await strict()


async def test_always_present_next_links_cost_one_empty_page_a_list():
    async with reading("last_link=always") as reader:
        await reader.list("time_entries")

        assert [call.query for call in reader.server.sandbox.log if call.path == "time_entries"] == [
            f"limit=100&page={n}" for n in (1, 2, 3, 4)
        ]


async def test_an_unstable_order_hides_nothing_for_long_and_changes_no_object():
    expected = (await strict())["time_entries"]
    seen: dict[str, Objects] = {}
    async with reading("order=unstable") as reader:
        for _ in range(20):
            seen |= await reader.list("time_entries")

    assert seen == expected


async def test_a_soft_deleted_record_is_listed_with_its_status_or_vanishes():
    async with reading() as reader:
        chosen = reader.server.office.ids("invoices")[0]
        reader.server.office.soft_delete("invoices", chosen)
        assert (await reader.list("invoices"))[str(chosen)]["status"] == 7

    async with reading("soft_deleted=vanished") as reader:
        reader.server.office.soft_delete("invoices", chosen)
        assert str(chosen) not in await reader.list("invoices")
        request = reader.source.item_request(reader.endpoint("invoices"), str(chosen))
        assert (await reader.ask(request)).status_code == 404


@pytest.mark.parametrize("form", ["null", "absent"])
async def test_a_field_that_the_user_may_not_see_is_null(form):
    async with reading(f"hidden={form}") as reader:
        reader.server.sandbox.hide("customers.phone")

        assert {record["phone"] for record in (await reader.list("customers")).values()} == {None}


@pytest.mark.parametrize("header", ["OrganizationGuid", "CompanyGuid"])
async def test_the_company_header_may_have_another_name(header):
    async with reading(f"company_header={header}", options={"company_header": header}) as reader:
        assert await reader.list("customers")


@pytest.mark.parametrize("company", [COMPANY_GUID, "{" + COMPANY_GUID.upper() + "}", "Maple Works", None])
async def test_a_company_is_found_by_guid_by_name_or_alone(company):
    async with reading() as reader:
        name = next(iter((await reader.list("companies")).values()))["name"]
    async with reading(options={"company": name if company == "Maple Works" else company}) as reader:
        assert await reader.list("customers")


async def test_several_companies_need_a_choice():
    with pytest.raises(PageError, match="several companies"):
        async with reading(size=replace(SIZE, companies=2)):
            pass


@pytest.mark.parametrize("unknown", ["404", "403"])
async def test_a_deleted_record_is_told_by_its_own_url(unknown):
    async with reading(f"unknown={unknown}") as reader:
        entry = reader.server.office.ids("time_entries")[0]
        request = reader.source.item_request(reader.endpoint("time_entries"), str(entry))
        assert (await reader.ask(request)).status_code == 200

        reader.server.office.delete("time_entries", entry)

        assert (await reader.ask(request)).status_code == int(unknown)


async def test_a_token_that_ends_in_the_middle_of_a_list_is_renewed_once():
    options = {"access_token": None, **LOGIN}
    async with reading(options=options) as reader:
        endpoint = reader.endpoint("time_entries")
        first = await reader.ask(reader.source.request(endpoint, endpoint.first))
        reader.server.sandbox.admission.expire_tokens()

        onward = reader.source.page(endpoint, endpoint.first, first).next
        second = await reader.ask(reader.source.request(endpoint, onward))

        assert second.status_code == 200
        assert reader.server.sandbox.admission.logins == 2


async def test_only_what_the_journal_names_changes_in_the_lists():
    async with reading() as reader:
        before = await reader.everything()
        while len(reader.server.journal.entries) < 60:
            reader.server.office.step()
        after = await reader.everything()
        touched = {(entry.resource, _text(entry.id)) for entry in reader.server.journal.entries}

    changed = {
        (name, key)
        for name in before
        for key in before[name].keys() | after[name].keys()
        if before[name].get(key) != after[name].get(key)
    }
    assert changed
    assert changed <= touched


def _text(record_id: int | tuple[Any, ...]) -> str:
    return ":".join(map(str, record_id)) if isinstance(record_id, tuple) else str(record_id)
