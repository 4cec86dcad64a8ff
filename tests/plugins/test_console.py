"""The console sink: readable lines, colours on a terminal only, nothing that data could smuggle in."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest
from rich.console import Console

from plugins.console import ConsoleOptions, ConsoleSink
from poller import Attempt, Event

FIRST = Attempt(number=1, delivery_id="7")


def make_event(**fields: Any) -> Event:
    data = fields.pop(
        "data",
        {
            "object": {"id": 7, "name": "B"},
            "version": 2,
            "changes": [{"path": "/name", "before": "A", "after": "B"}, {"path": "/won_at", "after": None}],
        },
    )
    return Event(
        **{
            "id": "k4x",
            "source": "/sources/acme",
            "type": "nutcache.projects.updated",
            "subject": "projects/7",
            "time": 1795472732.123,
            "observed_after": None,
            "raw": orjson.dumps(data),
            "seq": 1234,
            **fields,
        }
    )


async def written(*events: Event, terminal: bool = False, **keys: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system="standard" if terminal else None, width=200)
    async with ConsoleSink("out", ConsoleOptions.model_validate(keys), console=console) as sink:
        receipt = await sink.deliver(events, FIRST)
    assert receipt.status == "written"
    return out.getvalue()


async def test_an_event_is_one_plain_line_where_there_is_no_terminal() -> None:
    assert await written(make_event()) == (
        "22:25:32 acme nutcache.projects.updated projects/7 “B”  name: A → B; won at: none\n"
    )


async def test_a_terminal_gets_colours_and_a_line_per_field() -> None:
    text = await written(make_event(), terminal=True)

    assert "\x1b[" in text
    assert len(text.splitlines()) == 3


async def test_json_is_a_cloudevent_a_line() -> None:
    lines = (await written(make_event(), make_event(id="k4y"), format="json")).splitlines()

    assert [orjson.loads(line)["id"] for line in lines] == ["k4x", "k4y"]


async def test_a_template_is_used() -> None:
    assert await written(make_event(), template="{{ event.thing }} {{ event.key }}\n") == "project 7\n"


@pytest.mark.parametrize("terminal", [True, False])
async def test_data_cannot_move_the_cursor_or_forge_a_line(terminal: bool) -> None:
    data = {"object": {"name": "a\x1b[2J\nb [red]x[/red]"}, "version": 1}
    text = await written(make_event(data=data, type="x.projects.created"), terminal=terminal)

    assert "\x1b[2J" not in text
    assert "a[2J b [red]x[/red]" in text
    assert len(text.splitlines()) == 1


NASTY = "a\x1b]0;x\x07\x9b2J\n<0>b\u202ec\u2028d"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    "keys",
    [{}, {"format": "json"}, {"template": "{{ event.object.name }} {{ event.key }}"}],
    ids=["text", "json", "own"],
)
async def test_nothing_of_an_event_steers_a_terminal_or_forges_a_line(terminal: bool, keys: dict[str, Any]) -> None:
    changes = [{"path": f"/{NASTY}", "before": NASTY, "after": {NASTY: 1}}]
    data = {"object": {"id": NASTY, "name": NASTY}, "version": 1, "changes": changes}
    text = await written(
        make_event(data=data, subject=f"projects/{NASTY}", type=f"x.{NASTY}"), terminal=terminal, **keys
    )

    for unsafe in ("\x1b]", "\x07", "\x9b", "\u202e", "\u2028", "\n<0>"):
        assert unsafe not in text
    assert len(text.splitlines()) == (2 if terminal and not keys else 1)


async def test_json_on_the_console_reads_as_the_same_event() -> None:
    data = {"object": {"id": 1, "name": NASTY}, "version": 1}

    assert orjson.loads(await written(make_event(data=data), format="json"))["data"] == data


async def test_the_programs_own_events_are_told_by_their_summary() -> None:
    data = {"summary": "acme does not answer", "version": 1, "detail": {"since": "10:00"}}
    event = make_event(source="/poller", type="poller.source.failing", subject="sources/acme", data=data)

    assert (await written(event)).endswith("sources/acme  acme does not answer\n")
    assert "since: " in await written(event, terminal=True)


async def test_many_fields_are_counted_not_listed() -> None:
    changes = [{"path": f"/f{number}", "before": 1, "after": 2} for number in range(30)]

    for terminal in (True, False):
        text = await written(
            make_event(data={"object": {"id": 1}, "version": 2, "changes": changes}), terminal=terminal
        )
        assert "… and 22 more" in text
