"""The jsonl sink: whole lines, on the disk when told, one after the other, rotated by size."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.jsonl import JsonlOptions, JsonlSink, LineFile, _next_free
from poller import Attempt, Event

FIRST = Attempt(number=1, delivery_id="7")


def make_event(number: int = 1, **fields: Any) -> Event:
    return Event(
        **{
            "id": f"k{number}",
            "source": "/sources/acme",
            "type": "nutcache.projects.created",
            "subject": f"projects/{number}",
            "time": 1795472732.123,
            "observed_after": None,
            "raw": b'{"object":{"id":7},"version":1}',
            "seq": number,
            **fields,
        }
    )


def opened(path: Path, **keys: Any) -> JsonlSink:
    return JsonlSink("log", JsonlOptions.model_validate({"path": path.name, **keys}, context={"root": path.parent}))


def ids(path: Path) -> list[str]:
    return [orjson.loads(line)["id"] for line in path.read_bytes().splitlines()]


async def test_events_are_appended_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "out" / "events.jsonl"
    for number in (1, 2):
        async with opened(path) as sink:
            receipt = await sink.deliver([make_event(number)], FIRST)

    assert ids(path) == ["k1", "k2"]
    assert receipt.text == str(path)


async def test_many_at_once_are_all_there_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with opened(path) as sink:
        await asyncio.gather(*(sink.deliver([make_event(number)], FIRST) for number in range(200)))

    assert ids(path) == [f"k{number}" for number in range(200)]


async def test_an_event_with_line_ends_in_its_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with opened(path) as sink:
        await sink.deliver([make_event(raw=b'{\n"object": {"note": "a\\nb"}\n}')], FIRST)

    [line] = path.read_bytes().splitlines()
    assert orjson.loads(line)["data"]["object"]["note"] == "a\nb"


@given(torn=st.binary(max_size=300).filter(lambda tail: b"\n" not in tail), lines=st.integers(0, 3))
@settings(max_examples=30)
def test_a_torn_last_line_is_taken_off_on_opening(
    tmp_path_factory: pytest.TempPathFactory, torn: bytes, lines: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "events.jsonl"
    whole = b'{"specversion":"1.0"}\n' * lines
    path.write_bytes((whole + b'{"specversion":"1.0","id":"' + torn)[: len(whole) + len(torn)])

    LineFile(path, None).close()
    assert path.read_bytes() == whole


def test_a_torn_line_longer_than_a_block_is_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"specversion":"1.0"}\n' + b"x" * 200_000)

    LineFile(path, None).close()
    assert path.read_bytes() == b'{"specversion":"1.0"}\n'


def test_blocks_that_a_power_cut_left_empty_are_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\0" * 4096)

    LineFile(path, None).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("name", ["events.jsonl", "events[1].jsonl", "*.jsonl"])
async def test_a_full_file_is_set_aside_under_the_next_number(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    async with opened(path, rotate="600B") as sink:
        for number in range(7):
            await sink.deliver([make_event(number)], FIRST)

    files = [*(tmp_path / f"{name}.{number}" for number in (1, 2, 3)), path]
    assert [line for file in files for line in ids(file)] == [f"k{number}" for number in range(7)]
    assert all(file.stat().st_size <= 600 for file in files)


def test_the_number_of_a_packed_file_is_not_given_again(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl.3.gz").touch()
    assert _next_free(tmp_path / "events.jsonl") == tmp_path / "events.jsonl.4"


async def test_a_file_moved_away_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with opened(path) as sink:
        await sink.deliver([make_event(1)], FIRST)
        os.rename(path, tmp_path / "moved")
        await sink.deliver([make_event(2)], FIRST)

    assert (ids(tmp_path / "moved"), ids(path)) == (["k1"], ["k2"])


async def test_a_write_that_fails_is_told_and_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        async with opened(path) as sink:
            await sink.deliver([make_event(1)], FIRST)
            size = path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))  # as a full disk would
            failed = await asyncio.gather(
                *(sink.deliver([make_event(number)], FIRST) for number in (2, 3)), return_exceptions=True
            )
            assert path.stat().st_size == size
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            await sink.deliver([make_event(2)], FIRST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    assert all(isinstance(failure, OSError) for failure in failed)
    assert ids(path) == ["k1", "k2"]


async def test_a_path_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError):
        async with opened(tmp_path / "file" / "events.jsonl"):
            raise AssertionError


@pytest.mark.parametrize("content", ["precious", "precious\nand torn"])
async def test_a_file_behind_a_link_stays_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine").write_text(content)
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "mine")

    with pytest.raises(OSError, match="is a link"):
        async with opened(tmp_path / "out.jsonl"):
            pass
    assert (tmp_path / "mine").read_text() == content


async def test_a_file_that_is_not_of_events_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("127.0.0.1 localhost")

    with pytest.raises(OSError, match="is not a file of events"):
        async with opened(tmp_path / "out.jsonl"):
            pass
    assert path.read_text() == "127.0.0.1 localhost"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch()
    os.chown(path, 12345, 12345)

    with pytest.raises(OSError, match="belongs to another user"):
        async with opened(tmp_path / "out.jsonl"):
            pass


async def test_who_may_read_it_stays_as_it_was_when_it_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch(0o600)
    path.chmod(0o640)

    async with opened(path, rotate="1B") as sink:
        for number in (1, 2):
            await sink.deliver([make_event(number)], FIRST)

    assert (tmp_path / "out.jsonl.1").exists()
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_folder_that_may_not_be_listed_takes_a_file_that_is_not_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Any, flags: int = os.O_DIRECTORY, *more: Any) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied", path)
        return opening(path, flags, *more)

    opening = os.open
    monkeypatch.setattr("plugins.jsonl.os.open", refused)
    monkeypatch.setattr("plugins.jsonl.os.listdir", refused)
    async with opened(tmp_path / "events.jsonl", rotate="1B") as sink:
        await sink.deliver([make_event(1)], FIRST)
        with pytest.raises(OSError, match="may not be listed: rotate needs that"):
            await sink.deliver([make_event(2)], FIRST)

    assert ids(tmp_path / "events.jsonl") == ["k1"]
