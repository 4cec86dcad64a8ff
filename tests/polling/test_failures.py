"""What is recorded, shown and sent for each way in which a page can go wrong.

The rows below are the table in docs/failures.md; `python -m tests.test_failures` prints it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from starlette.responses import Response

from poller.app import sweep_once
from poller.operations.gathering import read_status
from poller.operations.status import EndpointStatus
from tests.support.ailing import SIZE, Api, Body, Ward, Wrong, brotlied, dripping, json, redirect, thing, ward, zipped

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to go wrong: `wrong` answers page `page` (0: all of them), `change` happens to the list itself."""

    wrong: Wrong | None = None
    page: int = 2
    change: Callable[[Api], None] | None = None
    has_items: bool = True
    recorded: str  # in words
    shown: str  # in words
    shows: tuple[str, ...] = ()  # texts that the status holds
    sent: tuple[str, ...] = ()  # types of the events while it lasts
    afterwards: tuple[str, ...] = ()  # and once it is over
    timeout: str = "30s"
    looks: int = 2  # how often every page is asked for meanwhile


NOTHING = "nothing; what is known of the page stays"
FAILS = "the unit fails, with the error; next try after 5 s, doubling to 30 min"
FAILING = ('"failing":1',)


def without(body: Body, field: str) -> Body:
    return {"items": [{k: v for k, v in one.items() if k != field} for one in body["items"]]}


def everywhere(body: Body, **fields: object) -> Body:
    return {"items": [{**one, **fields} for one in body["items"]]}


def first_of(body: Body, **fields: object) -> Body:
    first, *others = body["items"]
    return {"items": [{**first, **fields}, *others]}


def deep(levels: int) -> object:
    return [deep(levels - 1)] if levels else 0


ROWS: dict[str, Row] = {
    "no answer in time": Row(
        wrong=lambda api, body: json(body, **{"x-late": "1"}),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "no answer within 1 s"),
        timeout="1s",
    ),
    "an answer that does not end in time": Row(
        wrong=lambda api, body: dripping(),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "not complete within 1 s"),
        timeout="1s",
    ),
    "500": Row(
        wrong=lambda api, body: Response("oops", 500),
        recorded=NOTHING,
        shown=FAILS + "; the status and the start of the answer are in it",
        shows=(*FAILING, "500 Internal Server Error: oops"),
    ),
    "404 on a page of the list": Row(
        wrong=lambda api, body: Response(status_code=404),
        recorded=NOTHING + ": only an object's own URL says that it is gone",
        shown=FAILS,
        shows=(*FAILING, "404 Not Found"),
    ),
    "HTML with status 200": Row(
        wrong=lambda api, body: Response("<html>Back soon</html>", media_type="text/html"),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "the answer is HTML"),
    ),
    "truncated JSON": Row(
        wrong=lambda api, body: Response(orjson.dumps(body)[:-9]),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "not JSON"),
    ),
    "bytes that are not what `Content-Encoding` says": Row(
        wrong=lambda api, body: Response(orjson.dumps(body), headers={"content-encoding": "gzip"}),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "content-encoding"),
    ),
    "an empty page, objects have URLs": Row(
        wrong=lambda api, body: json({"items": []}),
        recorded="its objects are suspects; each is requested by its own URL, answers, and is no longer a suspect",
        shown="`suspects`, until their URLs have answered",
        shows=('"suspects":0', '"objects":60', '"failing":0'),
    ),
    "an empty page, objects have no URLs": Row(
        wrong=lambda api, body: json({"items": []}),
        has_items=False,
        recorded="its objects are suspects until a page shows them; while a page before the last is empty, nothing "
        "confirms that they are gone",
        shown="`suspects`; after the next sweep `uncertain`, and which page is empty",
        shows=('"suspects":20', '"objects":60', '"uncertain"'),
        sent=("poller.endpoint.uncertain",),
    ),
    "every page is empty": Row(
        wrong=lambda api, body: json({"items": []}),
        page=0,
        recorded="nothing: the endpoint is held until its objects are back, or `poller release` decides",
        shown="`held`, and why",
        shows=("60 of 60 objects are gone at once",),
        sent=("poller.endpoint.held",),
        afterwards=("poller.endpoint.released",),
    ),
    "`null` instead of the list": Row(
        wrong=lambda api, body: json({"items": None}),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "it is null"),
    ),
    "an object without its id": Row(
        wrong=lambda api, body: json(first_of(body, id=None)),
        recorded="the others as usual; nothing is concluded about what the page does not show",
        shown="a note at the endpoint",
        has_items=False,
        looks=4,
        shows=("1 object without an id (`id`) set aside",),
    ),
    "no object has its id": Row(
        wrong=lambda api, body: json(without(body, "id")),
        recorded=NOTHING,
        shown=FAILS + "; the hint names `id`",
        shows=(*FAILING, "none of its objects can be used: 20 objects without an id"),
    ),
    "two different objects under one id": Row(
        wrong=lambda api, body: json({"items": [*body["items"], {**body["items"][0], "name": "another"}]}),
        recorded="neither of the two; the others as usual",
        shown="a note at the endpoint with the ids",
        shows=("1 id shown more than once with different content set aside (21)",),
    ),
    "the objects of another list": Row(
        wrong=lambda api, body: json({"items": [{"id": 9000 + n, "sku": n} for n in range(SIZE)]}),
        recorded="nothing at first: the page is set aside; what it still shows after other pages were polled "
        "is believed",
        shown="`aside`: the objects of this page are replaced",
        looks=1,
        shows=('"aside":{"page=2":{"":"replaced"}}',),
    ),
    "permission lost: 403": Row(
        wrong=lambda api, body: Response(status_code=403),
        page=0,
        recorded="nothing; the endpoint gets one probe every 15 min; other endpoints are polled as usual",
        shown="`blocked`, since when, next probe",
        shows=('"blocked":true', "403 Forbidden"),
        sent=("poller.source.failing",),
        afterwards=("poller.source.recovered",),
    ),
    "permission lost: a field is null on one page": Row(
        wrong=lambda api, body: json(everywhere(body, owner=None)),
        recorded="nothing at first: the page is set aside; what it still shows after other pages were polled "
        "is believed",
        shown="`aside`: the field is nulled",
        looks=1,
        shows=('"aside":{"page=2":{"/owner":"nulled"}}',),
    ),
    "permission lost: a field is null everywhere": Row(
        wrong=lambda api, body: json(everywhere(body, owner=None)),
        page=0,
        recorded="the new form, silently; and the old one, when it is back",
        shown="nothing is wrong",
        shows=('"failing":0',),
        sent=("poller.endpoint.schema_changed",),
        afterwards=("poller.endpoint.schema_changed",),
    ),
    "schema changed: a field is added everywhere": Row(
        wrong=lambda api, body: json(everywhere(body, color="red")),
        change=lambda api: api.objects[3].update(name="another"),
        page=0,
        recorded="the new form, silently; real edits at the same time are reported",
        shown="nothing is wrong",
        shows=('"failing":0',),
        sent=("poller.endpoint.schema_changed", "api.things.updated"),
        afterwards=("poller.endpoint.schema_changed",),
    ),
    "schema changed: a field is gone everywhere": Row(
        wrong=lambda api, body: json(without(body, "owner")),
        page=0,
        recorded="the new form, silently",
        shown="nothing is wrong",
        shows=('"failing":0',),
        sent=("poller.endpoint.schema_changed",),
        afterwards=("poller.endpoint.schema_changed",),
    ),
    "the list shifted: one was deleted on the first page": Row(
        change=lambda api: api.objects.pop(0),
        recorded="the deletion, once the object's URL says 404; what moved to other pages is not a change",
        shown="nothing is wrong",
        shows=('"objects":59', '"suspects":0', '"failing":0'),
        sent=("api.things.deleted",),
    ),
    "the list shifted: one was added in front": Row(
        change=lambda api: api.objects.insert(0, thing(1000)),
        recorded="the new object; what moved to other pages is not a change",
        shown="nothing is wrong",
        shows=('"objects":61', '"suspects":0', '"failing":0'),
        sent=("api.things.created",),
    ),
    "an object nested deeper than `max_depth`": Row(
        wrong=lambda api, body: json(first_of(body, tree=deep(20))),
        recorded="the others as usual; the current state of this one is not known",
        shown="a note at the endpoint",
        shows=("1 object nested deeper than max_depth = 8 set aside",),
    ),
    "an answer nested without end": Row(
        wrong=lambda api, body: Response(b'{"items": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "nested too deeply"),
    ),
    "an answer of more than `max_answer` bytes": Row(
        wrong=lambda api, body: json(first_of(body, text="x" * 30_000)),
        recorded=NOTHING,
        shown=FAILS + "; the hint names `max_answer`",
        shows=(*FAILING, "more than 20,000 bytes"),
    ),
    "a small answer that unpacks to more than `max_answer`": Row(
        wrong=lambda api, body: zipped(first_of(body, text="x" * 1_000_000)),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "more than 20,000 bytes"),
    ),
    "a redirect to another host": Row(
        wrong=lambda api, body: redirect(f"{api.elsewhere}/things"),
        recorded="nothing; the other host gets no request and sees no credentials",
        shown=FAILS + "; it names both",
        shows=(*FAILING, "another origin"),
    ),
    "a redirect that never ends": Row(
        wrong=lambda api, body: redirect("/things?page=2&size=20"),
        recorded=NOTHING,
        shown=FAILS,
        shows=(*FAILING, "redirected more than 5 times"),
    ),
    "429": Row(
        wrong=lambda api, body: Response(status_code=429, headers={"retry-after": "1"}),
        looks=1,
        recorded=NOTHING + "; the whole budget waits as long as `Retry-After` says, also after a restart",
        shown=FAILS + "; `throttled_until` of the budget",
        shows=(*FAILING, "429 Too Many Requests"),
        sent=("poller.budget.throttled",),
    ),
    "401": Row(
        wrong=lambda api, body: Response(status_code=401),
        page=0,
        recorded="nothing; after one renewal without success the whole source waits, with one probe every 15 min",
        shown="the source is `blocked`, since when, next probe",
        shows=('"state":"blocked"', "401 Unauthorized"),
        sent=("poller.source.failing",),
        afterwards=("poller.source.recovered",),
    ),
}


async def suffer(patient: Ward, row: Row) -> None:
    """Let it go wrong, and look twice."""
    if row.wrong is not None:
        patient.api.break_(row.page, row.wrong)
    if row.change is not None:
        row.change(patient.api)
    for _ in range(row.looks):
        await patient.look()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_a_page_that_goes_wrong_is_recorded_shown_and_sent_as_the_table_says(row, tmp_path):
    async with ward(tmp_path, has_items=row.has_items, timeout=row.timeout) as patient:
        await suffer(patient, row)

        shown = orjson.dumps(patient.status()).decode()
        assert [text for text in row.shows if text not in shown] == [], shown
        assert sorted(event.type for event in patient.told()) == sorted(
            row.sent
        )  # what a poll tells depends on their order
        assert patient.api.strangers == []

        await patient.heal()

        assert [event.type for event in patient.told()][len(row.sent) :] == list(row.afterwards)


def shown_without_a_daemon(patient: Ward) -> EndpointStatus:
    """The endpoint as `poller status` shows it from the state alone."""
    (shown,) = read_status(patient.app.config, now=patient.app.clock.now()).endpoints
    return shown


ASIDE = [
    "an object without its id",
    "two different objects under one id",
]  # a page that is set aside as a whole is believed as soon as the others were polled, perhaps before one has looked


@pytest.mark.parametrize("name", ASIDE)
async def test_what_is_set_aside_is_shown_from_the_state_alone_too(name, tmp_path):
    async with ward(tmp_path) as patient:
        row = ROWS[name]
        patient.api.break_(row.page, row.wrong)
        await patient.look()

        shown = shown_without_a_daemon(patient)
        assert (shown.state, "set aside" in (shown.reason or "")) == ("uncertain", True)

        await patient.restart()
        shown = shown_without_a_daemon(patient)
        assert (shown.state, "set aside" in (shown.reason or "")) == ("uncertain", True)

        await patient.heal()
        assert shown_without_a_daemon(patient).state == "ok"


@pytest.mark.parametrize("packed", [zipped, brotlied])
async def test_a_compressed_page_is_read_like_any_other(packed, tmp_path):
    async with ward(tmp_path) as patient:
        patient.api.break_(0, lambda api, body: packed(body))
        patient.api.objects[3]["name"] = "another"
        await patient.look()

        assert [event.type for event in patient.told()] == ["api.things.updated"]


async def test_what_a_page_still_shows_once_others_were_asked_is_believed(tmp_path):
    async with ward(tmp_path) as patient:
        patient.api.break_(2, lambda api, body: json(everywhere(body, owner=None)))

        assert await sweep_once(patient.app) == []

        assert [event.type for event in patient.told()] == ["api.things.updated"] * SIZE


def table() -> str:
    """The rows as docs/failures.md shows them."""
    lines = ["| the page | recorded | `poller status` shows | sent |", "| --- | --- | --- | --- |"]
    for name, row in ROWS.items():
        sent = ", ".join(f"`{kind}`" for kind in row.sent) or "nothing"
        over = f"; when it is over {', '.join(f'`{kind}`' for kind in row.afterwards)}" if row.afterwards else ""
        lines.append(f"| {name} | {row.recorded} | {row.shown} | {sent}{over} |")
    return "\n".join(lines)


def test_the_docs_have_this_table():
    assert table() in PAGE.read_text(encoding="utf-8"), "python -m tests.test_failures prints it"


if __name__ == "__main__":
    print(table())
