"""Events as CloudEvents: the form by the contract, read by the cloudevents SDK, cut to 64 KiB."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from poller import Event
from poller.events.cloudevents import CONTENT_TYPE, FIRST, LAST, LIMIT, batched, iso, structured


def make_event(data: dict[str, Any] | None = None, **fields: Any) -> Event:
    raw = orjson.dumps(data or {"object": {"id": 201001, "name": "B"}, "version": 3})
    return Event(
        **{
            "id": "k4x",
            "source": "/sources/acme",
            "type": "nutcache.projects.updated",
            "subject": "projects/201001",
            "time": 1795472732.123,
            "observed_after": 1795472650.004,
            "raw": raw,
            "seq": 1234,
            **fields,
        }
    )


def test_the_form_is_that_of_the_contract() -> None:
    data = {"object": {"id": 201001, "name": "B"}, "version": 3, "changes": [{"path": "/name", "before": "A"}]}

    assert structured(make_event(data)).decode() == (
        '{"specversion":"1.0","id":"k4x","source":"/sources/acme","type":"nutcache.projects.updated",'
        '"subject":"projects/201001","time":"2026-11-23T22:25:32.123Z","datacontenttype":"application/json",'
        '"sequence":"0000000000001234","observedafter":"2026-11-23T22:24:10.004Z",'
        '"data":{"object":{"id":201001,"name":"B"},"version":3,"changes":[{"path":"/name","before":"A"}]}}'
    )


def test_what_is_not_known_is_left_out() -> None:
    assert b"observedafter" not in structured(make_event(observed_after=None))


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795472732.123, "2026-11-23T22:25:32.123Z"),
        (1795472732.9999, "2026-11-23T22:25:32.999Z"),
    ],
)
def test_times_are_utc_with_milliseconds(time: float, text: str) -> None:
    assert iso(time) == text


@given(st.floats(FIRST, LAST) | st.floats(-2.0, 2.0) | st.integers(0, 2**32).map(lambda second: second + 0.9999996))
def test_times_are_rounded_as_datetime_rounds_them(time: float) -> None:
    there = datetime.fromtimestamp(time, UTC)
    assert iso(time) == there.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@given(
    subject=st.text(min_size=1).filter(lambda text: text.isprintable()),
    name=st.text(),
    seq=st.integers(1, 10**15),
    time=st.floats(0, 4e9),
)
def test_the_cloudevents_sdk_reads_what_is_written(subject: str, name: str, seq: int, time: float) -> None:
    event = make_event({"object": {"name": name}, "version": 1}, subject=subject, seq=seq, time=time)

    read = from_structured(HTTPMessage({"content-type": CONTENT_TYPE}, structured(event)), JSONFormat())
    assert (read.get_id(), read.get_source(), read.get_type()) == ("k4x", "/sources/acme", event.type)
    assert read.get_subject() == subject
    assert read.get_data() == {"object": {"name": name}, "version": 1}
    assert read.get_extension("sequence") == f"{seq:016d}"
    found = read.get_time()
    assert found is not None
    assert abs(found.timestamp() - time) <= 0.001


def test_the_bytes_of_the_data_are_kept() -> None:
    raw = b'{"object": {"id": 123456789012345678901234567890, "x": 1.50}}'

    assert raw in structured(make_event(raw=raw))


def test_a_batch_is_an_array() -> None:
    batch = orjson.loads(batched([make_event(), make_event(id="k4y")]))

    assert [event["id"] for event in batch] == ["k4x", "k4y"]
    assert batched([]) == b"[]"


def test_an_event_of_64_kib_is_whole_and_one_byte_more_is_cut() -> None:
    spare = LIMIT - len(structured(make_event({"object": {"id": 1, "note": ""}})))
    whole = make_event({"object": {"id": 1, "note": "x" * spare}})
    larger = make_event({"object": {"id": 1, "note": "x" * (spare + 1)}})

    assert len(structured(whole)) == LIMIT
    assert orjson.loads(structured(larger))["data"] == {"object": {"id": 1}, "truncated": True}
    assert len(structured(larger, limit=None)) == LIMIT + 1


def test_what_is_short_stays_when_an_event_is_cut() -> None:
    changes = [
        {"path": "/status", "before": "planned", "after": "won"},
        {"path": "/note", "before": "x" * 50_000, "after": "y" * 50_000},
    ]
    data = {"object": {"id": 7, "name": "B", "note": "y" * 50_000}, "version": 3, "changes": changes}

    assert orjson.loads(structured(make_event(data)))["data"] == {
        "object": {"id": 7, "name": "B"},
        "version": 3,
        "changes": [changes[0], {"path": "/note"}],
        "truncated": True,
    }


def test_digits_survive_the_cut() -> None:
    raw = b'{"object":{"id":123456789012345678901234567890,"note":"' + b"x" * LIMIT + b'"}}'

    assert b'"id":123456789012345678901234567890' in structured(make_event(raw=raw))


VALUES = st.integers(0, 9) | st.text(max_size=5) | st.integers(1, 9000).map(lambda size: "é" * size)
PATHS = st.text(max_size=8).map(lambda text: f"/{text}") | st.integers(100, 2000).map(lambda size: "/" + "p" * size)


@given(
    object=st.dictionaries(st.text(max_size=5), VALUES, max_size=20),
    changes=st.lists(st.fixed_dictionaries({"path": PATHS}, optional={"before": VALUES, "after": VALUES}), max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_no_event_is_larger_than_64_kib_and_changed_paths_stay(
    object: dict[str, Any], changes: list[dict[str, Any]]
) -> None:
    data = {"object": object, "version": 1, "changes": changes}
    body = structured(make_event(data))
    told = orjson.loads(body)["data"]

    assert len(body) <= LIMIT
    if told != data:
        assert told["truncated"] is True
        paths = [change["path"] for change in changes]
        assert [change["path"] for change in told["changes"]] == paths[: len(told["changes"])]
        if sum(map(len, paths)) < LIMIT // 2:
            assert len(told["changes"]) == len(paths)


def test_a_large_notice_of_the_program_itself_is_cut_too() -> None:
    data = {"summary": "acme does not answer", "version": 1, "detail": {"body": "x" * LIMIT, "since": "10:00"}}

    told = orjson.loads(structured(make_event(data, source="/poller", type="poller.source.failing")))["data"]
    assert told == {"summary": "acme does not answer", "version": 1, "detail": {"since": "10:00"}, "truncated": True}


def test_even_a_summary_without_measure_is_cut() -> None:
    assert len(structured(make_event({"summary": "x" * LIMIT * 2, "version": 1}))) <= LIMIT


@pytest.mark.parametrize("id", ["7" * 1_000_000, "\x00" * 1_000_000, "é" * 1_000_000])
def test_an_id_without_measure_is_cut_too_and_the_event_says_so(id: str) -> None:
    event = make_event({"object": {"id": id, "name": "B"}, "version": 3}, subject=f"projects/{id}")
    shown = structured(event)
    read = orjson.loads(shown)

    assert len(shown) <= LIMIT
    assert read["subject"].startswith(f"projects/{id[:100]}")
    assert (read["data"]["object"], read["data"]["version"]) == ({"name": "B"}, 3)
    assert read["data"]["truncated"] is True
    assert orjson.loads(structured(event, limit=None))["subject"] == f"projects/{id}"


def test_long_ids_that_begin_alike_stay_apart() -> None:
    subjects = {orjson.loads(structured(make_event(subject="x" * 1000 + end)))["subject"] for end in "ab"}

    assert len(subjects) == 2


def test_data_of_very_many_members_is_cut() -> None:
    event = make_event({f"member {number}": number for number in range(20_000)})

    assert len(structured(event)) <= LIMIT
    assert orjson.loads(structured(event))["data"]["truncated"] is True
