import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plugins.nutcache.normalise import normaliser
from plugins.nutcache.profiles import PROFILES, V3, V4
from plugins.nutcache.source import NutcacheOptions, NutcacheSource
from poller import Endpoint, Page, PageError, Position
from poller.sources.auth import AuthError, TokenAuth

SERVER = "http://127.0.0.1:9/webapi"
COMPANY = "5f0c1d2e-77aa-4b1c-9d3e-0a1b2c3d4e5f"
PROJECT = {
    "type": "projects",
    "id": 7301,
    "Organization": 2101,
    "code": "Website refresh",
    "status": 1,
    "Vision": None,
    "start_date": "2018-10-01T00:00:00",
    "end_date": None,
    "budget_scope": "1",
    "billing_method": "NotBillable",
    "EffectiveBudgetAmount": 1225.7900,
    "billing_invoice_method_fixed_fee": 0.0,
    "links": [{"href": "projects/7301", "rel": "self", "type": "GET"}],
}


def make_source(**options: Any) -> NutcacheSource:
    table = {"server": SERVER, "access_token": "tok", "company": COMPANY, **options}
    table = {key: value for key, value in table.items() if value is not None}
    return NutcacheSource("acme", NutcacheOptions.model_validate(table))


def endpoint(source: NutcacheSource, name: str = "projects") -> Endpoint:
    return next(known for known in source.endpoints() if known.name == name)


def answer(request: httpx.Request, body: Any, status: int = 200) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, request=request)


def read(source: NutcacheSource, body: Any, at: Position | None = None, name: str = "projects") -> Page:
    chosen, at = endpoint(source, name), at or Position(page=1)
    return source.page(chosen, at, answer(source.request(chosen, at), body))


def projects(*ids: int, next: str | None = None, **members: Any) -> Mapping[str, Any]:
    links = [] if next is None else [{"href": next, "rel": "navigation-next", "type": "GET"}]
    return {"projects": [{"type": "projects", "id": id} for id in ids], "links": links, **members}


def normal(resource: str, profile: str = "v3", **fields: Any) -> dict[str, Any]:
    return normaliser(PROFILES[profile].resources[resource])(fields)


def discovered(source: NutcacheSource, *bodies: Any, status: int = 200) -> list[httpx.Request]:
    """Let the source discover its company from these answers in turn."""
    asked, flow = [], source.discover()
    try:
        request = next(flow)
        for body in bodies:
            asked.append(request)
            request = flow.send(answer(request, body, status))
        asked.append(request)
    except StopIteration:
        pass
    return asked


def companies(*names: str, next: str | None = None) -> Mapping[str, Any]:
    links = [] if next is None else [{"href": next, "rel": "navigation-next"}]
    found = [{"id": at, "guid": COMPANY[:-1] + str(at), "name": name} for at, name in enumerate(names)]
    return {"companies": found, "links": links}


# --- requests


@pytest.mark.parametrize(
    ("profile", "header", "version"), [("v4", "CompanyGuid", "4"), ("v3", "OrganizationGuid", "3")]
)
def test_a_request_asks_for_the_largest_page_in_the_words_of_its_profile(profile, header, version):
    source = make_source(profile=profile)

    request = source.request(endpoint(source), Position(page=2))

    assert str(request.url) == f"{SERVER}/projects?limit=100&page=2"
    assert (request.headers[header], request.headers["api-version"]) == (COMPANY, version)


def test_the_company_header_may_be_named_otherwise():
    source = make_source(company_header="X-Company", company="{" + COMPANY.upper() + "}")

    assert source.request(endpoint(source), Position(page=1)).headers["x-company"] == COMPANY


@pytest.mark.parametrize("name", ["companies", "countries", "currencies", "states"])
def test_what_belongs_to_no_company_is_asked_for_without_one(name):
    source = make_source(company=None)

    assert "CompanyGuid" not in source.request(endpoint(source, name), Position(page=1)).headers


def test_a_list_per_parent_has_the_parents_id_in_its_path():
    source = make_source()

    request = source.request(endpoint(source, "project_members"), Position(page=1, parent={"id": 7301}))

    assert str(request.url) == f"{SERVER}/projects/7301/project_members?limit=100&page=1"


def test_a_list_per_parent_needs_its_parent():
    source = make_source()

    with pytest.raises(PageError, match="needs an id"):
        source.request(endpoint(source, "project_members"), Position(page=1))


def test_deletions_are_confirmed_by_the_records_own_url_where_there_is_one():
    source = make_source()

    assert str(source.item_request(endpoint(source), "7301").url) == f"{SERVER}/projects/7301"
    assert source.item_request(endpoint(source, "invoice_taxes"), "1:1:1:HST") is None


@pytest.mark.parametrize("profile", [V4, V3], ids=lambda profile: profile.name)
def test_every_documented_list_is_polled_unless_some_are_chosen(profile):
    source = make_source(profile=profile.name)

    assert [known.name for known in source.endpoints()] == list(profile.resources)
    assert [known.name for known in make_source(endpoints={"invoices": {}, "projects": {}}).endpoints()] == [
        "projects",
        "invoices",
    ]


def test_access_driven_fields_are_no_reason_for_an_event():
    source = make_source()

    assert endpoint(source, "companies").ignore == (
        "/last_activity_date",
        "/notification_count",
        "/active_user_count",
    )
    assert endpoint(source, "timers").ignore == ("/minutes",)
    assert all(known.exclude == ("/links",) for known in source.endpoints())


def test_soft_deletions_are_told_as_deletions():
    source = make_source()

    assert endpoint(source, "invoices").deleted_when == "object.status == 7"
    assert endpoint(source, "expenses").deleted_when == "object.status == 3"
    assert endpoint(source, "customers").deleted_when is None


# --- answers


def test_a_page_leaves_its_records_unparsed_and_goes_on_by_its_next_link():
    page = read(make_source(), projects(1, 2, next="projects?limit=100&page=2"))

    assert all(isinstance(item, msgspec.Raw) for item in page.objects)
    assert page.next == Position(page=2)


@pytest.mark.parametrize(
    "body",
    [
        projects(1),
        {"projects": [{"id": 1}]},
        {"Projects": [{"id": 1}], "Links": None},
        projects(next="projects?limit=100&page=2"),
        projects(1, next="projects?limit=100&page=1"),
    ],
    ids=["no link", "no links at all", "other case", "empty page with a link", "link to itself"],
)
def test_a_list_ends_without_a_next_link_or_at_an_empty_page(body):
    assert read(make_source(), body).next is None


def test_a_short_page_with_a_next_link_is_not_the_end():
    assert read(make_source(), projects(1, next="projects?limit=100&page=2")).next == Position(page=2)


def test_a_link_by_keys_is_followed_as_it_is():
    source = make_source()
    href = "projects?limit=100&reference_id=2&seek_direction=next"

    page = read(source, projects(1, 2, next=href))

    assert page.next == Position(cursor=f"{SERVER}/{href}")
    assert str(source.request(endpoint(source), page.next).url) == f"{SERVER}/{href}"


def test_a_nested_list_goes_on_with_its_parent():
    source = make_source()
    at = Position(page=1, parent={"id": 7301})
    body = {
        "project_members": [{"id": 1}],
        "links": [{"href": "projects/7301/project_members?limit=100&page=2", "rel": "navigation-next"}],
    }

    assert read(source, body, at, "project_members").next == Position(page=2, parent={"id": 7301})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>Service unavailable</html>", "HTML"),
        (b'{"projects":[{"id":1}', "not JSON"),
        ({"message": "hello"}, r"no list at \$.projects"),
        ({"customers": [{"id": 1}]}, r"no list at \$.projects"),
        ({"projects": None}, "it is null"),
        (projects(1, next="https://evil.example/projects?page=2"), "another origin"),
        (projects(1, next="projects?limit=100&page=3"), "leads to page 3"),
    ],
    ids=["html", "truncated", "message", "another list", "null", "another origin", "a page left out"],
)
def test_an_answer_that_is_not_the_list_is_set_aside(body, says):
    with pytest.raises(PageError, match=says):
        read(make_source(), body)


# --- the company


def test_the_only_company_is_found_by_itself():
    source = make_source(company=None)

    asked = discovered(source, companies("Maple Works"))

    assert [str(request.url) for request in asked] == [f"{SERVER}/companies?limit=100&page=1"]
    assert source.request(endpoint(source), Position(page=1)).headers["CompanyGuid"] == COMPANY[:-1] + "0"


def test_a_company_is_found_by_its_name_on_any_page():
    source = make_source(company="birch ltd")

    discovered(source, companies("Maple", next="companies?limit=100&page=2"), companies("Oak", "Birch Ltd"))

    assert source.request(endpoint(source), Position(page=1)).headers["CompanyGuid"] == COMPANY[:-1] + "1"


def test_a_guid_needs_no_asking():
    assert discovered(make_source()) == []


@pytest.mark.parametrize(
    ("company", "names", "says"),
    [
        (None, ("Maple", "Birch"), 'several companies: "Maple"'),
        (None, (), "sees no company"),
        ("Oak", ("Maple", "Birch"), 'no companies are named "Oak": "Maple"'),
        ("Oak", ("Oak", "oak"), '2 companies are named "Oak"'),
    ],
)
def test_a_company_that_is_not_clear_is_an_error_that_names_them(company, names, says):
    with pytest.raises(PageError, match=says) as raised:
        discovered(make_source(company=company), companies(*names))
    assert raised.value.hint


def test_companies_that_cannot_be_listed_are_an_error():
    with pytest.raises(PageError, match="cannot be listed: 404"):
        discovered(make_source(company=None), {}, status=404)


def test_refused_credentials_are_told_as_such():
    with pytest.raises(AuthError, match="refused") as raised:
        discovered(make_source(company=None), b"", status=401)
    assert raised.value.status == 401


def test_without_a_company_no_list_of_it_is_asked_for():
    source = make_source(company=None)

    with pytest.raises(PageError, match="not known yet"):
        source.request(endpoint(source), Position(page=1))


# --- one form


def test_a_record_is_put_into_one_form():
    record = normaliser(V3.resources["projects"])(dict(PROJECT))

    assert {key: value for key, value in record.items() if value is not None and key != "links"} == {
        "type": "projects",
        "id": 7301,
        "organization": 2101,
        "code": "Website refresh",
        "status": 1,
        "start_date": "2018-10-01",
        "budget_scope": 1,
        "billing_method": 0,
        "effectivebudgetamount": 1225.79,
        "billing_invoice_method_fixed_fee": 0,
    }
    assert record["vision"] is None


@pytest.mark.parametrize("value", [1, "1", "ServiceRate", "TaskRate", "service rate", 1.0])
def test_an_enum_is_its_code(value):
    assert normal("projects", billing_method=value)["billing_method"] == 1


def test_an_unknown_enum_name_stays():
    assert normal("projects", status="Paused")["status"] == "Paused"


@pytest.mark.parametrize(("text", "code"), [("MM-dd-yyyy", 1), ("dd-MM-yyyy", 3), ("dd.MM.yyyy", 5), ("yyyy-MM-dd", 0)])
def test_date_formats_are_told_apart(text, code):
    assert normal("countries", date_format=text)["date_format"] == code


@pytest.mark.parametrize(
    "text", ["2018-04-18T00:00:00", "2018-04-18T00:00:00Z", "2018-04-18", "2018-04-18T00:00:00+05:00"]
)
def test_a_day_is_never_shifted(text):
    assert normal("invoices", invoice_date=text)["invoice_date"] == "2018-04-18"


@pytest.mark.parametrize(
    "text",
    ["2018-03-06T22:01:09.25", "2018-03-06T22:01:09Z", "2018-03-06T22:01:09", "2018-03-07T00:01:09.377+02:00"],
)
def test_an_instant_is_utc_to_the_second(text):
    assert normal("time_entries", creation_date=text)["creation_date"] == "2018-03-06T22:01:09Z"


def test_a_wall_clocks_time_keeps_its_numbers():
    assert normal("timers", time_start_local="2018-11-05T09:00:00")["time_start_local"] == "2018-11-05T09:00:00"


@pytest.mark.parametrize("text", ["{0D9C8B7A-1111-4222-8333-944455566677}", "0d9c8b7a-1111-4222-8333-944455566677"])
def test_a_guid_is_lower_case_without_braces(text):
    assert normal("timers", guid=text)["guid"] == "0d9c8b7a-1111-4222-8333-944455566677"


def test_an_unknown_field_that_is_null_is_as_good_as_absent():
    assert normal("projects", id=1, mood=None) == normal("projects", id=1)


def test_what_is_null_within_a_field_is_as_good_as_absent():
    shown = normal("projects", id=1, owner={"id": 7, "phone": None}, rates=[{"value": 1, "note": None}])

    assert shown == normal("projects", id=1, owner={"id": 7}, rates=[{"value": 1}])


def test_an_absent_field_is_null_and_an_unknown_one_stays():
    record = normal("customers", id=1, Sprint_Duration=3)

    assert (record["email"], record["sprint_duration"]) == (None, 3)


@pytest.mark.parametrize("value", ["next week", "2018-99-99", "2018-99-99T00:00:00", 7, ["x"], {"a": 1}])
def test_what_cannot_be_read_stays(value):
    fields = {"creation_date": value, "working_date": value}

    record = normal("time_entries", **fields)

    assert {key: record[key] for key in fields} == fields


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    resource=st.sampled_from([*V3.resources.values(), *V4.resources.values()]),
    data=st.data(),
)
def test_the_one_form_stays_what_it_is(resource, data):
    texts = st.text(max_size=12) | st.datetimes().map(lambda at: at.isoformat()) | st.dates().map(str)
    values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
    wires = st.sampled_from([field.wire for field in resource.fields.values()])
    normalise = normaliser(resource)

    once = normalise(data.draw(st.dictionaries(wires, values, max_size=8)))

    assert normalise(dict(once)) == once


# --- the options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"access_token": None}, "credentials are missing"),
        ({"access_token": None, "username": "u"}, "a login also needs password and api_key"),
        ({"username": "u"}, "keep one of them"),
        ({"profile": "v5"}, "v4"),
        ({"endpoints": {"invoice": {}}}, 'no "invoice"; did you mean "invoices"'),
        ({"endpoints": {"invoice_taxes": {}}}, 'is a list per object of "invoices"'),
        ({"server": "apps.nutcache.com"}, "begins with https://"),
        ({"endpoints": {"invoices": {"colour": 1}}}, "colour"),
    ],
)
def test_options_that_cannot_work_are_refused_with_what_to_do(options, says):
    with pytest.raises(ValidationError) as raised:
        make_source(**options)
    assert says in str(raised.value)


def test_the_documented_limits_are_the_default():
    assert [(limit.calls, limit.seconds) for limit in NutcacheSource.limits] == [(5, 1), (200, 60), (20_000, 86_400)]


def test_a_login_asks_for_a_token_as_documented():
    source = make_source(access_token=None, username="ana", password="hush", api_key="k")

    assert isinstance(source.auth, TokenAuth)
    request = source.auth._grants.ask(None)
    assert str(request.url) == f"{SERVER}/token"
    assert request.content == b"grant_type=password&username=ana&password=hush&api_key=k"


def test_each_consequence_of_the_api_has_a_row_whose_tests_exist():
    folder = Path(__file__).parents[2]
    rows = [line.split(" | ") for line in (folder.parent / "docs/nutcache.md").read_text().splitlines()]
    rows = [row for row in rows if row[0].removeprefix("| ").isdecimal()]
    tests = "\n".join(file.read_text() for file in folder.rglob("test_*.py"))

    assert [int(row[0].removeprefix("| ")) for row in rows] == list(range(1, 25))
    assert [name for row in rows for name in re.findall(r"`(test_\w+)`", row[3]) if f"def {name}(" not in tests] == []
