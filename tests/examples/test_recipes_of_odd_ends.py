"""Recipes for APIs whose lists end in ways of their own, each against a server of the same shape."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller.app import open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.sources.protocol import Item
from tests.examples.test_recipes import Recipe, Upstream, set_up, unhurried

Handler = Callable[[Request], Awaitable[Response]]
MANY = 230


def page_of(upstream: Upstream, begin: int, size: int) -> tuple[list[dict[str, Any]], int | None]:
    """A part of the list, and where the next one begins."""
    end = begin + size
    return upstream.objects[begin:end], end if end < len(upstream.objects) else None


def by_id(upstream: Upstream, name: str = "id") -> Handler:
    async def item(request: Request) -> Response:
        wanted = request.path_params["id"]
        found = [one for one in upstream.objects if str(one[name]) == str(wanted)]
        return JSONResponse(found[0] if found else {"message": "not found"}, 200 if found else 404)

    return item


def shopify(upstream: Upstream) -> list[Route]:
    async def orders(request: Request) -> Response:
        body = await request.json()
        shown, onward = page_of(upstream, int(body["variables"].get("after", 0)), 100)
        info = {"endCursor": onward and str(onward), "hasNextPage": onward is not None}
        return JSONResponse({"data": {"orders": {"nodes": shown, "pageInfo": info}}})

    async def products(request: Request) -> Response:
        shown, onward = page_of(upstream, int(request.query_params.get("page_info", 0)), 100)
        url = request.url.remove_query_params("page_info").include_query_params(page_info=onward)
        return JSONResponse({"products": shown}, headers={"Link": f'<{url}>; Rel="next"'} if onward else {})

    path = "/admin/api/2025-10"
    return [
        Route(path + "/graphql.json", orders, methods=["POST"]),
        Route(path + "/products.json", products),
        Route(path + "/products/{id}.json", by_id(upstream)),
    ]


def hubspot(upstream: Upstream) -> list[Route]:
    async def search(request: Request) -> Response:
        body = await request.json()
        since = int(body["filterGroups"][0]["filters"][0]["value"])
        found = [one for one in upstream.objects if one.get("at", since) >= since]
        begin = int(body.get("after", 0))
        onward = begin + 100 if begin + 100 < len(found) else None
        paging = {"paging": {"next": {"after": str(onward)}}} if onward else {}
        return JSONResponse({"total": len(found), "results": found[begin : begin + 100], **paging})

    path = "/crm/v3/objects/contacts"
    return [Route(path + "/search", search, methods=["POST"]), Route(path + "/{id}", by_id(upstream))]


def notion(upstream: Upstream) -> list[Route]:
    async def query(request: Request) -> Response:
        body = await request.json()
        shown, onward = page_of(upstream, int(body.get("start_cursor", 0)), body["page_size"])
        return JSONResponse({"results": shown, "next_cursor": onward and str(onward), "has_more": onward is not None})

    return [
        Route("/v1/databases/DATABASE/query", query, methods=["POST"]),
        Route("/v1/pages/{id}", by_id(upstream)),
    ]


def zendesk(upstream: Upstream) -> list[Route]:
    async def export(request: Request) -> Response:
        begin = int(request.query_params.get("cursor", "c0")[1:])
        shown, onward = page_of(upstream, begin, 100)
        cursor = f"c{onward or begin}"
        return JSONResponse({"tickets": shown, "after_cursor": cursor, "end_of_stream": onward is None})

    return [Route("/api/v2/incremental/tickets/cursor.json", export)]


def salesforce(upstream: Upstream) -> list[Route]:
    async def token(request: Request) -> Response:
        return JSONResponse({"access_token": "t", "token_type": "Bearer"})

    async def query(request: Request) -> Response:
        begin = int(request.path_params.get("at", "q-0").split("-")[1])
        shown, onward = page_of(upstream, begin, 100)
        rest = {"nextRecordsUrl": f"/services/data/v62.0/query/q-{onward}"} if onward else {}
        return JSONResponse({"totalSize": len(upstream.objects), "done": not onward, "records": shown, **rest})

    path = "/services/data/v62.0"
    return [
        Route("/services/oauth2/token", token, methods=["POST"]),
        Route(path + "/query", query),
        Route(path + "/query/{at}", query),
        Route(path + "/sobjects/Account/{id}", by_id(upstream, "Id")),
    ]


def jira(upstream: Upstream) -> list[Route]:
    async def search(request: Request) -> Response:
        shown, onward = page_of(upstream, int(request.query_params.get("nextPageToken", 0)), 100)
        return JSONResponse({"issues": shown, "isLast": onward is None, "nextPageToken": str(onward or 0)})

    async def boards(request: Request) -> Response:
        begin, size = int(request.query_params["startAt"]), min(50, int(request.query_params["maxResults"]))
        shown, onward = page_of(upstream, begin, size)
        rest = {"startAt": begin, "maxResults": size, "total": len(upstream.objects), "isLast": onward is None}
        return JSONResponse({"values": shown, **rest})

    return [
        Route("/rest/api/3/search/jql", search),
        Route("/rest/api/3/issue/{id}", by_id(upstream)),
        Route("/rest/agile/1.0/board", boards),
        Route("/rest/agile/1.0/board/{id}", by_id(upstream)),
    ]


def azure(upstream: Upstream) -> list[Route]:
    async def definitions(request: Request) -> Response:
        shown, onward = page_of(upstream, int(request.query_params.get("continuationToken", 0)), 100)
        headers = {"x-ms-continuationtoken": str(onward)} if onward else {}
        return JSONResponse({"count": len(shown), "value": shown}, headers=headers)

    path = "/ORGANISATION/PROJECT/_apis/build/definitions"
    return [Route(path, definitions), Route(path + "/{id}", by_id(upstream))]


def kinto(upstream: Upstream) -> list[Route]:
    async def records(request: Request) -> Response:
        shown, onward = page_of(upstream, int(request.query_params.get("_token", 0)), 100)
        url = str(request.url.include_query_params(_token=onward)).replace("127.0.0.1", "10.0.0.7")
        return JSONResponse({"data": shown}, headers={"Next-Page": url} if onward else {})

    path = "/v1/buckets/BUCKET/collections/COLLECTION/records"
    return [Route(path, records), Route(path + "/{id}", by_id(upstream))]


def wordpress(upstream: Upstream) -> list[Route]:
    async def posts(request: Request) -> Response:
        listed = [post for post in upstream.objects if post["status"] in request.query_params.getlist("status")]
        begin = (int(request.query_params["page"]) - 1) * 100
        return JSONResponse(listed[begin : begin + 100], headers={"X-WP-Total": str(len(listed))})

    path = "/wp-json/wp/v2/posts"
    return [Route(path, posts), Route(path + "/{id}", by_id(upstream))]


def many(name: str = "id", **fields: Any) -> list[dict[str, Any]]:
    return [{name: 1000 + n, **fields} for n in range(MANY)]


RECIPES: dict[str, tuple[Callable[[Upstream], list[Route]], list[dict[str, Any]]]] = {
    "shopify": (shopify, many()),
    "hubspot-contacts": (hubspot, many()),
    "notion-database": (notion, many(in_trash=False)),
    "zendesk-tickets": (zendesk, many(status="open")),
    "salesforce-accounts": (salesforce, many("Id")),
    "jira-issues": (jira, many()),
    "azure-devops-builds": (azure, many()),
    "kinto-records": (kinto, many()),
    "wordpress-drafts": (wordpress, many(status="draft")),
}
SECRETS = ["SHOPIFY", "HUBSPOT", "NOTION", "ZENDESK", "JIRA", "AZURE"]


@pytest.fixture
async def recipe(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> AsyncIterator[Recipe]:
    for name in (
        *(f"{secret}_TOKEN" for secret in SECRETS),
        "SALESFORCE_SECRET",
        "KINTO_PASSWORD",
        "WORDPRESS_PASSWORD",
    ):
        monkeypatch.setenv(name, "s3cret")
    routes, objects = RECIPES[request.param]
    upstream = Upstream(json.loads(json.dumps(objects)))
    async for found in set_up(request.param, upstream, routes(upstream), tmp_path):
        yield found


@pytest.mark.parametrize("recipe", RECIPES, indirect=True)
async def test_every_list_is_read_to_its_end_and_leaves_no_doubt(recipe):
    for endpoint in recipe.source.endpoints():
        ids, doubts = await recipe.read(endpoint)

        assert ids == [str(1000 + n) for n in range(MANY)], endpoint.name
        assert doubts == [], endpoint.name


@pytest.mark.parametrize("recipe", RECIPES, indirect=True)
async def test_an_empty_list_is_empty_and_leaves_no_doubt(recipe):
    recipe.upstream.objects.clear()

    for endpoint in recipe.source.endpoints():
        assert await recipe.read(endpoint) == ([], []), endpoint.name


@pytest.mark.parametrize("recipe", RECIPES, indirect=True)
async def test_the_program_tells_what_changes_and_nothing_else(recipe):
    objects, names = recipe.upstream.objects, [endpoint.name for endpoint in recipe.source.endpoints()]
    plugins = load_plugins(lazily=True)
    async with open_app(unhurried(load(recipe.file, plugins)), plugins) as app:
        assert await sweep_once(app) == []
        objects[5]["name"] = "another"
        objects.append({**objects[0], next(iter(objects[0])): 9999})
        del objects[120]
        for _ in range(4):
            assert await sweep_once(app) == []
        told = Counter(event.type.split(".", 1)[1] for event in app.store.log.read(limit=1000))

    assert told == Counter(f"{name}.{kind}" for name in names for kind in ("created", "updated", "deleted"))


# --- GitLab: a list per parent, numbered per parent


def gitlab(upstream: Upstream) -> list[Route]:
    async def projects(request: Request) -> Response:
        begin = (int(request.query_params.get("page", 1)) - 1) * 2
        shown, onward = page_of(upstream, begin, 2)
        url = request.url.include_query_params(page=begin // 2 + 2)
        rows = [{"id": project["id"]} for project in shown]
        return JSONResponse(rows, headers={"Link": f'<{url}>; rel="next"'} if onward else {})

    async def requests(request: Request) -> Response:
        project = next((one for one in upstream.objects if one["id"] == request.path_params["project"]), None)
        if project is None or project["requests"] is None:
            return JSONResponse({"message": "404 Not found"}, 404)
        wanted = request.path_params.get("id")
        if wanted is None:
            state = request.query_params.get("state")
            listed = [one for one in project["requests"] if state is None or one.get("state", state) == state]
            return JSONResponse(listed)
        found = [one for one in project["requests"] if one["iid"] == wanted]
        return JSONResponse(found[0] if found else {"message": "404 Not found"}, 200 if found else 404)

    path = "/api/v4/projects/{project:int}/merge_requests"
    return [
        Route("/api/v4/groups/GROUP/projects", projects),
        Route(path, requests),
        Route(path + "/{id:int}", requests),
    ]


@pytest.fixture
async def gitlab_recipe(tmp_path: Path, monkeypatch: Any) -> AsyncIterator[Recipe]:
    monkeypatch.setenv("GITLAB_TOKEN", "s3cret")
    numbered = [{"iid": 1, "title": "a"}, {"iid": 2, "title": "b"}]
    upstream = Upstream([{"id": n, "requests": [{**one, "project_id": n} for one in numbered]} for n in (1, 2, 3)])
    upstream.objects.append({"id": 4, "requests": None})
    async for found in set_up("gitlab", upstream, gitlab(upstream), tmp_path):
        yield found


def test_a_merge_request_is_asked_for_within_its_project(gitlab_recipe):
    endpoint = gitlab_recipe.source.endpoints()[1]

    request = gitlab_recipe.source.item_request(endpoint, "1", Item(object={"iid": 1}, parent={"id": 3}))

    assert request is not None
    assert request.url.path == "/api/v4/projects/3/merge_requests/1"
    assert endpoint.empty_status == (404,)


async def test_the_program_tells_what_changes_in_every_project_and_nothing_else(gitlab_recipe):
    projects, plugins = gitlab_recipe.upstream.objects, load_plugins(lazily=True)
    config = unhurried(load(gitlab_recipe.file, plugins))
    async with open_app(config, plugins) as app:
        assert await sweep_once(app) == []
        assert app.engine.sources["gitlab"].endpoints["merge_requests"].state.objects == 6
        projects[0]["requests"][0]["title"] = "edited"
        del projects[1]["requests"][0]  # asked for within its own project: there are two others with this number
        projects[2]["requests"].append({"iid": 3, "title": "c", "project_id": 3})
        for _ in range(4):
            assert await sweep_once(app) == []
        told = [(event.type, event.subject) for event in app.store.log.read(limit=100)]

    assert sorted(told) == [
        ("gitlab.merge_requests.created", "merge_requests/3/3"),
        ("gitlab.merge_requests.deleted", "merge_requests/2/1"),
        ("gitlab.merge_requests.updated", "merge_requests/1/1"),
    ]


async def test_a_merged_request_that_leaves_the_list_of_open_ones_is_an_update(gitlab_recipe):
    text = gitlab_recipe.file.read_text().replace('scope = "all"', 'scope = "all", state = "opened"')
    assert 'unlisted = "updated"' in text
    gitlab_recipe.file.write_text(text)
    requests, plugins = gitlab_recipe.upstream.objects[1]["requests"], load_plugins(lazily=True)
    requests[1]["state"] = "opened"
    async with open_app(unhurried(load(gitlab_recipe.file, plugins)), plugins) as app:
        assert await sweep_once(app) == []
        requests[1]["state"] = "merged"
        for _ in range(6):
            assert await sweep_once(app) == []
        events = [one for one in app.store.log.read(limit=100) if not one.type.startswith("poller.")]

    assert [(one.type, one.subject) for one in events] == [("gitlab.merge_requests.updated", "merge_requests/2/2")]
    assert events[0].data["changes"] == [{"path": "/state", "before": "opened", "after": "merged"}]
