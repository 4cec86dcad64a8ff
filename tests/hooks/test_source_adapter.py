"""What a plugin's source leaves out has a default, and what its code raises costs one poll."""

from __future__ import annotations

import httpx
import msgspec
import pytest
from pydantic import BaseModel

from poller import Endpoint, Page, PageError, Position
from poller.hooks.source_adapter import SourceAdapter

THINGS = Endpoint("things")
FIRST = Position()


class Least:
    """As little as a source can be."""

    Options = BaseModel
    limits = ()

    def endpoints(self):
        return [THINGS]

    def request(self, endpoint, at):
        return httpx.Request("GET", "https://api.example/things")

    def page(self, endpoint, at, response):
        return Page(response.json())


def plugged(source=None, **members):
    """The source with these members of its class set."""
    cls = type("Broken", (Least,), members) if source is None else source
    return SourceAdapter("broken", cls())


def answer(objects, source):
    return httpx.Response(200, json=objects, request=source.request(THINGS, FIRST))


def raising(*_):
    raise KeyError("boom")


def test_auth_item_request_and_discover_may_be_left_out():
    source = plugged(Least)

    assert source.auth is None
    assert source.item_request(THINGS, "1") is None
    assert list(source.discover()) == []


def test_objects_are_handed_on_unparsed():
    source = plugged(Least)

    [shown] = source.page(THINGS, FIRST, answer([{"id": 1}], source)).objects

    assert isinstance(shown, msgspec.Raw)
    assert bytes(shown) == b'{"id":1}'


@pytest.mark.parametrize(
    ("member", "call"),
    [
        ("endpoints", lambda source: source.endpoints()),
        ("request", lambda source: source.request(THINGS, FIRST)),
        ("page", lambda source: source.page(THINGS, FIRST, httpx.Response(200))),
        ("item_request", lambda source: source.item_request(THINGS, "1")),
        ("discover", lambda source: list(source.discover())),
    ],
)
def test_what_a_plugin_raises_is_told_with_its_name_and_where(member, call):
    source = plugged(**{member: raising})

    with pytest.raises(PageError, match=rf"the plugin 'broken' failed in {member}\(\): KeyError: 'boom' \(line \d+ of"):
        call(source)


@pytest.mark.parametrize(
    "given",
    [
        *(None, [{"id": 1}], Page([object()]), Page(None), Page([], next=2), Page([], next="x"), Page([], total="7")),
        *(Page([], guessed_total=wrong) for wrong in (7, ["count", 7], ("count",), ("count", "7"), (7, 7))),
    ],
)
def test_a_page_that_is_none_is_told(given):
    source = plugged(page=lambda *_: given)

    with pytest.raises(PageError, match=r"'broken' failed in page\(\)"):
        source.page(THINGS, FIRST, httpx.Response(200))


def test_a_plugins_own_page_error_stays_as_it_is():
    def page(*_):
        raise PageError("not a list")

    with pytest.raises(PageError, match=r"^not a list$"):
        plugged(page=page).page(THINGS, FIRST, httpx.Response(200))


def test_normalising_is_guarded_too():
    [endpoint] = plugged(endpoints=lambda _: [Endpoint(name="things", normalise=raising)]).endpoints()

    with pytest.raises(PageError, match=r"failed in normalise\(\)"):
        endpoint.normalise({})


class Failing(httpx.Auth):
    def auth_flow(self, request):
        yield request
        raise KeyError("token")


class Twice(httpx.Auth):
    def auth_flow(self, request):
        yield httpx.Request("POST", "https://api.example/token")
        yield request


async def send(auth):
    asked = []

    def respond(request):
        asked.append(request.url.path)
        return httpx.Response(200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond), auth=auth) as client:
        await client.get("https://api.example/things")
    return asked


async def test_an_auth_flow_runs_as_the_plugin_wrote_it():
    assert await send(plugged(auth=Twice()).auth) == ["/token", "/things"]


async def test_an_auth_flow_that_raises_is_told():
    with pytest.raises(PageError, match=r"failed in auth\(\): KeyError: 'token'"):
        await send(plugged(auth=Failing()).auth)


def page_after(at, following, first=FIRST):
    """What the source says of the page at `at`, where the plugin goes on with `following`."""
    source = plugged(page=lambda *_: Page([], following))
    return source.page(Endpoint(name="things", first=first), at, httpx.Response(200))


@pytest.mark.parametrize(
    ("at", "following", "says"),
    [
        (Position(page=100_001), Position(page=100_002), "the list has not ended after 100,001 pages"),
        (Position(page=7), Position(page=10**30), "the list has not ended after 999,999,999,999,9"),
        (Position(page=-7), Position(page=-100_002), "the list has not ended after 100,003 pages"),
        (Position(offset=0), Position(offset=10_000_100), "the list has not ended after 10,000,100 objects"),
        (Position(cursor="a"), Position(cursor="a"), "the next cursor is the one that was just used"),
    ],
)
def test_a_list_that_never_ends_is_an_error(at, following, says):
    with pytest.raises(PageError, match=f"^things: {says}"):
        page_after(at, following, Position(page=1) if at.page else FIRST)


def test_a_long_list_ends_where_it_says():
    assert page_after(Position(page=99_999), Position(page=100_001), Position(page=1)).next == Position(page=100_001)
    assert page_after(Position(cursor="a"), Position(cursor="b")).next == Position(cursor="b")
