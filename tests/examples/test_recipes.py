import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller import Endpoint, Limit, Position, Source
from poller.app import open_app, sweep_once
from poller.clock import VirtualClock
from poller.config.load import load
from poller.config.models import Config
from poller.hooks.loading import Plugins, installed, load_plugins
from poller.sources.paths import identity
from tests.polling.test_engine_planning import World as Time
from tests.support.absence import believed_at_once
from tests.support.upstream import serving

EXAMPLES = Path(__file__).parents[2] / "examples"
OBJECTS = 230


@dataclass
class Upstream:
    """A list in the manner of a well-known API, and what it was asked."""

    objects: list[dict[str, Any]]
    asked: list[httpx.URL] = field(default_factory=list)

    def note(self, request: Request) -> None:
        self.asked.append(httpx.URL(str(request.url)))


@dataclass
class Recipe:
    """A recipe's source, set up against its upstream."""

    source: Source
    client: httpx.AsyncClient
    upstream: Upstream
    file: Path

    @property
    def endpoint(self) -> Endpoint:
        return self.source.endpoints()[0]

    async def walk(self, at: Position) -> tuple[list[str | None], list[Position]]:
        """The ids of all objects from `at` on, and the positions they were found at."""
        identify = identity(self.endpoint.id)
        ids, places, onward = [], [], at
        while onward is not None:
            places.append(onward)
            response = await self.client.send(self.source.request(self.endpoint, onward), auth=self.source.auth)
            assert response.status_code == 200, response.text
            page = self.source.page(self.endpoint, onward, response)
            ids += [identify(msgspec.json.decode(item)) for item in page.objects]
            onward = page.next
        return ids, places

    async def read(self, endpoint: Endpoint) -> tuple[list[str | None], list[str]]:
        """The ids of all objects of a list, and the doubts that its answers leave."""
        identify = identity(endpoint.id)
        ids, doubts, onward = [], [], endpoint.first
        while onward is not None:
            response = await self.client.send(self.source.request(endpoint, onward), auth=self.source.auth)
            page = self.source.page(endpoint, onward, response)
            ids += [identify(msgspec.json.decode(item)) for item in page.objects]
            doubts += page.doubts
            onward = page.next
        return ids, doubts


def unhurried(config: Config) -> Config:
    """The configuration with budgets that hold nothing up, and without the wait before a deletion is believed."""
    fast = {"limits": (Limit(10_000, 1.0),)}
    return believed_at_once(config).model_copy(
        update={"budgets": {name: budget.model_copy(update=fast) for name, budget in config.budgets.items()}}
    )


async def set_up(name: str, upstream: Upstream, routes: list[Route], folder: Path) -> AsyncIterator[Recipe]:
    """The example as it stands, but for its server's address."""
    async with serving(Starlette(routes=routes)) as url:
        text = (EXAMPLES / name / "poller.toml").read_text()
        file = folder / "poller.toml"
        file.write_text(re.sub(r'((?:base|token)_url = ")https?://[^/"]+', rf"\g<1>{url}", text))
        loaded = Plugins(installed())
        loaded.load_offered()
        source = next(iter(load(file, loaded).sources.values())).build()
        async with httpx.AsyncClient(trust_env=False) as client:
            yield Recipe(source, client, upstream, file)


def refused(request: Request, token: str) -> Response | None:
    return None if request.headers.get("authorization") == f"Bearer {token}" else Response(status_code=401)


# --- GitHub


@pytest.fixture
async def github(tmp_path, monkeypatch) -> AsyncIterator[Recipe]:
    upstream = Upstream([{"number": n, "updated_at": f"2026-01-01T00:{n % 60:02}:00Z"} for n in range(1, OBJECTS + 1)])

    async def issues(request: Request) -> Response:
        upstream.note(request)
        params = request.query_params
        found = [issue for issue in upstream.objects if issue["updated_at"] >= params.get("since", "")]
        size, page = int(params["per_page"]), int(params.get("page", 1))
        onward = f'<{request.url.include_query_params(page=page + 1)}>; rel="next", <{request.url}>; rel="first"'
        headers = {"Link": onward} if page * size < len(found) else {}
        shown = found[(page - 1) * size : page * size]
        return refused(request, "gh") or JSONResponse(shown, headers=headers)

    async def issue(request: Request) -> Response:
        number = request.path_params["number"]
        return JSONResponse({"number": number}, 200 if any(o["number"] == number for o in upstream.objects) else 404)

    monkeypatch.setenv("GITHUB_TOKEN", "gh")
    path = "/repos/OWNER/NAME/issues"
    routes = [Route(path, issues), Route(path + "/{number:int}", issue)]
    async for recipe in set_up("github-issues", upstream, routes, tmp_path):
        yield recipe


async def test_github_issues_are_read_page_by_page(github):
    ids, places = await github.walk(github.endpoint.first)

    assert ids == [str(n) for n in range(1, OBJECTS + 1)]
    assert places == [Position(page=1), Position(page=2), Position(page=3)]


async def test_github_tells_what_changed_since(github):
    assert github.endpoint.since

    ids, _ = await github.walk(replace(github.endpoint.first, since=1767226680.0))

    assert set(ids) == {str(n) for n in range(1, OBJECTS + 1) if n % 60 >= 18}
    assert github.upstream.asked[0].params["since"] == "2026-01-01T00:18:00Z"


@pytest.mark.parametrize(("number", "status"), [("1", 200), ("999", 404)])
async def test_a_github_issue_has_its_own_url(github, number, status):
    request = github.source.item_request(github.endpoint, number)

    assert (await github.client.send(request, auth=github.source.auth)).status_code == status


async def test_a_full_last_page_of_github_is_told_from_one_before_another_by_its_link(github):
    assert github.endpoint.page_headers == ("link",)


# --- Stripe


@pytest.fixture
async def stripe(tmp_path, monkeypatch) -> AsyncIterator[Recipe]:
    upstream = Upstream([{"id": f"cus_{n:03}", "object": "customer"} for n in reversed(range(OBJECTS))])

    async def customers(request: Request) -> Response:
        upstream.note(request)
        ids = [customer["id"] for customer in upstream.objects]
        after = request.query_params.get("starting_after")
        begin = ids.index(after) + 1 if after else 0
        end = begin + int(request.query_params["limit"])
        body = {
            "object": "list",
            "url": "/v1/customers",
            "has_more": end < len(ids),
            "data": upstream.objects[begin:end],
        }
        return refused(request, "rk") or JSONResponse(body)

    monkeypatch.setenv("STRIPE_KEY", "rk")
    async for recipe in set_up("stripe-customers", upstream, [Route("/v1/customers", customers)], tmp_path):
        yield recipe


async def test_stripe_customers_are_read_along_the_chain(stripe):
    ids, places = await stripe.walk(stripe.endpoint.first)

    assert ids == [customer["id"] for customer in stripe.upstream.objects]
    assert places == [Position(), Position(cursor="cus_130"), Position(cursor="cus_030")]


async def test_an_empty_stripe_account_is_an_empty_list(stripe):
    stripe.upstream.objects.clear()

    assert await stripe.walk(stripe.endpoint.first) == ([], [Position()])


# --- WordPress


@pytest.fixture
async def wordpress(tmp_path) -> AsyncIterator[Recipe]:
    upstream = Upstream([{"id": n, "modified_gmt": f"2026-01-01T00:{n % 60:02}:00"} for n in range(1, OBJECTS + 1)])

    async def posts(request: Request) -> Response:
        upstream.note(request)
        params = request.query_params
        after = params.get("modified_after", "").removesuffix("Z")
        found = [post for post in upstream.objects if post["modified_gmt"] > after]
        size, page = int(params["per_page"]), int(params["page"])
        shown = found[(page - 1) * size : page * size]
        if page > 1 and not shown:
            return JSONResponse({"code": "rest_post_invalid_page_number"}, 400)
        return JSONResponse(shown, headers={"X-WP-Total": str(len(found)), "X-WP-TotalPages": "?"})

    async for recipe in set_up("wordpress-posts", upstream, [Route("/wp-json/wp/v2/posts", posts)], tmp_path):
        yield recipe


async def test_wordpress_posts_are_read_page_by_page(wordpress):
    ids, places = await wordpress.walk(wordpress.endpoint.first)

    assert ids == [str(n) for n in range(1, OBJECTS + 1)]
    assert [at.page for at in places] == [1, 2, 3]


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (99, 1), (100, 1), (101, 2), (200, 2)])
async def test_no_page_behind_the_last_is_asked_of_wordpress(wordpress, count, pages):
    del wordpress.upstream.objects[count:]

    ids, places = await wordpress.walk(wordpress.endpoint.first)

    assert (len(ids), len(places)) == (count, pages)


async def test_wordpress_tells_what_changed_since(wordpress):
    ids, _ = await wordpress.walk(replace(wordpress.endpoint.first, since=1767226680.0))

    assert set(ids) == {str(n) for n in range(1, OBJECTS + 1) if n % 60 > 18}


# --- Home Assistant


def entities_of(number: int) -> list[dict[str, Any]]:
    return [{"entity_id": f"sensor.s{n}", "state": str(n)} for n in range(number)]


@pytest.fixture
async def home(tmp_path) -> AsyncIterator[Recipe]:
    upstream = Upstream(entities_of(OBJECTS))

    async def states(request: Request) -> Response:
        upstream.note(request)
        return refused(request, "ha") or JSONResponse(upstream.objects)

    async def state(request: Request) -> Response:
        known = {shown["entity_id"]: shown for shown in upstream.objects}
        name = request.path_params["name"]
        return JSONResponse(known.get(name, {"message": "Entity not found."}), 200 if name in known else 404)

    (tmp_path / "token").write_text("ha\n")
    routes = [Route("/api/states", states), Route("/api/states/{name}", state)]
    async for recipe in set_up("home-assistant", upstream, routes, tmp_path):
        yield recipe


async def test_home_assistants_states_are_one_list(home):
    ids, places = await home.walk(home.endpoint.first)

    assert ids == [f"sensor.s{n}" for n in range(OBJECTS)]
    assert places == [Position()]


@pytest.mark.parametrize(("name", "status"), [("sensor.s1", 200), ("sensor.gone", 404)])
async def test_an_entity_has_its_own_url(home, name, status):
    request = home.source.item_request(home.endpoint, name)

    assert (await home.client.send(request, auth=home.source.auth)).status_code == status


async def test_a_restart_of_home_assistant_deletes_and_creates_nothing(home):
    entities, plugins, clock = home.upstream.objects, load_plugins(lazily=True), VirtualClock()
    del entities[40:]  # so few that no guard holds them
    text = home.file.read_text().replace('"1/s"', '"1/20s"').replace('max_staleness = "10s"', 'max_staleness = "3m"')
    home.file.write_text(text)
    async with open_app(load(home.file, plugins), plugins, clock=clock) as app:
        time = Time.__new__(Time)
        time.app, time.clock, time.poll_loop = app, clock, app.engine.loops["home"]
        await time.run(30.0)
        for loaded, seconds in ((0, 20.0), (7, 180.0), (39, 60.0)):  # the last one is of a slow integration
            home.upstream.objects[:] = entities_of(40)[:loaded]
            await time.run(seconds)
        home.upstream.objects[:] = entities_of(40)
        await time.run(60.0)
        assert [one.type for one in app.store.log.read(limit=100) if not one.type.startswith("poller.")] == []

        del home.upstream.objects[-1]
        await time.run(1000.0)
        assert [one.subject for one in app.store.log.read(limit=100)] == ["states/sensor.s39"]


# --- The whole program with each of them


async def told(recipe: Recipe, new: dict[str, Any], *, at: int = OBJECTS) -> Counter[str]:
    """What the program tells after its baseline when one object is edited, one is gone and one is new."""
    plugins = load_plugins(lazily=True)
    config = load(recipe.file, plugins)
    objects = recipe.upstream.objects
    async with open_app(unhurried(config), plugins) as app:
        assert await sweep_once(app) == []
        objects[5]["name"] = "another"
        objects.insert(at, new)
        del objects[120]
        for _ in range(4):
            assert await sweep_once(app) == []
        return Counter(event.type for event in app.store.log.read(limit=1000))


def one_each(list_name: str) -> Counter[str]:
    return Counter({f"{list_name}.{kind}": 1 for kind in ("created", "updated", "deleted")})


async def test_the_program_tells_what_changes_among_github_issues(github):
    new = {"number": 231, "updated_at": "2026-01-02T00:00:00Z"}

    assert await told(github, new) == one_each("github.issues")


async def test_the_program_tells_what_changes_among_stripe_customers(stripe):
    assert await told(stripe, {"id": "cus_new", "object": "customer"}, at=0) == one_each("stripe.customers")


async def test_the_program_tells_what_changes_among_wordpress_posts(wordpress):
    new = {"id": 231, "modified_gmt": "2026-01-02T00:00:00"}

    assert await told(wordpress, new) == one_each("blog.posts")


async def test_the_program_tells_what_changes_among_home_assistants_states(home):
    assert await told(home, {"entity_id": "sensor.new", "state": "on"}) == one_each("home.states")
