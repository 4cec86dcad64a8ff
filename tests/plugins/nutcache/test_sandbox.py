"""The sandbox over HTTP: authentication, company, lists, forms of records, and a walk through everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from plugins.nutcache.profiles import PROFILES, V3, V4
from plugins.nutcache.sandbox.admission import ACCESS_TOKEN, API_KEY, PASSWORD, USERNAME
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import COMPANY_GUID, FOREIGN_GUID, Size
from plugins.nutcache.sandbox.server import Server, running, serving
from plugins.nutcache.sandbox.variants import choices, parse_variants
from poller import Limit

LOOSE = (Limit(1_000_000, 1.0),)
SMALL = Size(customers=12, projects=8, time_entries=130, invoices=15, expenses=12, timers=2)


class Clock:
    """A server's clock that moves when told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextmanager
def sandbox(*variants: str, **settings: Any) -> Iterator[tuple[Server, httpx.Client]]:
    """A running sandbox and a client that says all that is asked for."""
    full = Settings(**{"limits": LOOSE, "size": SMALL, "variants": parse_variants(variants), **settings})
    with running(full) as server, client(server) as http:
        yield server, http


def client(server: Server, **headers: str) -> httpx.Client:
    profile = server.sandbox.profile
    usual = {
        "Authorization": f"{profile.scheme} {ACCESS_TOKEN}",
        "api-version": profile.api_version,
        profile.company_header: COMPANY_GUID,
    }
    return httpx.Client(base_url=server.url + "/", headers={**usual, **headers}, trust_env=False, verify=False)


def every(http: httpx.Client, path: str, name: str, limit: int = 100) -> list[dict[str, Any]]:
    """All records of a list, by its next links."""
    found: list[dict[str, Any]] = []
    href: str | None = f"{path}?limit={limit}"
    while href:
        answer = http.get(href)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found += body[name]
        href = next((link["href"] for link in body.get("links", ()) if link["rel"] == "navigation-next"), None)
    return found


LOGIN = {"grant_type": "password", "username": USERNAME, "password": PASSWORD, "api_key": API_KEY}


# Who may call


def test_a_login_gives_a_bearer_token_that_is_good_for_almost_a_fortnight():
    with sandbox() as (server, http):
        answer = http.post("token", data=LOGIN).json()

        assert (answer["token_type"], answer["expires_in"]) == ("bearer", 1209599)
        with client(server, Authorization=f"Bearer {answer['access_token']}") as other:
            assert other.get("customers").status_code == 200


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({**LOGIN, "password": "wrong"}, "invalid_grant"),
        ({**LOGIN, "api_key": "wrong"}, "invalid_grant"),
        ({**LOGIN, "grant_type": "refresh_token"}, "unsupported_grant_type"),
    ],
)
def test_a_wrong_login_gets_the_usual_oauth_error(form, error):
    with sandbox() as (_, http):
        answer = http.post("token", data=form)

        assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_a_login_that_is_not_a_form_is_refused():
    with sandbox() as (_, http):
        assert http.post("token", json=LOGIN).json() == {"error": "invalid_request"}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nonsense", f"nut-basic {ACCESS_TOKEN}", ACCESS_TOKEN])
def test_without_a_known_token_the_answer_is_401(header):
    with sandbox() as (_, http):
        answer = http.get("customers", headers={"Authorization": header})

        assert (answer.status_code, answer.json()) == (401, {"message": "Authorization is missing or wrong."})


def test_the_scheme_word_has_no_case():
    with sandbox() as (_, http):
        assert http.get("customers", headers={"Authorization": f"bEARER {ACCESS_TOKEN}"}).status_code == 200


def test_a_token_expires_in_the_middle_of_a_sweep():
    clock = Clock()
    with sandbox(clock=clock, token_seconds=60.0) as (_, http):
        token = http.post("token", data=LOGIN).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert http.get("time_entries?page=1", headers=headers).status_code == 200
        clock.now += 60

        assert http.get("time_entries?page=2", headers=headers).status_code == 401


def test_all_tokens_can_be_made_to_expire_at_once():
    with sandbox() as (server, http):
        server.sandbox.admission.expire_tokens()

        assert http.get("customers").status_code == 401


@pytest.mark.parametrize("version", ["", "3", "5", "v4"])
def test_another_api_version_is_refused(version):
    with sandbox() as (_, http):
        assert http.get("customers", headers={"api-version": version}).status_code == 400


def test_a_lenient_server_ignores_the_api_version():
    with sandbox("version_header=ignored") as (_, http):
        assert http.get("customers", headers={"api-version": ""}).status_code == 200


# The company


@pytest.mark.parametrize(
    ("variants", "guid", "status"),
    [
        ((), "", 400),
        ((), "Maple Works", 400),
        ((), FOREIGN_GUID, 403),
        ((), "00000000-0000-4000-8000-00000000abcd", 403),
        (("company_missing=403",), "", 403),
        (("company_foreign=404",), FOREIGN_GUID, 404),
    ],
)
def test_a_company_that_is_not_the_users_own_is_refused(variants, guid, status):
    with sandbox(*variants) as (_, http):
        assert http.get("customers", headers={"CompanyGuid": guid}).status_code == status


@pytest.mark.parametrize("guid", [COMPANY_GUID.upper(), f"{{{COMPANY_GUID}}}"])
def test_a_guid_has_no_case_and_may_stand_in_braces(guid):
    with sandbox() as (_, http):
        assert http.get("customers", headers={"CompanyGuid": guid}).status_code == 200


def test_the_name_of_the_company_header_is_a_variant():
    with sandbox("company_header=OrganizationGuid") as (_, http):
        assert http.get("customers").status_code == 400
        assert http.get("customers", headers={"OrganizationGuid": COMPANY_GUID}).status_code == 200


@pytest.mark.parametrize(
    "path", ["companies", "countries", "countries/40", "countries/40/states", "states", "currencies"]
)
def test_companies_and_reference_data_need_no_company(path):
    with sandbox() as (server, _), client(server, CompanyGuid="") as http:
        assert http.get(path).status_code == 200


def test_only_the_users_own_companies_are_listed():
    with sandbox(size=Size(companies=2, customers=1, projects=1, time_entries=3)) as (_, http):
        listed = http.get("companies").json()["companies"]

        assert [company["id"] for company in listed] == [2101, 2102]
        assert listed[0]["guid"] == COMPANY_GUID
        assert http.get("companies/2103").status_code == 404
        own = http.get("customers", headers={"CompanyGuid": listed[1]["guid"]}).json()["customers"]
        assert {customer["company"] for customer in own} == {2102}


def test_a_record_of_another_company_is_not_there():
    with sandbox() as (server, http):
        foreign = server.office.ids("customers", company=2102)[0]
        assert http.get(f"customers/{foreign}").status_code == 404


# Lists


def test_a_page_holds_ten_records_unless_told_otherwise():
    with sandbox() as (_, http):
        assert len(http.get("customers").json()["customers"]) == 10
        assert len(http.get("time_entries?limit=100").json()["time_entries"]) == 100


def test_links_lead_through_the_whole_list_and_end_on_the_last_page():
    with sandbox() as (server, http):
        first = http.get("customers?limit=5").json()["links"]
        second = http.get("customers?limit=5&page=2").json()["links"]
        last = http.get("customers?limit=5&page=3").json()["links"]

        assert first == [{"href": "customers?limit=5&page=2", "rel": "navigation-next", "type": "GET"}]
        assert [link["rel"] for link in second] == ["navigation-previous", "navigation-next"]
        assert [link["rel"] for link in last] == ["navigation-previous"]
        assert [row["id"] for row in every(http, "customers", "customers", 5)] == server.office.ids("customers")


def test_a_list_of_one_page_has_empty_links_and_a_sub_collection_none():
    with sandbox() as (_, http):
        assert http.get("timers").json()["links"] == []
        assert "links" not in http.get("projects/7301/project_members").json()


def test_states_of_a_country_have_pages():
    with sandbox() as (_, http):
        links = http.get("countries/231/states?limit=10&page=2").json()["links"]

        assert links[1]["href"] == "countries/231/states?limit=10&page=3"
        assert len(every(http, "countries/231/states", "states")) == 50


def test_companies_call_their_previous_page_otherwise():
    with sandbox(size=Size(companies=3, customers=1, projects=1, time_entries=1)) as (_, http):
        links = http.get("companies?limit=1&page=2").json()["links"]

        assert [link["rel"] for link in links] == ["navigation-prev", "navigation-next"]


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=x", "page=", "limit=0", "limit=101", "limit=ten"])
def test_a_page_that_cannot_be_is_refused(query):
    with sandbox() as (_, http):
        assert http.get(f"customers?{query}").status_code == 400


@pytest.mark.parametrize(("query", "count"), [("page=0", 10), ("limit=0", 1), ("limit=1000", 100)])
def test_a_lenient_server_clamps_pages(query, count):
    with sandbox("bounds=clamp") as (_, http):
        assert len(http.get(f"time_entries?{query}").json()["time_entries"]) == count


def test_behind_the_last_page_there_is_nothing_or_404():
    with sandbox() as (_, http):
        body = http.get("customers?page=99").json()
        assert body["customers"] == []
        assert [link["rel"] for link in body["links"]] == ["navigation-previous"]
    with sandbox("past_end=404") as (_, http):
        assert http.get("customers?page=99").status_code == 404
        assert http.get("customers").status_code == 200


def test_a_next_link_may_always_be_there():
    with sandbox("last_link=always") as (_, http):
        assert http.get("timers").json()["links"][-1]["rel"] == "navigation-next"


def test_an_unstable_order_differs_between_calls_but_keeps_the_records():
    with sandbox("order=unstable") as (server, http):
        reads = [[row["id"] for row in http.get("time_entries?limit=100").json()["time_entries"]] for _ in range(3)]

        assert len({tuple(ids) for ids in reads}) == 3
        assert set(reads[0]) <= set(server.office.ids("time_entries"))


def test_a_slash_at_the_end_changes_nothing():
    with sandbox() as (_, http):
        assert http.get("invoices/").json() == http.get("invoices").json()


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "customers/1",
        "customers/x",
        "customers/-1",
        "projects/1/project_members",
        "members/9101",
        "states/63/x",
        "project_members",
        "project_services/130401",
        "customers/154600/projects",
        "invoices/14801/invoice_details/24001",
    ],
)
def test_what_does_not_exist_is_404(path):
    with sandbox() as (_, http):
        assert http.get(path).status_code == 404


def test_what_does_not_exist_may_be_403():
    with sandbox("unknown=403") as (_, http):
        assert http.get("customers/1").status_code == 403


def test_outside_of_the_base_url_there_is_nothing():
    with sandbox() as (server, http):
        assert http.get(f"{server.origin}/customers").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_only_time_entries_can_be_written(method):
    with sandbox() as (_, http):
        assert http.request(method, "customers/154600").status_code == 404
        assert http.request(method, "customers").status_code == 404


# Forms


@pytest.mark.parametrize("profile", [V3, V4], ids=lambda profile: profile.name)
def test_records_spell_their_keys_as_the_samples_do(profile):
    with sandbox(profile=profile) as (_, http):
        project = http.get("projects/7301").json()["projects"][0]
        word = "Organization" if profile is V3 else "Company"

        assert {word, "Vision", "EffectiveBudgetAmount", "EffectiveBudgetMinutes", "code"} <= project.keys()
        assert "name" not in project
        assert project["type"] == "projects"
        assert [link["rel"] for link in project["links"]] == [profile.companies, "customers", "self"]


def test_enums_are_written_in_three_ways():
    with sandbox() as (server, http):
        server.office.edit("projects", 7301, status=1, budget_scope=1, billing_method=0)
        project = http.get("projects?limit=1").json()["projects"][0]

        assert (project["status"], project["budget_scope"], project["billing_method"]) == (1, "1", "NotBillable")


def test_decimals_keep_their_scale():
    with sandbox() as (server, http):
        server.office.edit("invoices", 14801, total="1225.79", balance=0)
        server.office.edit("expenses", 234501, amount_before_taxes="51.50", taxes_amount=105)
        invoice = http.get("invoices?limit=1").text
        expense = http.get("expenses?limit=1").text

        assert '"total":1225.7900,' in invoice
        assert '"balance":0.0000,' in invoice
        assert '"rate":0.150000,' in http.get("invoices/14801/invoice_taxes").text
        assert '"amount_before_taxes":51.5,' in expense
        assert '"taxes_amount":105,' in expense


@pytest.mark.parametrize(
    ("variants", "profile", "texts"),
    [
        ((), V3, ["2026-11-23T14:00:01.25", "2026-11-23T14:00:02"]),
        ((), V4, ["2026-11-23T14:00:01Z", "2026-11-23T14:00:02Z"]),
        (("timestamps=mixed",), V4, ["2026-11-23T14:00:01.25", "2026-11-23T14:00:02Z"]),
    ],
)
def test_timestamps_are_written_in_the_profiles_way(variants, profile, texts):
    with sandbox(*variants, profile=profile) as (server, http):
        odd = server.office.create("time_entries", record_id=900001, creation_date=1795442401.25)
        even = server.office.create("time_entries", record_id=900002, creation_date=1795442402.0)

        shown = [http.get(f"time_entries/{record}").json()["time_entries"][0] for record in (odd, even)]

        assert [entry["creation_date"] for entry in shown] == texts


def test_a_calendar_day_is_midnight_without_a_zone():
    with sandbox() as (server, http):
        server.office.edit("invoices", 14801, due_date="2026-12-05")

        assert http.get("invoices/14801").json()["invoices"][0]["due_date"] == "2026-12-05T00:00:00"


def test_blank_fields_are_sent_as_null():
    with sandbox() as (server, http):
        new = server.office.create("customers", name="Nobody", phone=None, tax=None)
        customer = http.get(f"customers/{new}").json()["customers"][0]

        assert customer.keys() - {"type", "links"} == V4.resources["customers"].fields.keys()
        assert (customer["phone"], customer["tax"], customer["state"]) == (None, None, None)


def test_list_and_detail_of_a_time_entry_differ():
    with sandbox() as (_, http):
        listed = http.get("time_entries?limit=1").json()["time_entries"][0]
        detail = http.get(f"time_entries/{listed['id']}").json()["time_entries"][0]

        assert listed["creation_userprofile"] is None
        assert detail["creation_userprofile"] == detail["member"]
        assert listed["links"][1]["rel"] == "projectitems"
        assert detail["links"][1]["rel"] == "project_services"


def test_a_timers_guid_stands_in_braces_and_in_the_list_only():
    with sandbox() as (_, http):
        listed = http.get("timers").json()["timers"][0]
        detail = http.get(f"timers/{listed['id']}").json()["timers"][0]

        assert (listed["guid"][0], listed["guid"][-1], listed["status"]) == ("{", "}", "0")
        assert "guid" not in detail


def test_minutes_of_a_running_timer_move_by_themselves_and_are_no_change():
    with sandbox() as (server, http):
        before = http.get("timers").json()["timers"][0]["minutes"]
        server.office.world.now += 600

        assert http.get("timers").json()["timers"][0]["minutes"] == before + 10
        assert server.journal.entries == []


def test_polling_moves_the_companys_last_activity_and_is_no_change():
    with sandbox() as (server, http):
        server.office.world.now += 3600
        http.get("customers")

        assert http.get("companies").json()["companies"][0]["last_activity_date"] == "2026-11-23T15:00:00Z"
        assert server.journal.entries == []


def test_start_and_end_are_there_only_if_the_company_tracks_them():
    with sandbox() as (server, http):
        assert "start_time" not in http.get("time_entries").json()["time_entries"][0]
        server.office.edit("companies", 2101, time_tracking_type=1)
        new = server.office.create("time_entries")

        assert http.get("time_entries").json()["time_entries"][0]["start_time"] is None
        assert http.get(f"time_entries/{new}").json()["time_entries"][0]["end_time"] == "2026-11-23T14:00:00Z"


def test_currencies_have_no_links():
    with sandbox() as (_, http):
        assert all("links" not in currency for currency in http.get("currencies").json()["currencies"])


@pytest.mark.parametrize(("variants", "shown"), [((), {"phone": None}), (("hidden=absent",), {})])
def test_a_field_that_the_user_may_not_see_is_null_or_absent(variants, shown):
    with sandbox(*variants) as (server, http):
        server.sandbox.hide("customers.phone")
        customer = http.get("customers").json()["customers"][0]

        assert {name: value for name, value in customer.items() if name == "phone"} == shown
        server.sandbox.hide()
        assert http.get("customers").json()["customers"][0]["phone"]


def test_a_resource_that_the_user_may_not_see_is_403():
    with sandbox() as (server, http):
        server.sandbox.forbid("expenses")

        assert [http.get(path).status_code for path in ("expenses", "expenses/234501", "invoices")] == [403, 403, 200]


def test_soft_deleted_records_stay_listed_or_vanish():
    with sandbox() as (server, http):
        server.office.soft_delete("invoices", 14801)
        assert http.get("invoices?limit=1").json()["invoices"][0]["status"] == 7
    with sandbox("soft_deleted=vanished") as (server, http):
        server.office.soft_delete("expenses", 234501)
        assert 234501 not in [row["id"] for row in every(http, "expenses", "expenses")]
        assert http.get("expenses/234501").status_code == 404


def test_a_deleted_time_entry_is_gone():
    with sandbox() as (server, http):
        server.office.delete("time_entries", 201501)

        assert http.get("time_entries/201501").status_code == 404
        assert http.get("time_entries").json()["time_entries"][0]["id"] == 201502


@pytest.mark.parametrize(
    ("variant", "body", "content_type"),
    [
        ("json", '{"message":"There is nothing here."}', "application/json; charset=utf-8"),
        ("empty", "", "application/json; charset=utf-8"),
        ("text", "There is nothing here.", "text/plain; charset=utf-8"),
        (
            "html",
            "<html><head><title>404</title></head><body>There is nothing here.</body></html>",
            "text/html; charset=utf-8",
        ),
    ],
)
def test_the_body_of_an_error_is_a_variant(variant, body, content_type):
    with sandbox(f"errors={variant}") as (_, http):
        answer = http.get("nothing")

        assert (answer.status_code, answer.text, answer.headers["content-type"]) == (404, body, content_type)


# Embedding


def test_embedded_records_are_inline_on_their_parent():
    with sandbox() as (server, http):
        project = http.get("projects/7301?includes=customers,project_members").json()["projects"][0]

        assert [row["id"] for row in project["customers"]] == [project["customer"]]
        assert [row["id"] for row in project["project_members"]] == server.office.ids("project_members", parent=7301)


def test_embedded_records_may_stand_beside_their_parents():
    with sandbox("embedding=sibling") as (_, http):
        body = http.get("time_entries?includes=projects,members&limit=20").json()

        assert {row["id"] for row in body["projects"]} == {row["project"] for row in body["time_entries"]}
        assert {row["id"] for row in body["members"]} == {row["member"] for row in body["time_entries"]}


def test_embedding_may_be_ignored():
    with sandbox("embedding=ignored") as (_, http):
        assert "customers" not in http.get("projects?includes=customers").json()["projects"][0]


def test_next_links_keep_what_was_embedded():
    with sandbox() as (_, http):
        [link] = http.get("time_entries?includes=projects").json()["links"]

        assert link["href"] == "time_entries?limit=10&page=2&includes=projects"


def test_embedding_an_unknown_type_is_refused_or_ignored():
    with sandbox() as (_, http):
        assert http.get("projects?includes=invoices").status_code == 400
    with sandbox("unknown_include=ignore") as (_, http):
        assert http.get("projects?includes=invoices").status_code == 200


@pytest.mark.parametrize("resource", [name for name, known in V4.resources.items() if not known.parent])
def test_everything_that_can_be_embedded_is(resource):
    known = V4.resources[resource]
    with sandbox() as (_, http):
        for name in known.includes:
            record = http.get(f"{known.path}?include={name}&limit=1").json()[resource][0]
            assert isinstance(record[name], list)


# Altogether


@pytest.mark.parametrize("profile", PROFILES)
def test_a_client_that_walks_the_whole_api_sees_the_office_as_it_is(profile):
    with sandbox(profile=PROFILES[profile]) as (server, http):
        token = http.post("token", data=LOGIN).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        for name, known in PROFILES[profile].resources.items():
            parents = server.office.ids(known.parent) if known.parent else [None]
            for parent in parents:
                seen = every(http, known.path.format(parent=parent), name)
                ids = server.office.ids(name, parent=parent)
                assert len(seen) == len(ids)
                assert "id" not in known.id or [row["id"] for row in seen] == ids
                for row in seen[:2] if known.has_items else ():
                    assert http.get(f"{known.path}/{row['id']}").json()[name][0]["id"] == row["id"]
                assert all(row["type"] == name for row in seen)


async def test_it_serves_within_the_running_loop_too():
    async with serving(Settings(size=SMALL)) as server, httpx.AsyncClient(trust_env=False, verify=False) as http:
        answer = await http.get(f"{server.url}/companies", headers={"Authorization": f"Bearer {ACCESS_TOKEN}"})

        assert answer.status_code == 400  # no api-version


def test_a_taken_port_is_an_error():
    with running(Settings(size=SMALL)) as server:
        second = running(Settings(size=SMALL), port=int(server.origin.rpartition(":")[2]))
        with pytest.raises(OSError):
            second.__enter__()


@pytest.mark.parametrize("variant", [f"{name}={value}" for name, values in choices().items() for value in values])
def test_every_variant_serves_a_list(variant):
    with sandbox(variant) as (_, http):
        http.headers["OrganizationGuid"] = COMPANY_GUID
        assert http.get("time_entries?limit=100").status_code == 200


@pytest.mark.parametrize(
    ("text", "near"), [("ordr=id", "order"), ("order=random", "id, unstable"), ("", "version_header")]
)
def test_an_unknown_variant_names_what_is_known(text, near):
    with pytest.raises(ValueError, match=near):
        parse_variants([text])
