import json
from typing import Any

import httpx
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from plugins.nutcache.source import NutcacheOptions, NutcacheSource
from plugins.rest import RestOptions, RestSource
from poller import PageError, Source
from poller.changes.page import EndpointRules, compare
from poller.documents.diff import compile_rules, dump

STYLES: list[dict[str, Any]] = [
    {},
    {"pagination": {"type": "page", "total": "$.total"}, "items": "items"},
    {"pagination": {"type": "offset", "total_header": "X-Total"}, "items": "items"},
    {"pagination": {"type": "cursor"}, "items": "items"},
    {"pagination": {"type": "cursor", "next": "$.items[-1].id", "more": "$.more"}, "items": "$.items[*]"},
    {"pagination": {"type": "link"}, "items": "items"},
]
NAMES = st.sampled_from(["items", "next", "total", "more", "id", "projects", "links", "href", "rel"])
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "/x?y",
        "http://[",
        "https://\u2028?",
        "?page=2",
        "?page=" + "1" * 5000,
        "navigation-next",
        "1" * 5000,
        "\ud7ff",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
LISTS = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=2)
LINKS = st.lists(st.fixed_dictionaries({"rel": st.just("navigation-next"), "href": VALUES | TEXTS}), max_size=2)
LIKELY = st.fixed_dictionaries(
    {"items": LISTS, "projects": LISTS},
    optional={"next": VALUES | TEXTS, "total": VALUES | TEXTS, "more": st.booleans(), "links": LINKS},
)
BODIES = (VALUES | LIKELY).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Link": st.sampled_from(['<http://[>; rel="next"', "<>; rel=next", "next", '<?page=x>; rel="next"', ";;,<"]),
        "X-Total": st.sampled_from(["-1", "1e9", "²", "9" * 400]),
    },
)


def reads_or_sets_aside(source: Source, body: bytes, headers: dict[str, str]) -> None:
    endpoint = source.endpoints()[0]
    request = source.request(endpoint, endpoint.first)
    response = httpx.Response(200, content=body, headers=[(k, v.encode()) for k, v in headers.items()], request=request)
    try:
        page = source.page(endpoint, endpoint.first, response)
        if page.next is not None:
            source.request(endpoint, page.next)
        objects = [item if isinstance(item, msgspec.Raw) else msgspec.Raw(dump(item)) for item in page.objects]
        rules = compile_rules(endpoint.ignore, endpoint.exclude, endpoint.unordered)
        comparison = compare(
            EndpointRules(source="shop", namespace="shop", endpoint=endpoint, fields=rules), objects, {}
        )
    except PageError:
        return
    assert all(isinstance(shown.parsed(), dict) for shown in comparison.fresh)


@given(style=st.sampled_from(STYLES), body=BODIES, headers=HEADERS)
def test_any_answer_is_a_page_or_set_aside(style, body, headers):
    table = {"base_url": "https://shop.example", "endpoints": {"items": {"path": "/items", **style}}}

    reads_or_sets_aside(RestSource("shop", RestOptions.model_validate(table)), body, headers)


@given(body=BODIES)
def test_any_answer_of_nutcache_is_a_page_or_set_aside(body):
    table = {"access_token": "t", "company": "5f0c1d2e-77aa-4b1c-9d3e-0a1b2c3d4e5f", "endpoints": {"projects": {}}}

    reads_or_sets_aside(NutcacheSource("acme", NutcacheOptions.model_validate(table)), body, {})
