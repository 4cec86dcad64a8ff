"""An event in words: whatever its data is, there are words for it, and not more than can be shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from poller import Event
from poller.rendering.event_view import EventView, one_line


def view(data: Any, subject: str = "projects/7") -> EventView:
    event = Event(
        id="k4x",
        source="/sources/acme",
        type="nutcache.projects.updated",
        subject=subject,
        time=1795472732.123,
        observed_after=None,
        raw=orjson.dumps(data),
        seq=1,
    )
    return EventView(event)


@pytest.mark.parametrize(
    "data",
    [
        {"object": "x", "changes": "no", "detail": 3},
        {"object": {"id": 1}, "changes": [3, None, {"path": 5}]},
        {"object": [], "summary": {"a": 1}},
        {},
    ],
)
def test_data_of_another_shape_has_words_all_the_same(data: dict[str, Any]) -> None:
    shown = view(data)

    assert shown.headline
    assert all(str(field) for field in shown.fields)


def test_an_id_or_a_number_without_measure_is_cut_in_a_headline() -> None:
    assert len(view({"object": {"id": 1}}, subject=f"projects/{'7' * 100_000}").headline) < 200
    assert len(str(view({"changes": [{"path": "/n", "after": "9" * 300}]}).fields[0])) < 250


def test_of_a_text_without_measure_only_its_start_is_looked_at() -> None:
    assert one_line("a " * 50_000_000, 10) == "a a a a a…"
    assert one_line(" " * 1000 + "a", 10) == "…"
    assert one_line("  a \n b ", 10) == "a b"
