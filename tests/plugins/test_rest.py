import json
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import ValidationError

from plugins.rest import RestOptions, RestSource
from poller import Page, PageError, Position
from poller.sources.protocol import Item

BASE = "https://shop.example/api"


def make_source(base_url: str = BASE, others: Mapping[str, Any] | None = None, **items: Any) -> RestSource:
    """A source with an endpoint `items` (and `others`)."""
    endpoints = {"items": {"path": "/items", **items}, **(others or {})}
    return RestSource("shop", RestOptions.model_validate({"base_url": base_url, "endpoints": endpoints}))


def ask(source: RestSource, at: Position | None = None, name: str = "items") -> httpx.Request:
    endpoint = next(known for known in source.endpoints() if known.name == name)
    return source.request(endpoint, at or endpoint.first)


def read(source: RestSource, body: Any, at: Position | None = None, headers: Mapping[str, str] | None = None) -> Page:
    endpoint = source.endpoints()[0]
    at = at or endpoint.first
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.Response(200, content=content, headers=headers, request=source.request(endpoint, at))
    return source.page(endpoint, at, response)


def objects(page: Page) -> list[Any]:
    return [msgspec.json.decode(item) if isinstance(item, msgspec.Raw) else item for item in page.objects]


def refused(**items: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        make_source(**items)
    return str(raised.value)


def test_a_list_is_asked_for_under_the_base_url_with_its_parameters():
    source = make_source(params={"status": "any", "archived": False, "tag": ["a", "b"]})

    assert str(ask(source).url) == f"{BASE}/items?status=any&archived=false&tag=a&tag=b"


@pytest.mark.parametrize("base", [BASE, BASE + "/"])
@pytest.mark.parametrize("path", ["/items", "items"])
def test_slashes_between_base_and_path_do_not_matter(base, path):
    assert str(ask(make_source(base, path=path)).url) == f"{BASE}/items"


def test_pages_are_numbered_from_the_start():
    source = make_source(
        pagination={"type": "page", "param": "p", "start": 0, "size_param": "per_page", "size": 2}, params={"a": 1}
    )

    page = read(source, [{"id": 1}, {"id": 2}])

    assert str(ask(source).url) == f"{BASE}/items?a=1&per_page=2&p=0"
    assert page.next == Position(page=1)
    assert str(ask(source, page.next).url) == f"{BASE}/items?a=1&per_page=2&p=1"


def test_a_list_without_pages_ends_with_its_answer():
    page = read(make_source(), [{"id": 1}])

    assert (objects(page), page.next) == ([{"id": 1}], None)


def test_objects_are_left_unparsed_where_the_path_is_plain():
    page = read(make_source(items="$.data.items"), {"data": {"items": [{"id": 1}]}})

    assert isinstance(page.objects[0], msgspec.Raw)


def test_headers_and_secrets_go_into_every_request(tmp_path):
    (tmp_path / "tenant").write_text("7\n")
    table = {
        "base_url": BASE,
        "headers": {"X-Tenant": {"file": "tenant"}, "Accept": "application/hal+json"},
        "endpoints": {"items": {"path": "/items", "item_path": "/items/{id}"}},
    }
    source = RestSource("shop", RestOptions.model_validate(table, context={"root": tmp_path}))

    for request in (ask(source), source.item_request(source.endpoints()[0], "1")):
        assert request is not None
        assert (request.headers["x-tenant"], request.headers["accept"]) == ("7", "application/hal+json")


def test_an_object_has_its_own_url():
    source = make_source(item_path="/items/{id}")

    endpoint = source.endpoints()[0]

    assert str(source.item_request(endpoint, "a/b ?").url) == f"{BASE}/items/a%2Fb%20%3F"
    with pytest.raises(PageError):
        source.item_request(endpoint, "..")


def test_a_list_without_item_path_has_no_items():
    source = make_source()

    assert source.item_request(source.endpoints()[0], "1") is None


def test_a_list_per_parent_has_the_parents_fields_in_its_path():
    lines = {"path": "/items/{parent.id}/lines", "parent": "items", "params": {"shop": "{parent.shop.code}"}}
    source = make_source(others={"lines": lines})

    request = ask(source, Position(parent={"id": 7, "shop": {"code": "a b"}}), "lines")

    assert str(request.url) == f"{BASE}/items/7/lines?shop=a+b"
    assert source.endpoints()[1].parent == "items"


def test_a_parent_without_the_field_is_an_error_that_names_it():
    source = make_source(others={"lines": {"path": "/items/{parent.code}/lines", "parent": "items"}})

    with pytest.raises(PageError, match=r"the parent has no code"):
        ask(source, Position(parent={"id": 7}), "lines")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("iso", "2026-11-24T00%3A00%3A00Z"),
        ("epoch", "1795478400"),
        ("epoch_ms", "1795478400000"),
        ("date", "2026-11-24"),
        ("%d.%m.%Y", "24.11.2026"),
    ],
)
def test_recent_changes_are_asked_for_since_a_time(form, expected):
    source = make_source(updated_since={"param": "since", "field": "meta.updated", "overlap": "5m", "format": form})

    endpoint = source.endpoints()[0]

    assert (endpoint.since, endpoint.since_field, endpoint.overlap) == (True, "meta.updated", 300.0)
    assert str(ask(source, Position(since=1795478400.9)).url) == f"{BASE}/items?since={expected}"
    assert "since" not in str(ask(source).url)


@pytest.mark.parametrize(
    ("body", "ids"),
    [({"items": None}, []), ({}, []), ({"items": {"id": 7}}, [7]), ({"items": [{"id": 1}, {"id": 2}]}, [1, 2])],
    ids=str,
)
def test_a_list_may_be_null_or_absent_or_one_object_where_that_is_configured(body, ids):
    source = make_source(items="$.items", instead_of_list=["null", "absent", "object"])

    assert [one["id"] for one in objects(read(source, body))] == ids
    with pytest.raises(PageError, match="no list at") as caught:
        read(make_source(items="$.items"), body if not ids or len(ids) == 1 else {})
    assert "instead_of_list" in str(caught.value.hint)


def test_objects_under_numbers_as_keys_are_read_like_a_list():
    source = make_source(items="$.items[*]")

    assert [one["id"] for one in objects(read(source, {"items": {"0": {"id": 1}, "2": {"id": 3}}}))] == [1, 3]
    assert [one["id"] for one in objects(read(source, {"items": [{"id": 1}, {"id": 2}]}))] == [1, 2]
    assert objects(read(source, {"items": []})) == []


def test_a_search_is_posted_and_its_cursor_goes_into_the_body():
    source = make_source(
        method="POST",
        path="/search",
        body={"query": {"open": True}, "page": {"size": 0}},
        items="$.hits",
        pagination={
            "type": "cursor",
            "param": "page.after",
            "next": "$.next",
            "size_param": "page.size",
            "size": 2,
            "in": "body",
        },
    )
    page = read(source, {"hits": [{"id": 1}, {"id": 2}], "next": "abc"})

    first, second = ask(source), ask(source, page.next)

    assert first.method == "POST"
    assert json.loads(first.content) == {"query": {"open": True}, "page": {"size": 2}}
    assert json.loads(second.content) == {"query": {"open": True}, "page": {"size": 2, "after": "abc"}}
    assert str(second.url) == f"{BASE}/search"


def test_a_cursor_is_a_number_where_the_body_has_one():
    source = make_source(method="POST", body={"after": 0, "q": "7"}, pagination={"type": "cursor", "param": "after"})

    asked = [json.loads(ask(source, Position(cursor=cursor)).content)["after"] for cursor in ("5", "x5")]

    assert asked == [5, "x5"]


def test_what_a_path_has_for_a_query_is_sent_as_it_is():
    source = make_source(path="/items?f=a%20eq%20b,c&l=%E9&page=9", pagination={"type": "page"})

    assert str(ask(source).url) == f"{BASE}/items?f=a%20eq%20b,c&l=%E9&page=1"


def test_a_parameter_that_the_body_has_already_is_set_there_and_others_go_into_the_query():
    source = make_source(
        method="POST", body={"offset": 0}, pagination={"type": "offset", "size_param": "limit", "size": 10}
    )

    request = ask(source, Position(offset=20))

    assert json.loads(request.content) == {"offset": 20}
    assert request.url.query == b"limit=10"


def test_a_cursor_that_is_a_url_is_asked_for_as_it_is():
    source = make_source(pagination={"type": "cursor", "next": "$.links.next"}, items="$.data", params={"a": 1})

    page = read(source, {"data": [], "links": {"next": "/api/items?a=1&after=x%2B"}})

    assert str(ask(source, page.next).url) == "https://shop.example/api/items?a=1&after=x%2B"


def test_credentials_follow_no_cursor_to_another_origin():
    source = make_source(pagination={"type": "cursor"})

    with pytest.raises(PageError, match=r"another origin|leads from"):
        read(source, {"items": [], "next": "https://evil.example/items?x=1"})
    with pytest.raises(PageError, match="another origin"):
        ask(source, Position(cursor="https://evil.example/items?x=1"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<!doctype html><title>Sign in</title>", "HTML"),
        (b'{"items": [{"id": 1}', "not JSON"),
        (b"", "not JSON"),
        (b"null", "no list"),
        (b'{"items": null}', "no list"),
        (b'{"error": "over capacity"}', "no list"),
        (b'{"items": [], "links": []}', "several lists"),
        (b"[" * 100_000, "not JSON|nested"),
    ],
    ids=["html", "truncated", "empty", "null", "null list", "error", "two lists", "deep"],
)
def test_an_answer_that_is_not_the_list_is_set_aside(body, says):
    with pytest.raises(PageError, match=says):
        read(make_source(), body)


def test_the_list_of_another_document_is_no_page_of_this_one():
    source = make_source()
    assert len(read(source, b'{"items": [{"id": 1}]}').objects) == 1
    for body in (b'{"notices": [{"id": "m1"}]}', b'{"notices": []}', b'[{"id": 2}]'):
        with pytest.raises(PageError, match=r"only list of this answer is at \$.*, but at \$\.items in earlier ones"):
            read(source, body)
    assert [len(read(source, body).objects) for body in (b"[]", b'{"items": []}', b'{"items": [{"id": 3}]}')] == [
        0,
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"parent": "itmes", "path": "/x/{parent.id}"}, 'no endpoint "itmes"; did you mean "items"'),
        ({"parent": "items", "path": "/x/{parent.id}"}, "is a circle"),
        ({"parent": "items", "path": "/x"}, "needs the parent in its path"),
        ({"path": "/x/{parent.id}"}, "needs parent ="),
        ({"path": "/x/{id}"}, "is not known"),
        ({"path": "https://other.example/x"}, "relative to base_url"),
        ({"item_path": "/items"}, "write {id} or {FIELD}"),
        ({"item_path": "/zones/{parent.id}/items/{id}"}, "write {id} or {FIELD}"),
        ({"item_path": "/items/{id}", "id": "content"}, "no URL of its own"),
        ({"item_path": "/items/{id}", "id": ["a", "b"]}, "name each field"),
        ({"pagination": {"type": "cursor", "next": "header:"}}, "names no header"),
        ({"pagination": {"type": "page", "more": "$.m", "last": "$.l"}}, "keep one"),
        ({"updated_since": {"param": "s", "field": "u", "format": "ISO"}}, "is not a format"),
        ({"empty_status": [40]}, "empty_status"),
        ({"instead_of_list": ["null"]}, "needs a plain path"),
        ({"items": "$.a[*].b", "instead_of_list": ["null"]}, "needs a plain path"),
        ({"items": "$.a", "instead_of_list": ["nil"]}, "instead_of_list"),
        ({"id": "a..b"}, "empty step"),
        ({"items": "$.["}, "is not JSONPath"),
        ({"body": {"a": 1}}, 'set method = "POST"'),
        ({"pagination": {"type": "cursor", "in": "body"}}, 'needs method = "POST"'),
        ({"pagination": {"type": "pages"}}, "page"),
        ({"pagination": {"type": "page", "size_param": "n"}}, "needs a size"),
        ({"updated_since": {"param": "since"}}, "field"),
        ({"updated_since": {"param": "s", "field": "u", "overlap": 5}}, "a duration is a number and its unit"),
        ({"order": "oldest"}, "newest"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_together_is_refused_with_what_to_do(table, says):
    assert says in refused(**table)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("shop.example", "begins with https://"),
        ("ftp://shop.example", "begins with https://"),
        ("https://user:hush@shop.example", "credentials do not belong"),
    ],
)
def test_a_base_url_is_http_and_holds_no_credentials(url, says):
    told = refused(base_url=url)

    assert says in told
    assert "hush" not in told


def test_an_id_may_be_a_list_of_keys():
    assert make_source(id=["invoice", "number"]).endpoints()[0].id == ("invoice", "number")


def test_an_answer_that_reports_errors_beside_its_objects_is_refused():
    source = make_source(items="$.data", error="$.errors")

    assert objects(read(source, {"data": [{"id": 1}], "errors": []})) == [{"id": 1}]
    assert objects(read(source, {"data": [{"id": 1}]})) == [{"id": 1}]
    with pytest.raises(PageError, match="reports an error at"):
        read(source, {"data": [{"id": 1}], "errors": [{"message": "timeout"}]})


def test_objects_listed_under_their_keys_are_named_by_them():
    source = make_source(items="$.rates", id="key")

    assert objects(read(source, {"rates": {"EUR": {"rate": 1}}})) == [{"key": "EUR", "rate": 1}]
    assert objects(read(source, {"rates": [{"key": "A-1"}]})) == [{"key": "A-1"}]


def test_a_list_of_texts_is_a_list_of_values():
    assert objects(read(make_source(id="value"), ["a", "b"])) == [{"value": "a"}, {"value": "b"}]


def test_an_objects_own_url_may_need_its_fields_and_its_parent():
    table = {"path": "/zones/{parent.id}/records", "parent": "items", "id": ["name", "type"]}
    table["item_path"] = "/zones/{parent.id}/records/{name}/{kind.code}"
    source = make_source(others={"records": table})
    endpoint = source.endpoints()[1]
    known = Item(object={"name": "a/b", "type": "NS", "kind": {"code": 7}}, parent={"id": 3})

    assert str(source.item_request(endpoint, "a/b:NS", known).url) == f"{BASE}/zones/3/records/a%2Fb/7"
    with pytest.raises(PageError, match=r"item_path names \{parent\.id\}, which is not known of a/b:NS"):
        source.item_request(endpoint, "a/b:NS")


def test_statuses_that_stand_for_an_empty_list_are_told_to_the_engine():
    endpoint = make_source(empty_status=[404], accept=[202]).endpoints()[0]

    assert (endpoint.empty_status, endpoint.accept_status) == ((404,), (202,))
