"""Where a chain of answers starts over instead of going on."""

from functools import partial
from pathlib import Path

import msgspec
import orjson
import pytest

from poller import Endpoint, Position
from poller.changes.certainty import MOST_EMPTY
from poller.changes.endpoint_rules import EndpointRules
from poller.changes.page import look_alike, quick_ids
from poller.documents.diff import compile_rules
from poller.polling.chain import Chain
from poller.sources.protocol import Unparsed
from tests.support.command_line import Run, Shop

RULES = EndpointRules(source="s", namespace="s", endpoint=Endpoint(name="items"), fields=compile_rules((), (), ()))


NOTHING = [Unparsed((), Position(cursor=str(number))) for number in range(MOST_EMPTY)]


def page(*ids: int, noise: int = 0, last: bool = False) -> Unparsed:
    objects = [msgspec.Raw(b'{"id":%d,"seen":%d}' % (number, noise)) for number in ids]
    return Unparsed(objects, None if last else Position(cursor=str(ids)))


def taken(*pages: Unparsed, rules: EndpointRules = RULES) -> list[tuple[int, bool, int]]:
    """(objects, whether it goes on, doubts) of each page as it counts."""
    chain = Chain(partial(quick_ids, rules), partial(look_alike, rules))
    return [(len(one.objects), one.next is not None, len(one.doubts)) for one in map(chain.add, pages)]


@pytest.mark.parametrize(
    ("pages", "latest"),
    [
        ([page(1, 2), page(3, 4)], (2, True, 0)),
        ([page(1, 2), page(1, 2, last=True)], (0, False, 1)),
        ([page(1, 2), page(1, 2, noise=7)], (0, False, 1)),
        ([page(1, 2), page(2, 1, noise=7)], (2, True, 0)),
        ([page(1, 2), page(3), page(1, 2)], (0, False, 1)),
        ([page(1, 2), page(3), page(1, 2, noise=7)], (2, False, 1)),
        ([page(1, 2), page(3), page(3)], (1, True, 0)),
        ([page(1, 2), page(3), page(3), page(3)], (0, False, 0)),
        ([page(1, 2), page(3), page(3), page(4)], (1, True, 0)),
        ([page(1, 2), *NOTHING[1:], page(3), *NOTHING[1:]], (0, True, 0)),
        ([page(1, 2), *NOTHING[1:], page(3), *NOTHING], (0, False, 0)),
    ],
    ids=[
        "other objects go on",
        "a cursor that is not known shows the first page again",
        "the objects count, not their bytes",
        "the same objects in another order may be a list whose order is not stable",
        "a list that starts over ends there",
        "what it shows again with other content is kept, so that these ids are set aside",
        "a page that is shown twice may be a list that moves",
        "a page that is shown three times is the last one",
        "a page that is shown twice and not a third time is none that ends the list",
        "pages that show nothing may be filtered",
        "so many in a row are behind the end",
    ],
)
def test_a_chain_ends_where_it_shows_an_earlier_page_again(pages, latest):
    assert taken(*pages)[-1] == latest


def test_a_last_page_that_is_repeated_counts_once():
    chain = Chain(partial(quick_ids, RULES), partial(look_alike, RULES))
    for one in (page(1, 2), page(3), page(3), page(3)):
        chain.add(one)

    assert [len(one.objects) for one in chain.pages] == [2, 1, 0, 0]
    assert "names a next page" in chain.pages[-1].guesses[0]


@pytest.mark.parametrize(
    ("name", "ignore", "exclude"), [("content", ["/seen"], []), ("id", [], ["/seen"])], ids=["content", "excluded"]
)
def test_a_field_that_does_not_count_hides_no_page_that_is_shown_again(name, ignore, exclude):
    rules = EndpointRules(
        source="s",
        namespace="s",
        endpoint=Endpoint(name="items", id=name),
        fields=compile_rules(ignore, exclude, ()),
    )
    assert taken(page(1, 2), page(1, 2, noise=7), rules=rules)[-1] == (0, False, 1)


CURSORS = """
[sources.shop.endpoints.orders]
path = "/orders"
items = "$.items"
pagination = { type = "cursor", next = "$.next" }
"""


def test_a_last_page_that_is_repeated_with_other_content_is_known_and_reported(
    poller: Run, shop: Shop, tmp_path: Path
) -> None:
    """Whether fields differ in every answer or two objects share an id cannot be told: neither is shown as ok."""
    shop.configure(tmp_path, more=CURSORS)
    pages = {"": [{"id": 0}], "?cursor=1": [{"id": 1, "signed": "a"}], "?cursor=2": [{"id": 1, "signed": "b"}]}
    for number, (query, items) in enumerate(pages.items(), 1):
        body = {"items": items, "next": str(number) if number < len(pages) else None}
        shop.answers[f"/orders{query}"] = (200, orjson.dumps(body), "application/json")
    poller("once")

    [orders] = [one for one in poller("status", "--json").json["endpoints"] if one["endpoint"] == "orders"]
    assert (orders["objects"], orders["state"]) == (2, "uncertain")
    assert "with other content: fields that differ in every answer (`ignore` them)" in orders["reason"]
