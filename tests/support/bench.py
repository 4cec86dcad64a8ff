"""Delivery on a bench: a real state file, a clock that the test moves, and sinks that answer as it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest
import structlog
from pydantic import BaseModel

from poller.clock import VirtualClock
from poller.delivery.service import Deliverer
from poller.delivery.subscription import Route, Subscription
from poller.sinks.protocol import Attempt, Receipt
from state.deliveries import PENDING_LIMIT, SubscriptionLedger, SubscriptionState
from state.records import Event, NewEvent
from state.sqlite.connection import open_database
from state.sqlite.dispatch import Deliveries
from state.sqlite.events import Log, log_migrations
from state.sqlite.leases import LeaseTable, lease_migrations
from state.sqlite.notices import notice_migrations
from state.sqlite.polls import polls_migrations
from state.sqlite.read_deliveries import DeliveryReader
from state.sqlite.runner import Inline
from state.sqlite.schema import delivery_migrations
from state.sqlite.writer import Writer

OK = Receipt(status="200", text="thanks")


class Box:
    """A sink that keeps what arrives and answers as the test says."""

    Options: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.calls: list[tuple[tuple[int, ...], Attempt]] = []
        self.answer: Callable[[Sequence[Event], Attempt], Awaitable[Receipt]] = self.accept
        self.opened = 0
        self.open_error: Exception | None = None
        self.attempt_limit = 60.0  # seconds

    async def accept(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        return OK

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        self.calls.append((tuple(event.seq for event in events), attempt))
        receipt = await self.answer(events, attempt)
        self.got.extend(events)
        return receipt

    def fail(self, error: Exception) -> None:
        async def raising(events: Sequence[Event], attempt: Attempt) -> Receipt:
            raise error

        self.answer = raising

    async def hang(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.got]

    async def __aenter__(self) -> Self:
        self.opened += 1
        if self.open_error is not None:
            raise self.open_error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opened -= 1


def make_event(number: int, **fields: Any) -> NewEvent:
    return NewEvent(
        **{
            "id": f"event-{number}",
            "source": "/sources/acme",
            "type": "shop.items.updated",
            "subject": f"items/{number}",
            "time": 1_700_000_000.0 + number,
            "observed_after": None,
            "raw": b'{"object":{"n":%d}}' % number,
            **fields,
        }
    )


class Bench:
    """A state file, a clock and the deliverer over them."""

    def __init__(self, path: Path, *, pending_limit: int = PENDING_LIMIT) -> None:
        self.path = path
        self.pending_limit = pending_limit
        self.clock = VirtualClock()
        self.boxes: dict[str, Box] = {}
        self.routes: list[Route] = []
        self.open()

    def open(self) -> None:
        self.db = open_database(
            self.path, sets=(log_migrations, delivery_migrations, notice_migrations, lease_migrations, polls_migrations)
        )
        self.log = Log(self.db)
        self.store = Deliveries(self.db, pending_limit=self.pending_limit)
        self.reader = DeliveryReader(self.db)
        self.stop = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    def route(self, name: str, **settings: Any) -> Box:
        box = self.boxes.setdefault(name, Box())
        start = settings.pop("start", "beginning")
        next_digest = settings.pop("next_digest", None)
        subscription = Subscription(name=name, start=start, **settings)
        self.routes.append(Route(subscription=subscription, open_sink=lambda: box, next_digest=next_digest))
        return box

    def deliverer(self, **settings: Any) -> Deliverer:
        return Deliverer(
            self.routes,
            store=self.store,
            leases=LeaseTable(self.db),
            write=Writer(Inline()),
            clock=self.clock,
            random=Random(1),
            **settings,
        )

    async def start(self, **settings: Any) -> None:
        self.delivering = self.deliverer(**settings)
        self.running = asyncio.create_task(self.delivering.run(self.stop))
        await self.settle()

    async def end(self) -> None:
        if self.running is not None:
            self.stop.set()
            await self.settle()
            while not self.running.done():
                await self.pass_(1)
            await self.running
            self.running = None
            self.stop = asyncio.Event()

    async def settle(self) -> None:
        """Let everything happen that can happen at this instant."""
        await asyncio.sleep(0)
        while asyncio.get_running_loop()._ready:  # type: ignore[attr-defined]
            await asyncio.sleep(0)

    async def pass_(self, seconds: float) -> None:
        """Let time pass, alarm by alarm."""
        until = self.clock.steady() + seconds
        while (waking := self.clock.next_waking()) is not None and waking <= until:
            self.clock.advance(max(0.0, waking - self.clock.steady()))
            await self.settle()
        self.clock.advance(until - self.clock.steady())
        await self.settle()

    async def record(self, *numbers: int, **fields: Any) -> None:
        self.log.append(make_event(number, **fields) for number in numbers)
        if self.running is not None:
            self.delivering.wake()
        await self.settle()

    def state(self, name: str) -> SubscriptionState:
        return next(state for state in self.reader.subscriptions() if state.name == name)

    def books(self, name: str) -> SubscriptionLedger:
        return next(books for books in self.reader.ledger() if books.subscription == name)

    def notices(self) -> list[str]:
        return [event.type for event in self.log.read() if event.source == "/poller"]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "state.db")
    yield bench
    await bench.end()
    bench.db.close()


@pytest.fixture(autouse=True)
def said() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries  # type: ignore[misc]
