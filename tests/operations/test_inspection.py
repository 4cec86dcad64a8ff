"""A look at an endpoint, over `poller try` and `poller check --online`, against servers that behave oddly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.command_line import Run
from tests.support.upstream import serving_in_a_thread

LISTS: dict[str, Callable[[int, int], Any]] = {
    "plain": lambda page, size: rows(page, size, 25),
    "ignores its page": lambda page, size: rows(1, size, 25),
    "counted from 0": lambda page, size: rows(page or 3, size, 25),
    "counts pages": lambda page, size: rows(page + 1, size, 25),
    "capped in silence": lambda page, size: rows(page, min(size, 100), 288),
    "capped": lambda page, size: {"total": 288, "items": rows(page, min(size, 100), 288)},
}


def rows(page: int, size: int, count: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"thing {n}"} for n in range(1, count + 1)][(page - 1) * size : page * size]


def app(kind: str, own: int = 200) -> Starlette:
    async def things(request: Request) -> Response:
        params = request.query_params
        return JSONResponse(LISTS[kind](int(params.get("page", 1)), int(params.get("size", 10))))

    async def thing(request: Request) -> Response:
        return JSONResponse({"id": 1} if own != 299 else {"error": "not found"}, own if own != 299 else 200)

    paths = {"/things": things, "/things/{id}": thing, "/things/{id}/lines": things}
    return Starlette(routes=[Route(path, handler) for path, handler in paths.items()])


def configure(folder: Path, url: str, table: str) -> None:
    text = f'[budgets.api]\nlimits = ["1000/s"]\n[sources.api]\nplugin = "rest"\nbudget = "api"\nbase_url = "{url}"\n'
    (folder / "poller.toml").write_text(f'{text}[sources.api.endpoints.things]\npath = "/things"\n{table}')


PAGES = 'pagination = { type = "page", size_param = "size", size = 10 }\n'


@pytest.mark.parametrize(
    ("kind", "own", "table", "doubt"),
    [
        ("plain", 200, PAGES, None),
        ("plain", 200, "", "exactly 10 objects and no next page"),
        ("counted from 0", 200, PAGES, "page 0 shows other objects than page 1"),
        (
            "counts pages",
            200,
            'pagination = { type = "offset", param = "page", size_param = "size", size = 10 }',
            "exactly 10 objects on the first page and none on the second",
        ),
        (
            "ignores its page",
            200,
            'pagination = { type = "page", size_param = "size", size = 10 }',
            "shows what the first",
        ),
        (
            "capped",
            200,
            'items = "$.items"\npagination = { type = "page", size_param = "size", size = 300, total = "$.total" }',
            "size = 300, but the answer holds 100 of 288",
        ),
        (
            "capped in silence",
            200,
            'pagination = { type = "page", size_param = "size", size = 300 }',
            "the first page has only 100 objects, and the list goes on at page 2: set `size`",
        ),
        ("plain", 200, 'pagination = { type = "page", size_param = "size", size = 300 }', None),
        ("ignores its page", 200, 'pagination = { type = "page", size_param = "size", size = 300 }', None),
        ("plain", 404, 'item_path = "/things/{id}"\nparams = { size = 7 }', "says 404: is `item_path` right?"),
        (  # said of both pages, and told once
            "capped",
            200,
            'pagination = { type = "page", size_param = "size", size = 10, more = "$.nope" }',
            "$.nope",
        ),
        (
            "plain",
            200,
            'item_path = "/things/{slug}"\nparams = { size = 7 }',
            "item_path names {slug}, which is not known of 1: such an object has no own URL",
        ),
        ("plain", 202, 'item_path = "/things/{id}"\nparams = { size = 7 }', "answers 202 without an object of this id"),
        ("plain", 299, 'item_path = "/things/{id}"\nparams = { size = 7 }', "answers 200 without an object of this id"),
    ],
    ids=str,
)
def test_check_online_says_what_speaks_against_the_configuration(
    poller: Run, tmp_path: Path, kind: str, own: int, table: str, doubt: str | None
) -> None:
    with serving_in_a_thread(app(kind, own)) as url:
        configure(tmp_path, url, table)
        ran = poller("check", "--online")

    assert ran.status == 0
    assert "endpoint api/things: " in ran.out
    assert "such as 1 'thing 1'" in ran.out
    said = [line for line in ran.err.splitlines() if line.startswith("Warning: api/things")]
    assert len(said) == (doubt is not None), ran.err
    assert doubt is None or doubt in said[0]


def test_try_shows_the_requests_and_what_they_brought(poller: Run, tmp_path: Path) -> None:
    table = f'item_path = "/things/{{id}}"\n{PAGES}[sources.api.endpoints.lines]\n'
    lines = 'parent = "things"\npath = "/things/{parent.id}/lines"\nparams = { size = 9 }'
    with serving_in_a_thread(app("plain")) as url:
        configure(tmp_path, url, table + lines)
        text, asked = poller("try", "api/things"), poller("try", "lines", "--json")

    assert f"GET {url}/things?size=10&page=1\n  objects  10\n  ids      1, 2, 3, 4, 5\n  next     page 2\n" in text.out
    assert f"GET {url}/things?size=10&page=2\n" in text.out
    assert f"GET {url}/things/1\n  status   200\n" in text.out
    assert asked.status == 0, asked.err
    assert asked.json["pages"][0]["request"] == f"GET {url}/things/1/lines?size=9"
    assert not (tmp_path / "poller.db").exists() or poller("events", "--json").out == ""


def test_an_endpoint_that_cannot_be_seen_is_an_error(poller: Run, tmp_path: Path) -> None:
    with serving_in_a_thread(app("plain")) as url:
        configure(tmp_path, f"{url}/nowhere", "")
        tried, checked = poller("try", "things"), poller("check", "--online")

    assert (tried.status, checked.status) == (1, 1)
    assert "404" in tried.err
    assert "; is the path right?" in checked.err
