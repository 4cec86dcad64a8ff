"""The end of the log that all streams share: read once, bounded, and never a gap or a repetition."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from poller.operations.log import Batch, read_batch
from poller.web.stream import MOST, MOST_BYTES, Message, Tail, matches, stream
from state.errors import StateError
from state.records import Event, EventQuery, NewEvent
from state.sqlite.store import Reader, Store


class Log:
    """A log in memory that counts how often it is read, and tells of news."""

    heartbeat = 0.01
    is_closing = False

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reads = 0
        self.news = asyncio.Event()

    def append(self, *sizes: int) -> None:
        for size in sizes:
            seq = len(self.events) + 1
            raw = b'"' + b"x" * size + b'"'
            self.events.append(
                Event(
                    seq=seq,
                    id=str(seq),
                    source="/sources/shop",
                    type=f"shop.items.{'deleted' if seq % 2 else 'updated'}",
                    subject=f"items/{seq}",
                    time=0.0,
                    observed_after=None,
                    raw=raw,
                )
            )
        news, self.news = self.news, asyncio.Event()
        news.set()

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        yield

    async def read(self, query: EventQuery, limit: int) -> Batch:
        self.reads += 1
        await asyncio.sleep(0)
        found = self.events[query.after : query.after + limit]
        next_ = found[-1].seq if found else query.after
        return Batch(events=tuple(found), next=next_, log_id="log", first=1, is_full=len(found) == limit)


async def read(log: Log, tail: Tail, query: EventQuery, upto: int) -> list[int]:
    """The numbers that a stream gives, until it has given one."""
    found: list[int] = []
    async with contextlib.aclosing(stream(log, tail, query, lambda: False)) as messages:
        async for chunk in messages:
            lines = chunk.split(b"\n")
            found += [int(line.rpartition(b"-")[2]) for line in lines if line.startswith(b"id: ")]
            if found and found[-1] >= upto:
                break
    return found


async def test_twenty_streams_read_the_log_about_once() -> None:
    log = Log()
    tail = Tail(log.read)
    readers = [asyncio.create_task(read(log, tail, EventQuery(after=0), 30)) for _ in range(20)]
    for _ in range(30):
        await asyncio.sleep(0)
        log.append(10)

    assert await asyncio.gather(*readers) == [list(range(1, 31))] * 20
    assert log.reads < 10


async def test_a_stream_that_is_behind_the_tail_misses_nothing_and_repeats_nothing() -> None:
    log = Log()
    log.append(*[10] * 900)
    tail = Tail(log.read)
    ahead = asyncio.create_task(read(log, tail, EventQuery(after=890), 2500))
    behind = asyncio.create_task(read(log, tail, EventQuery(after=3), 2500))
    for _ in range(16):
        await asyncio.sleep(0)
        log.append(*[10] * 100)

    assert await ahead == list(range(891, 2501))
    assert await behind == list(range(4, 2501))


async def test_the_tail_is_bounded_whatever_the_log_has() -> None:
    log = Log()
    log.append(*[10] * 3000, *[60_000] * 300)
    tail = Tail(log.read)
    with tail.reading(0):
        while tail.upto < 3300:
            await tail.refresh(log)
            assert len(tail._messages) <= MOST
            assert tail._bytes <= MOST_BYTES
            assert tail._bytes == sum(len(one.text) for one in tail._messages)


async def test_a_tail_that_nobody_reads_begins_anew() -> None:
    log = Log()
    tail = Tail(log.read)
    log.append(*[10] * 100)
    assert await read(log, tail, EventQuery(after=90), 100) == list(range(91, 101))
    log.append(*[10] * 100)

    assert await read(log, tail, EventQuery(after=195), 200) == list(range(196, 201))
    assert tail.first == 195


async def test_a_filter_gives_what_it_asks_for() -> None:
    log = Log()
    tail = Tail(log.read)
    log.append(*[10] * 20)

    assert await read(log, tail, EventQuery(after=0, type_glob="*.updated"), 20) == list(range(2, 21, 2))


async def test_a_stream_ends_where_the_log_cannot_be_read() -> None:
    log = Log()

    async def unreadable(query: EventQuery, limit: int) -> Batch:
        raise StateError("the database cannot be reached")

    assert [chunk async for chunk in stream(log, Tail(unreadable), EventQuery(after=0), lambda: False)] == [
        b"retry: 2000\n: here\n\n"
    ]


@pytest.mark.parametrize(
    "query",
    [
        EventQuery(type_glob="*.deleted"),
        EventQuery(type_glob="shop.[^i]*"),
        EventQuery(type_glob="shop.items.update?"),
        EventQuery(source="shop"),
        EventQuery(source="sho"),
        EventQuery(subject="items/1"),
        EventQuery(subject="items/*"),
        EventQuery(subject="items/[12]"),
        EventQuery(subject="Items/1"),
        EventQuery(type_glob="*.updated", subject="items/2", source="shop"),
    ],
    ids=str,
)
def test_a_filter_of_a_stream_is_that_of_the_log(tmp_path: Path, query: EventQuery) -> None:
    new = [
        NewEvent(
            id=f"{kind}{at}",
            source="/sources/shop",
            type=f"shop.items.{kind}",
            subject=f"items/{at}",
            time=0.0,
            observed_after=None,
            raw=b"{}",
        )
        for at, kind in enumerate(("created", "updated", "deleted"), start=1)
    ]
    store = Store.open(tmp_path / "poller.db", now=0.0)
    store.log.append(new)
    with contextlib.closing(Reader.open(tmp_path / "poller.db")) as reader:
        found = [event.seq for event in read_batch(reader, query, 10).events]
    store.close()

    shown = [
        Message(seq=seq, type=one.type, source=one.source, subject=one.subject, text=b"")
        for seq, one in enumerate(new, start=1)
    ]
    assert [one.seq for one in shown if matches(one, query)] == found
