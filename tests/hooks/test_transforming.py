"""`transform_event` changes data or drops the event, one plugin after the other; a breach of the contract is noted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from poller import hookimpl
from poller.hooks.loading import Plugins
from state.records import NewEvent

EVENT = NewEvent(
    id="k", source="/sources/a", type="a.b.created", subject="b/1", time=1.0, observed_after=None, raw=b'{"a":1}'
)


class Transforming:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def transform_event(self, event: NewEvent) -> Any:
        return self.answer(event)


def transformed(*answers: Any) -> tuple[NewEvent | None, list[str]]:
    plugins = Plugins()
    for number, answer in enumerate(answers):
        plugins.add(f"plugin{number}", Transforming(answer))
    return plugins.transform(EVENT), [f"{failed.name}: {failed.error}" for failed in plugins.failed]


def test_each_plugin_is_given_what_the_one_before_it_has_made() -> None:
    def added(text: bytes) -> Any:
        return lambda event: replace(event, raw=event.raw[:-1] + text + b"}")

    event, failed = transformed(added(b',"b":2'), lambda _: None, added(b',"c":3'))

    assert event is not None
    assert sorted(event.raw) == sorted(b'{"a":1,"b":2,"c":3}')
    assert failed == []


def test_one_that_drops_it_drops_it() -> None:
    assert transformed(lambda _: False) == (None, [])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda event: replace(event, raw=b"not JSON"), "it gave an event whose `raw` is not a JSON object"),
        (lambda event: replace(event, raw=b"[1]"), "it gave an event whose `raw` is not a JSON object"),
        (lambda event: replace(event, raw=b'{"a":"\xff"}'), "it gave an event whose `raw` is not a JSON object"),
        (lambda event: replace(event, raw=b"[" * 100_000), "it gave an event whose `raw` is not a JSON object"),
        (lambda event: replace(event, raw='{"a":2}'), "it gave an event whose `raw` is str, not bytes"),
        (lambda event: replace(event, id="another"), "it changed more of the event than `raw`"),
        (lambda event: replace(event, type="a.b.deleted", raw=b"{}"), "it changed more of the event than `raw`"),
        (lambda event: {"a": 1}, "it gave dict, not the event, False or None"),
        (lambda event: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_breaks_the_contract_is_noted_and_the_event_stays(answer: Any, says: str) -> None:
    event, [failed] = transformed(answer)

    assert event == EVENT
    assert failed.startswith(f"plugin0: {says}")
