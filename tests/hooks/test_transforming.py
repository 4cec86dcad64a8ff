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


def test_one_may_change_the_data_in_place() -> None:
    def named(event: NewEvent) -> None:
        event.data["name"] = 2**70
        event.data["a"] = True  # equal to 1, but not the same

    def read(event: NewEvent) -> NewEvent:
        assert event.data["a"] is True
        return event

    assert transformed(named, read) == (replace(EVENT, raw=b'{"a":true,"name":1180591620717411303424}'), [])


def test_one_that_only_reads_the_data_leaves_the_event_as_it_is() -> None:
    written = replace(EVENT, raw=b'{ "a": 1.50 }')
    plugins = Plugins()
    plugins.add("reading", Transforming(lambda event: event if event.data["a"] else False))

    assert plugins.transform(written) == written


def test_what_one_that_raises_had_changed_in_place_is_not_recorded() -> None:
    def broken(event: NewEvent) -> None:
        event.data["a"] = 2
        raise ValueError("no")

    event, [failed] = transformed(broken)

    assert (event, failed) == (EVENT, failed)
    assert "ValueError: no" in failed


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
        (lambda event: event.data.update(a=object()), "it changed the event's `data` to what is no JSON"),
        (lambda event: {"a": 1}, "it gave dict, not the event, False or None"),
        (lambda event: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_breaks_the_contract_is_noted_and_the_event_stays(answer: Any, says: str) -> None:
    event, [failed] = transformed(answer)

    assert event == EVENT
    assert failed.startswith(f"plugin0: {says}")
