"""Lists whose end is not where they say, on a real server: no event is false, and what is not known is said."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.changes.certainty import Uncertainty, pattern_of
from poller.clock import Clock, VirtualClock
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations.commands import execute
from poller.operations.gathering import read_status
from poller.polling import answer
from tests.polling.test_engine_planning import World as Time
from tests.support.upstream import serving

PAGES = 'pagination = { type = "page", size_param = "size", size = 10 }'
NOT_A_TOTAL = {"total": 5000, "next": "tomorrow"}  # of money, and of something else
TOTAL = 'items = "$.items"\npagination = { type = "page", size_param = "size", size = 10, total = "$.total" }'


@dataclass
class List:
    """A list on a server; `cut` says what a page shows."""

    ids: list[int] = field(default_factory=lambda: list(range(1, 26)))
    kind: str = "plain"
    asked: list[int] = field(default_factory=list)
    refusal: int = 404
    part: dict[str, Any] = field(default_factory=dict)

    def rows(self, begin: int, size: int) -> list[dict[str, Any]]:
        return [{"id": n, "name": f"thing {n}"} for n in self.ids[begin : begin + size]]

    def answer(self, page: int, size: int) -> Response:
        self.asked.append(page)
        last, shown = max(0, (len(self.ids) - 1) // size), self.rows((page - 1) * size, size)
        shown = [] if self.kind == "shows nothing in the middle" and page == 2 else shown
        totals = {
            "counts more than it shows": len(self.ids) + 7,
            "counts what is left": len(self.ids) - (page - 1) * size,
            "counts differently each time": len(self.ids) + 1 + len(self.asked) % 3,
            "counts its pages": last + 1,
            "counts too few": 13,
            "counts each page": len(shown),
            "always goes on": True,  # a flag for `more`
            "shows nothing in the middle": page <= last,  # also a flag
        }
        if self.kind in totals:
            return JSONResponse({"items": shown, "total": totals[self.kind]})
        if self.kind in ("names its next page", "forgets its cursors"):
            if self.kind == "forgets its cursors" and page > 2:
                return JSONResponse({"error": "no such cursor"}, 404)
            return JSONResponse({"items": shown, "next": page + 1 if page <= last else None})
        match self.kind:
            case "keeps its cursor":
                return JSONResponse({"items": self.rows((len(self.asked) - 1) * size, size), "next": 7})
            case "ignores its page":
                return JSONResponse(self.rows(0, size))
            case "repeats its last page":
                return JSONResponse(self.rows(min(page - 1, last) * size, size))
            case "says that it is a part":
                rows = [{"id": n, "name": f"thing {n}"} for n in self.ids[::2]]
                return JSONResponse({"items": rows if self.asked[1:] else self.rows(0, 100), **self.part})
            case "counts once":
                return JSONResponse({"items": shown, **({"total": len(self.ids)} if page == 1 else {})})
            case "shows the first pages only":
                return JSONResponse({"items": shown if page < 3 else [], "meta": {"total": len(self.ids)}})
            case "means something else":
                return JSONResponse({"items": [{"id": n} for n in self.ids], **NOT_A_TOTAL})
            case "short in the middle" if page == 1:
                return JSONResponse(self.rows(0, size - 3))
            case "refuses what follows" | "hides rows" if page > last + 1:
                return JSONResponse({"error": "no such page"}, self.refusal)
            case "hides rows" if page == 2:
                return JSONResponse(shown[:-3])
            case "hides rows" if page > 2:
                return JSONResponse({"error": "bad request"}, 400)
        return JSONResponse(shown)


@asynccontextmanager
async def opened(
    folder: Path, table: str, found: List, *, clock: Clock | None = None, limits: str = "1000/s"
) -> AsyncIterator[App]:
    async def things(request: Request) -> Response:
        return found.answer(int(request.query_params.get("page", 1)), int(request.query_params.get("size", 10)))

    async with serving(Starlette(routes=[Route("/things", things)])) as url:
        source = f'[sources.api]\nplugin = "rest"\nbase_url = "{url}"\nbudget = "api"\n'
        text = f'[budgets.api]\nlimits = ["{limits}"]\n{source}'
        (folder / "poller.toml").write_text(f'{text}[sources.api.endpoints.things]\npath = "/things"\n{table}\n')
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins, clock=clock) as app:
            yield app


def jumping(app: App, clock: VirtualClock) -> Time:
    """What lets the app's time pass."""
    time = Time.__new__(Time)
    time.app, time.clock, time.poll_loop = app, clock, app.engine.loops["api"]
    return time


def uncertainty(app: App) -> Uncertainty | None:
    return Uncertainty.load(app.engine.sources["api"].endpoints["things"].state.uncertain)


def told(app: App) -> list[str]:
    return [event.type for event in app.store.log.read(limit=1000) if not event.type.startswith("poller.")]


async def test_a_server_that_ignores_the_page_is_read_once_and_called_uncertain(tmp_path):
    found = List(kind="ignores its page")
    async with opened(tmp_path, PAGES, found) as app:
        stuck = await sweep_once(app)

        assert found.asked == [1, 2]
        assert "page=2 shows what page=1 shows" in stuck[0]
        assert app.engine.sources["api"].endpoints["things"].in_baseline


async def test_pages_that_show_only_what_other_pages_show_end_a_list_whatever_differs_on_them(tmp_path):
    found = List(ids=[1, 2, 3])

    def answered(*_: int) -> Response:
        found.asked.append(1)
        first, *others = found.rows(0, 3)
        noisy = {**first, "asked": len(found.asked)}  # no page looks like another one
        return JSONResponse({"items": [noisy, *others], "more": len(found.asked) < 30})

    found.answer = answered
    async with opened(tmp_path, 'items = "$.items"\npagination = { type = "page", more = "$.more" }', found) as app:
        assert "objects on two pages of one sweep" in (await sweep_once(app))[0]
        assert len(found.asked) == 3


async def test_a_server_that_repeats_its_last_page_has_ended_there(tmp_path):
    found = List(kind="repeats its last page")
    async with opened(tmp_path, 'pagination = { type = "page" }', found) as app:
        assert await sweep_once(app) == []
        assert found.asked == [1, 2, 3, 4, 5]
        assert uncertainty(app) is None

        found.ids.append(26)
        assert await sweep_once(app) == []
        assert told(app) == ["api.things.created"]


async def test_deletions_are_confirmed_in_a_list_whose_last_page_is_repeated(tmp_path):
    found = List(kind="repeats its last page", ids=[*range(1, 31)])
    async with opened(tmp_path, f'{PAGES}\nabsent_for = "0s"', found) as app:
        assert await sweep_once(app) == []

        del found.ids[10:20]
        for _ in range(6):
            await sweep_once(app)
        assert told(app) == ["api.things.deleted"] * 10
        assert uncertainty(app) is None


@pytest.mark.parametrize("kind", ["counts too few", "counts what is left", "counts each page"])
async def test_a_list_is_read_to_its_end_whatever_total_its_full_pages_refute(tmp_path, kind):
    found = List(kind=kind)
    async with opened(tmp_path, TOTAL, found) as app:
        await sweep_once(app)

        assert app.engine.sources["api"].endpoints["things"].state.objects == 25
        assert max(found.asked) == 3


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"incomplete_results": True}, "incomplete_results = true"),
        ({"timed_out": True, "_shards": {"failed": 0}}, "timed_out = true"),
        ({"timed_out": False, "_shards": {"total": 5, "failed": 2}}, "_shards.failed = 2"),
        ({"errors": [{"message": "one resolver failed"}]}, "reports errors beside its objects"),
    ],
    ids=str,
)
async def test_an_answer_that_says_that_it_is_a_part_confirms_no_deletion(tmp_path, part, why):
    found = List(kind="says that it is a part", part=part)
    async with opened(tmp_path, 'items = "$.items"\nabsent_for = "0s"', found) as app:
        found.part = dict.fromkeys(part, False)
        await sweep_once(app)
        found.part = part
        for _ in range(4):
            await sweep_once(app)

        assert told(app) == []
        assert (doubt := uncertainty(app)) is not None
        assert why in doubt.text


async def test_a_count_that_was_not_seen_makes_the_sweep_uncertain_until_an_operator_accepts_it(tmp_path):
    found, why = List(kind="counts more than it shows"), "32 in all, 25 seen"
    async with opened(tmp_path, TOTAL, found) as app:
        stuck = await sweep_once(app)

        assert why in stuck[0]
        doubt = uncertainty(app)
        assert doubt is not None
        assert why in doubt.text

        await execute(app, "release", {"endpoint": "things", "accept": True})
        assert await sweep_once(app) == []
        assert uncertainty(app) is None
        assert not app.engine.sources["api"].endpoints["things"].in_baseline


UNTOTALLED = TOTAL.replace(', total = "$.total"', "")


@pytest.mark.parametrize(
    ("kind", "table", "why"),
    [
        ("counts its pages", TOTAL, "total is 3, but this answer alone has 10 objects: it may be the number of pages"),
        (
            "keeps its cursor",
            'items = "$.items"\npagination = { type = "cursor", param = "page", next = "$.next" }',
            "names the cursor that was just used",
        ),
        ("shows the first pages only", UNTOTALLED, "the answer says meta.total = 25, and 20 objects were seen"),
    ],
)
async def test_a_list_that_ends_too_early_is_uncertain(tmp_path, kind, table, why):
    async with opened(tmp_path, table, List(kind=kind)) as app:
        await sweep_once(app)

        doubt = uncertainty(app)
        assert doubt is not None
        assert why in doubt.text


async def test_a_list_that_always_names_another_page_ends_once_many_show_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "MOST_EMPTY", 3)
    found = List(kind="always goes on")
    table = 'items = "$.items"\nabsent_for = "0s"\npagination = { type = "page", more = "$.total" }'
    async with opened(tmp_path, table, found) as app:
        stuck = await sweep_once(app)

        assert found.asked == [1, 2, 3, 4, 5, 6]
        assert "answers in a row show nothing, and each names a next one" in stuck[0]

        await execute(app, "release", {"endpoint": "things", "accept": True})
        assert await sweep_once(app) == []
        del found.ids[12]
        for _ in range(4):
            assert await sweep_once(app) == []
        assert told(app) == ["api.things.deleted"]


async def test_a_page_before_the_last_that_shows_nothing_is_named_where_it_may_hide_what_is_missing(tmp_path):
    found = List(kind="shows nothing in the middle")
    table = 'items = "$.items"\nabsent_for = "0s"\npagination = { type = "page", more = "$.total" }'
    async with opened(tmp_path, table, found) as app:
        for _ in range(2):
            assert await sweep_once(app) == []
        assert uncertainty(app) is None

        found.ids[0] = 99  # object 1 is gone
        for _ in range(4):
            await sweep_once(app)
        assert told(app) == ["api.things.created"]
        assert (doubt := uncertainty(app)) is not None
        assert "a page before the last shows nothing and may hide them (page=2)" in doubt.text

        await execute(app, "release", {"endpoint": "things", "accept": True})
        for _ in range(4):
            assert await sweep_once(app) == []
        assert told(app) == ["api.things.created", "api.things.deleted"]


async def test_a_total_in_the_first_answer_alone_is_enough(tmp_path):
    async with opened(tmp_path, TOTAL, List(kind="counts once")) as app:
        assert await sweep_once(app) == []

        assert uncertainty(app) is None
        assert app.engine.sources["api"].endpoints["things"].state.objects == 25


async def test_what_differs_in_its_numbers_alone_is_said_on_the_bus_once(tmp_path):
    async with opened(tmp_path, TOTAL, List(kind="counts differently each time")) as app:
        for _ in range(9):
            await sweep_once(app)

        notices = [event for event in app.store.log.read(limit=100) if event.type == "poller.endpoint.uncertain"]
        reasons = {pattern_of(why) for event in notices for why in event.data["detail"]["why"]}
        assert 1 <= len(notices) <= len(reasons)


async def test_what_is_uncertain_is_said_on_the_bus_once(tmp_path):
    async with opened(tmp_path, TOTAL, List(kind="counts more than it shows")) as app:
        for _ in range(3):
            await sweep_once(app)

        notices = [event for event in app.store.log.read(limit=100) if event.type == "poller.endpoint.uncertain"]
        assert ["32 in all, 25 seen" in event.data["detail"]["why"] for event in notices] == [True]
        assert "poller release api/things --accept" in notices[0].data["summary"]


async def test_a_page_that_was_full_and_is_short_does_not_end_a_list_whose_later_pages_show_objects(tmp_path):
    found = List()
    async with opened(tmp_path, PAGES, found) as app:
        for _ in range(2):
            assert await sweep_once(app) == []
        found.kind, found.asked = "short in the middle", []
        assert await sweep_once(app) == []

        assert sorted(found.asked) == [1, 2, 3]
        watching = app.engine.sources["api"].endpoints["things"]
        assert sorted(watching.units) == ["page=1", "page=2", "page=3"]
        assert watching.state.objects == 25
        assert told(app) == []


@pytest.mark.parametrize(
    ("kind", "refusal", "table"),
    [("plain", 404, ""), ("refuses what follows", 404, ""), ("refuses what follows", 400, "empty_status = [400]")],
)
async def test_a_list_that_shrank_forgets_its_pages_once_they_were_asked(tmp_path, kind, refusal, table):
    found = List(kind=kind, refusal=refusal)
    async with opened(tmp_path, f"{PAGES}\norder = 'id'\n{table}", found) as app:
        assert await sweep_once(app) == []
        del found.ids[15:]
        for _ in range(5):
            assert await sweep_once(app) == []

        assert sorted(app.engine.sources["api"].endpoints["things"].units) == ["page=1", "page=2"]


async def test_status_calls_such_a_list_uncertain(tmp_path):
    async with opened(tmp_path, TOTAL, List(kind="counts more than it shows")) as app:
        await sweep_once(app)
        config, now = app.config, app.clock.now()
    status = read_status(config, now=now)

    assert (status.endpoints[0].state, status.endpoints[0].baseline) == ("uncertain", True)
    assert "32 in all, 25 seen" in (status.endpoints[0].reason or "")


async def test_a_refusal_after_a_page_that_hides_rows_ends_no_list(tmp_path):
    found, clock = List(), VirtualClock()
    table = f"{PAGES}\norder = 'id'\nabsent_for = '0s'"
    async with opened(tmp_path, table, found, clock=clock, limits="1/s") as app:
        time = jumping(app, clock)
        while app.engine.sources["api"].endpoints["things"].in_baseline:
            await time.run(1.0)
        found.kind = "hides rows"
        await time.run(30.0)

        error = app.engine.sources["api"].endpoints["things"].units["page=3"].error
        assert "set empty_status = [400] if the list ends so" in (error or "")
        found.kind = "plain"
        await time.run(60.0)
        assert told(app) == []


async def test_a_guess_keeps_no_baseline_open_for_good_and_lets_no_sweep_confirm_a_deletion(tmp_path):
    found = List(kind="means something else")
    async with opened(tmp_path, "items = '$.items'\nabsent_for = '0s'", found) as app:
        for _ in range(3):
            assert "total = 5000" in (await sweep_once(app))[0]
        for _ in range(2):
            await sweep_once(app)
        watching = app.engine.sources["api"].endpoints["things"]
        assert not watching.in_baseline

        found.ids.append(30)
        del found.ids[0]
        for _ in range(6):
            await sweep_once(app)
        assert told(app) == ["api.things.created"]
        doubt = uncertainty(app)
        assert doubt is not None
        assert "total = 5000" in doubt.text
        notices = [event for event in app.store.log.read(limit=100) if event.type == "poller.endpoint.uncertain"]
        assert len(notices) == 1
        assert "before some more sweeps have shown nothing new" in notices[0].data["summary"]

        await execute(app, "release", {"endpoint": "things", "accept": True})
        for _ in range(4):
            assert await sweep_once(app) == []
        assert uncertainty(app) is None


async def test_a_cursor_that_is_refused_with_an_empty_status_ends_no_list_for_certain(tmp_path):
    table = (
        'absent_for = "0s"\nitems = "$.items"\nempty_status = [404]\npagination = { type = "cursor", param = "page" }'
    )
    found = List(kind="names its next page")
    async with opened(tmp_path, table, found) as app:
        await sweep_once(app)
        found.kind = "forgets its cursors"
        for _ in range(4):
            await sweep_once(app)

        assert told(app) == []
        assert (doubt := uncertainty(app)) is not None
        assert "answer 3 of the list has status 404" in doubt.text
