import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from poller import PageError, Position
from poller.sources.contradictions import count_of
from poller.sources.pagination import Pagination, first, following, is_url, page_headers, parameters, same_origin
from poller.sources.paths import Answer

STYLE = TypeAdapter(Pagination)
URL = "https://shop.example/items"
Serve = Callable[[httpx.Request], httpx.Response]


def make_style(**table: Any) -> Pagination:
    return STYLE.validate_python(table)


def answer(body: Any, url: str = URL, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=body, headers=headers, request=httpx.Request("GET", url))


def after(style: Pagination, at: Position, response: httpx.Response, count: int = 0) -> Position | None:
    return following(style, at, answer=Answer(response.content), count=count, response=response).next


def walked(style: Pagination, serve: Serve, most: int = 200) -> list[int]:
    """Every object that the list shows when it is followed to its end."""
    at: Position | None = first(style)
    shown: list[int] = []
    for _ in range(most):
        if at is None:
            return shown
        url = httpx.URL(at.cursor) if at.cursor and is_url(at.cursor) else httpx.URL(URL)
        request = httpx.Request("GET", url.copy_merge_params(parameters(style, at)))
        response = serve(request)
        response.request = request
        objects = Answer(response.content).objects()
        shown += [json.loads(bytes(item))["id"] for item in objects]
        at = following(style, at, answer=Answer(response.content), count=len(objects), response=response).next
    raise AssertionError("the list does not end")


def cut(request: httpx.Request, ids: range, start: int, size: int) -> list[dict[str, int]]:
    return [{"id": n} for n in ids[start : start + size]]


def by_page(ids: range, size: int, *, begin: int, total: bool) -> Serve:
    def serve(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params["p"])
        found = cut(request, ids, (page - begin) * size, size)
        return httpx.Response(200, json={"items": found, "total": len(ids)} if total else found)

    return serve


def by_offset(ids: range, size: int) -> Serve:
    def serve(request: httpx.Request) -> httpx.Response:
        params = request.url.params
        return httpx.Response(200, json=cut(request, ids, int(params["offset"]), int(params["limit"])))

    return serve


def by_token(ids: range, size: int, *, more: bool) -> Serve:
    """Stripe's way with `more` (the last object's id), a token in the answer without."""

    def serve(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("after", -1)) + 1
        found = cut(request, ids, start, size)
        left = start + size < len(ids)
        said: dict[str, Any] = {"has_more": left} if more else {"next": str(start + size - 1) if left else None}
        return httpx.Response(200, json={"data": found, **said})

    return serve


def by_link(ids: range, size: int, *, param: str) -> Serve:
    def serve(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params.get(param, 1))
        found = cut(request, ids, (page - 1) * size, size)
        headers = (
            {"Link": f'<{URL}?{param}={page + 1}>; rel="next", <{URL}>; rel="first"'} if page * size < len(ids) else {}
        )
        return httpx.Response(200, json=found, headers=headers)

    return serve


def ways(ids: range, size: int) -> list[tuple[Pagination, Serve]]:
    page = {"type": "page", "param": "p"}
    token = {"type": "cursor", "param": "after"}
    return [
        (make_style(**page, size_param="n", size=size), by_page(ids, size, begin=1, total=False)),
        (make_style(**page), by_page(ids, size, begin=1, total=False)),
        (make_style(**page, start=0, size=size), by_page(ids, size, begin=0, total=False)),
        (make_style(**page, size=size, total="$.total"), by_page(ids, size, begin=1, total=True)),
        (make_style(type="offset", size=size), by_offset(ids, size)),
        (make_style(**token), by_token(ids, size, more=False)),
        (make_style(**token, next="$.data[-1].id", more="$.has_more"), by_token(ids, size, more=True)),
        (make_style(type="link"), by_link(ids, size, param="page")),
        (make_style(type="link"), by_link(ids, size, param="after_key")),
        (make_style(type="none"), by_page(ids, len(ids) + 1, begin=1, total=False)),
    ]


@settings(deadline=None)  # a deadline would measure the machine
@given(count=st.integers(0, 40), size=st.integers(1, 12), way=st.integers(0, 8))
def test_every_style_shows_every_object_once_and_ends(count, size, way):
    style, serve = ways(range(count), size)[way]

    assert walked(style, serve) == list(range(count))


def test_a_page_by_links_that_count_is_a_page_of_its_own():
    response = answer([], Link=f'<{URL}?page=2>; rel="next"')

    assert after(make_style(type="link"), Position(page=1), response) == Position(page=2)


@pytest.mark.parametrize(
    "href",
    [f"{URL}?after=x", f"{URL}?page=2&after=x", f"{URL}?page=7", f"{URL}?page=x"],
    ids=["a key", "a page and a key", "not the next page", "no number"],
)
def test_any_other_link_is_followed_as_it_is(href):
    response = answer([], Link=f'<{href}>; rel="next"')

    assert after(make_style(type="link"), Position(page=1), response) == Position(cursor=href)


@pytest.mark.parametrize(
    "header",
    [
        '</items?page=2>; rel="next"',
        "<?page=2>; rel=next",
        '<https://shop.example/items?page=9>; rel="last", <?page=2>; rel="NEXT"',
        '<?page=2>; title="a"; rel="next last"',
        '<https://shop.example/items;v=1,2?page=1>; rel="prev", <?page=2>; Rel=next',
        '<?page=2>; title="a=b, <x>; rel=prev"; rel="next"',
        "<https://shop.example>; rel=preconnect; crossorigin, <?page=2>; rel=next",
        '<?page=9>; rel=last; title="say \\"next\\", please", <?page=2>; rel=next;,',
        "<?page=2>;rel='next';title*=UTF-8''%e2%82%ac",
    ],
)
def test_links_are_read_as_rfc_8288_writes_them(header):
    assert after(make_style(type="link"), Position(page=1), answer([], Link=header)) == Position(page=2)


def test_a_link_that_says_that_it_shows_nothing_is_the_end():
    header = '<?page=1>; rel="previous"; results="true", <?page=2>; rel="next"; results="false"; cursor="0:100:0"'

    assert after(make_style(type="link"), Position(page=1), answer([], Link=header)) is None


def test_a_position_keeps_its_since_and_parent():
    at = Position(page=1, since=5.0, parent={"id": 1})

    onward = after(make_style(type="page", size=1), at, answer([]), count=1)

    assert onward == Position(page=2, since=5.0, parent={"id": 1})


@pytest.mark.parametrize(
    ("table", "body", "url"),
    [
        ({"type": "cursor"}, {"next": "https://evil.example/?c=1"}, URL),
        ({"type": "cursor"}, {"next": "http://shop.example/items?c=1"}, URL),
        ({"type": "cursor"}, {"next": {"a": 1}}, URL),
        ({"type": "cursor", "more": "$.more"}, {"next": None, "more": True}, URL),
    ],
    ids=["another host", "another scheme", "an object", "more of nothing"],
)
def test_a_cursor_that_leads_nowhere_good_is_an_error(table, body, url):
    with pytest.raises(PageError):
        after(make_style(**table), Position(), answer(body, url))


def test_a_list_that_names_itself_as_next_would_never_end():
    with pytest.raises(PageError, match="never end"):
        after(make_style(type="cursor", more="$.more"), Position(cursor="7"), answer({"next": 7, "more": True}))
    with pytest.raises(PageError, match="never end"):
        after(make_style(type="link"), Position(page=1), answer([], Link=f'<{URL}>; rel="next"'))


def test_a_cursor_that_stands_still_is_the_end():
    assert after(make_style(type="cursor"), Position(cursor="7"), answer({"next": 7})) is None


FLAGS = [
    (True, True),
    ("true", True),
    ("True", True),
    (1, True),
    ("1", True),
    (False, False),
    ("false", False),
    (0, False),
]


@pytest.mark.parametrize(("flag", "is_true"), FLAGS)
@pytest.mark.parametrize("kind", ["cursor", "page", "offset"])
def test_a_flag_says_whether_the_list_goes_on_in_every_form(kind, flag, is_true):
    body = {"next": "x", "flag": flag}

    more = after(make_style(type=kind, more="$.flag"), first(make_style(type=kind)), answer(body))
    last = after(make_style(type=kind, last="$.flag"), first(make_style(type=kind)), answer(body))

    assert (more is not None, last is not None) == (is_true, not is_true)


@pytest.mark.parametrize(
    ("table", "body", "doubt"),
    [
        ({"type": "page", "more": "$.has_more"}, {}, "more = '$.has_more' matches nothing"),
        ({"type": "cursor", "last": "$.is_last"}, {"is_last": "maybe"}, "last = '$.is_last' is 'maybe'"),
        ({"type": "page", "total": "$.meta.total"}, {"total": 3}, "total = '$.meta.total' matches nothing"),
        ({"type": "page", "total": "$.total"}, {"total": None}, "total = '$.total' is 'None'"),
        ({"type": "offset", "total_header": "X-Count"}, [], "total_header = 'X-Count' matches nothing"),
        ({"type": "page", "size": 300, "total": "$.n"}, {"n": 288}, "size = 300, but the answer holds 100 of 288"),
        ({"type": "none"}, {"next": "https://shop.example/items?page=2"}, "names a next page (next)"),
        ({"type": "page", "size": 200}, {"next_page": 2}, "names a next page (next_page)"),
        ({"type": "none"}, {"has_more": True}, "says has_more = true"),
        ({"type": "cursor", "next": "$.cursor"}, {"hasMore": "true"}, "says hasMore = true"),
        ({"type": "none"}, {"links": {"next": "/items?page=2"}}, "names a next page (links.next)"),  # JSON:API
        ({"type": "none"}, {"_links": {"next": {"href": "/items?page=2"}}}, "names a next page (_links.next)"),  # HAL
        ({"type": "none"}, {"paging": {"next": {"after": "20"}}}, "names a next page (paging.next)"),  # HubSpot
        ({"type": "none"}, {"response_metadata": {"next_cursor": "x"}}, "(response_metadata.next_cursor)"),  # Slack
        ({"type": "none"}, {"NextToken": "x"}, "names a next page (NextToken)"),  # Amazon
        ({"type": "none"}, {"info": {"more_records": True}}, "says info.more_records = true"),  # Zoho
        ({"type": "none"}, {"last": False}, "says last = false"),  # Spring
        ({"type": "none"}, {"total": 288}, "total = 288 and shows 100 objects"),
        ({"type": "none"}, {"page": {"totalElements": 288}}, "page.totalElements = 288 and shows 100 objects"),
        ({"type": "page", "total": "$.pages"}, {"pages": 3}, "it may be the number of pages"),
        ({"type": "page", "size": 200}, {"meta": {"last_page": 3}}, "meta.last_page = 3 where the list should end"),
        ({"type": "none", "total": "$.total"}, {"total": 10_000}, "many search engines count no further"),
    ],
    ids=str,
)
def test_what_the_answer_says_against_the_configuration_is_a_doubt(table, body, doubt):
    style, response = make_style(**table), answer(body)

    found = following(style, first(style), answer=Answer(response.content), count=100, response=response)

    assert [one for one in (*found.doubts, *found.guesses) if doubt in one] != []


@pytest.mark.parametrize(
    ("body", "headers", "is_guess"),
    [
        ({"next": "https://shop.example/items?page=2"}, {}, False),
        ({"next": "/items?page=2"}, {}, False),
        ({"links": {"next": {"href": "?page=2"}}}, {}, False),
        ({"next": "/events/tomorrow"}, {}, True),
        ({"next": "https://shop.example/items"}, {}, True),
        ({"total": 288}, {}, True),
        ({"has_more": True}, {}, True),
        ([], {"X-Total-Count": "288"}, True),
        ([], {"Link": '<https://shop.example/items?page=2>; rel="next"'}, False),
        ([], {"Content-Range": "items 0-99/288"}, False),
    ],
    ids=str,
)
def test_a_member_that_nobody_configured_is_a_guess_unless_it_leads_to_the_same_list(body, headers, is_guess):
    response = answer(body, **headers)

    found = following(make_style(type="none"), Position(), answer=Answer(response.content), count=9, response=response)

    assert (len(found.doubts), len(found.guesses)) == ((0, 1) if is_guess else (1, 0))


@pytest.mark.parametrize(
    "body",
    [
        {"links": {"next": None, "last": "/items?page=9"}},
        {"_links": {"self": {"href": "/items?page=9"}, "next": {"href": None}}},
        {"info": {"more_records": False}, "last": True, "is_truncated": "false", "next_payment": "tomorrow"},
    ],
    ids=str,
)
def test_a_member_that_names_no_next_page_is_no_doubt(body):
    response = answer(body)

    found = following(make_style(type="none"), Position(), answer=Answer(response.content), count=9, response=response)

    assert (found.doubts, found.guesses) == ((), ())


@pytest.mark.parametrize(
    ("page", "body", "is_last"),
    [
        (2, {"next": None, "previous": "/items?page=1"}, True),  # Django REST framework
        (1, {"next": None, "previous": None, "count": 9}, True),
        (1, {"next": None, "previous": None, "count": 20}, False),
        (2, {"next": None, "previous": None, "count": 9}, False),
        (2, {"next": None}, False),
        (2, {"next": "/items?page=3", "previous": "/items?page=1"}, False),
        (2, {"links": {"next": None, "prev": "/items?page=1"}}, True),
        (2, {"last": True}, True),
        (2, {"has_more": False}, True),
        (2, {"has_more": None}, False),
    ],
    ids=str,
)
def test_a_full_page_that_says_it_is_the_last_is_followed_by_one_that_need_not_exist(page, body, is_last):
    style, response = make_style(type="page"), answer(body)

    found = following(style, Position(page=page), answer=Answer(response.content), count=9, response=response)

    onward = Position(page=page + 1)
    assert (found.next, found.beyond) == ((None, onward) if is_last else (onward, None))


@pytest.mark.parametrize("cursor", [None, "", False])
def test_a_cursor_that_is_nothing_ends_the_list(cursor):
    assert after(make_style(type="cursor"), Position(cursor="99"), answer({"next": cursor})) is None


@pytest.mark.parametrize("object_id", [0, "0", "null", "None", "undefined", 1.5])
def test_a_cursor_that_is_the_id_of_an_object_does_not_end_the_list(object_id):
    style = make_style(type="cursor", next="$.data[-1].id")

    following_it = after(style, first(style), answer({"data": [{"id": object_id}]}))

    assert following_it is not None
    assert following_it.cursor == str(object_id)


@pytest.mark.parametrize(("style", "at"), [("page", Position(page=2)), ("offset", Position(offset=100))])
def test_an_answer_after_the_first_may_have_no_total(style, at):
    response = answer({"total": None})

    found = following(
        make_style(type=style, total="$.total"), at, answer=Answer(response.content), count=9, response=response
    )

    assert (found.total, found.doubts) == (None, ())


@pytest.mark.parametrize(
    ("body", "headers", "counted"),
    [
        ({"count": 288}, {}, ("count", 288)),
        ({"meta": {"total": "288"}}, {}, ("meta.total", 288)),
        ([], {"X-Total-Count": "288"}, ("x-total-count", 288)),
        ({"total": "many"}, {}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("table", [{"type": "page", "size": 100}, {"type": "cursor"}, {"type": "link"}], ids=str)
def test_the_last_answer_of_a_list_may_count_it_without_being_asked(table, body, headers, counted):
    style, response = make_style(**table), answer(body, **headers)

    found = following(style, first(style), answer=Answer(response.content), count=9, response=response)

    assert (found.guessed_total, found.guesses) == (counted, ())


@pytest.mark.parametrize(
    ("headers", "doubt"),
    [
        ({"Link": '<https://shop.example/items?page=2>; rel="next"'}, "Link header"),
        ({"X-Total-Count": "288"}, "x-total-count = 288"),
        ({"Content-Range": "items 0-99/288"}, "content-range = 288"),
    ],
    ids=str,
)
def test_what_the_headers_say_against_the_configuration_is_a_doubt(headers, doubt):
    style, response = make_style(type="none"), answer([], **headers)

    found = following(style, Position(), answer=Answer(response.content), count=100, response=response)

    assert [one for one in (*found.doubts, *found.guesses) if doubt in one] != []


@pytest.mark.parametrize(
    ("table", "body", "count"),
    [
        ({"type": "none"}, {"next": None, "has_more": False, "total": 100}, 100),
        ({"type": "page", "size": 100, "total": "$.total"}, {"total": 40, "next": ""}, 40),
        ({"type": "cursor"}, {"next": None, "total": 900}, 7),
        ({"type": "page", "last": "$.end"}, {"end": True, "next_page": 9}, 7),
    ],
    ids=str,
)
def test_an_answer_that_agrees_with_the_configuration_leaves_no_doubt(table, body, count):
    style, response = make_style(**table), answer(body)

    found = following(style, first(style), answer=Answer(response.content), count=count, response=response)

    assert found.doubts == ()
    assert found.next is None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("288", 288),
        (288, 288),
        (288.0, 288),
        ("288.0", 288),
        (288.5, None),
        ("0-9/20", 20),
        ("items 0-9/20", 20),
        ("*/0", 0),
        ("0-9/*", None),
        (True, None),
        (-1, None),
    ],
)
def test_a_total_is_read_in_every_form(text, count):
    assert count_of(text) == count


def test_the_next_token_may_be_in_a_header():
    style = make_style(type="cursor", param="_token", next="header:Next-Page")

    assert after(style, Position(), answer([], **{"Next-Page": "abc"})) == Position(cursor="abc")
    assert after(style, Position(cursor="abc"), answer([])) is None
    assert page_headers(style) == ("next-page",)


def test_a_relative_url_without_a_query_is_followed_where_it_is_said_to_be_one():
    style = make_style(type="cursor", next="$.nextRecordsUrl", next_is="url")

    onward = after(style, Position(), answer({"nextRecordsUrl": "/query/01gD-2000"}))

    assert onward == Position(cursor="https://shop.example/query/01gD-2000")


@pytest.mark.parametrize("kind", ["cursor", "link"])
def test_a_next_url_of_a_server_behind_a_proxy_is_asked_at_our_own_origin(kind):
    inner = "http://10.0.0.7:8080/items?after=9"
    response = answer({"next": inner}, Link=f'<{inner}>; rel="next"')

    with pytest.raises(PageError, match="another origin"):
        after(make_style(type=kind), Position(), response)
    rebased = after(make_style(type=kind, rebase=True), Position(), response)

    assert rebased == Position(cursor="https://shop.example/items?after=9")


def test_a_link_header_that_cannot_be_read_is_no_end():
    with pytest.raises(PageError, match="Link header"):
        after(make_style(type="link"), Position(page=1), answer([], Link="next=/items?page=2"))


@pytest.mark.parametrize("nothing", [None, "", False])
def test_a_chain_ends_where_there_is_no_next(nothing):
    assert after(make_style(type="cursor"), Position(), answer({"next": nothing})) is None
    assert after(make_style(type="cursor"), Position(), answer({})) is None


@pytest.mark.parametrize(("total", "goes_on"), [("101", True), ("0-99/101", True), ("100", False), ("many", True)])
def test_a_total_in_a_header_tells_whether_a_full_page_is_the_last(total, goes_on):
    style = make_style(type="page", size=100, total_header="X-WP-Total")

    onward = after(style, Position(page=1), answer([], **{"X-WP-Total": total}), count=100)

    assert (onward is not None) == goes_on
    assert page_headers(style) == ("x-wp-total",)


def test_an_answer_short_of_its_size_goes_on_after_its_last_object_where_the_total_says_that_there_are_more():
    style = make_style(type="offset", size=10, total="$.total")

    assert after(style, Position(offset=0), answer({"total": 11}), count=7) == Position(offset=7)
    assert after(style, Position(offset=7), answer({"total": 11}), count=4) is None


def test_a_total_that_a_full_page_exceeds_counts_for_nothing():
    style = make_style(type="page", size=10, total="$.total")

    assert after(style, Position(page=2), answer({"total": 15}), count=10) == Position(page=3)
    assert after(style, Position(page=2), answer({"total": 15}), count=5) is None


@pytest.mark.parametrize(
    ("table", "count", "beyond"),
    [
        ({"type": "page", "size": 10}, 7, Position(page=4)),
        ({"type": "page", "size": 10, "size_param": "n"}, 1, Position(page=4)),
        ({"type": "offset", "size": 10}, 7, Position(offset=37)),
        ({"type": "page", "size": 10}, 0, None),
        ({"type": "page", "size": 10}, 10, None),
        ({"type": "page"}, 0, None),
        ({"type": "page", "size": 10, "total": "$.total"}, 7, None),
        ({"type": "page", "size": 10, "total": "$.total"}, 10, Position(page=4)),
        ({"type": "page", "size": 10, "more": "$.more"}, 7, None),
        ({"type": "link"}, 7, None),
        ({"type": "cursor"}, 7, None),
        ({"type": "none"}, 7, None),
    ],
    ids=str,
)
def test_a_list_may_go_on_beyond_a_page_that_is_the_last_only_by_its_number_of_objects(table, count, beyond):
    at = (
        Position(page=3)
        if table["type"] == "page"
        else Position(offset=30)
        if table["type"] == "offset"
        else Position()
    )
    response = answer({"total": 20 + count, "more": False})

    assert (
        following(make_style(**table), at, answer=Answer(response.content), count=count, response=response).beyond
        == beyond
    )


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ("https://a.example/x", True),
        ("/items?after=1", True),
        ("?after=1", True),
        ("/w8BAgMEBQ==", False),
        ("eyJpZCI6MX0", False),
        ("cus_123", False),
    ],
)
def test_a_url_is_told_from_a_token(cursor, expected):
    assert is_url(cursor) == expected


def test_the_default_port_is_the_same_origin():
    assert same_origin(httpx.URL("https://a.example:443/x"), httpx.URL("https://a.example/y"))
    assert not same_origin(httpx.URL("https://a.example"), httpx.URL("https://b.a.example"))


@pytest.mark.parametrize(
    "table",
    [
        {"type": "page", "size_param": "n"},
        {"type": "cursor", "size": 3},
        {"type": "page", "total": "$.t", "total_header": "X-T"},
        {"type": "page", "size": 0},
        {"type": "offset", "start": -1},
        {"type": "cursor", "next": "$.["},
        {"type": "link", "in": "header"},
        {"type": "pages"},
        {},
    ],
    ids=str,
)
def test_a_table_that_cannot_work_is_refused(table):
    with pytest.raises(ValidationError):
        make_style(**table)
