"""Whatever sinks answer and whenever the process dies: each wanted event arrives, in order per object, and the books
balance after every step.

`make prove-delivery` plays many more histories than a run of the tests does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, ClassVar, Self

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs
from pydantic import BaseModel

from poller.delivery.notices import ping
from poller.delivery.service import Deliverer
from poller.sinks.protocol import Attempt, Gone, Receipt, Refused, Rejected, RetryLater
from state.errors import Unavailable
from state.records import Event
from state.sqlite.connection import transaction
from state.sqlite.leases import LeaseTable
from state.sqlite.rewind import rewind
from state.sqlite.runner import Inline
from state.sqlite.writer import Writer
from tests.support.bench import Bench, make_event

HISTORIES = int(os.environ.get("POLLER_HISTORIES", "25"))
ROOM = 6  # deliveries of a subscription that are pending at once: reading on has to wait and to go on


class Died(BaseException):
    """The process is gone: what it had not written is forgotten."""


class Mortal:
    """The way to the store of a process that may die in the middle of it, before a step or right behind its commit;
    some steps find the disk full.
    """

    def __init__(self) -> None:
        self.full = 0  # steps that find it so
        self.steps_left: int | None = None
        self.commits = False
        self.dead = False
        self._write = Writer(Inline())

    async def __call__(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.steps_left == 0 and not self.dead:
            self.dead = True
            if self.commits:
                await self._write(step, *args, **kwargs)
        if self.dead:
            raise Died
        if self.full:
            self.full -= 1
            raise Unavailable("the disk is full")
        self.steps_left = self.steps_left and self.steps_left - 1
        return await self._write(step, *args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Answer:
    """How a receiver meets an attempt: whether the events reach it, after how long it answers, and what."""

    says: str
    error: Callable[[], Exception] | None = None
    arrives: bool = True
    after: float = 0.0  # seconds

    def __repr__(self) -> str:
        return self.says


SAID = Receipt(status="…")
ANSWERS = (
    Answer("ok"),
    Answer("ok, slowly", after=20.0),
    Answer("nothing at all", after=1e9),
    Answer("nothing, and got nothing", after=1e9, arrives=False),
    Answer("broken off", lambda: OSError("reset")),
    Answer("unreachable", lambda: OSError("refused"), arrives=False),
    Answer("503", lambda: RetryLater(None, SAID), arrives=False),
    Answer("503, slowly", lambda: RetryLater(None, SAID), after=30.0),
    Answer("429, in 90 s", lambda: RetryLater(90.0, SAID), arrives=False),
    Answer("404", lambda: Refused(SAID), arrives=False),
    Answer("413", lambda: Rejected(SAID), arrives=False),
    Answer("410", lambda: Gone(SAID), arrives=False),
    Answer("what no plugin should raise", lambda: KeyError("oops")),
)
OK = ANSWERS[0]
REFUSED = Answer("400", lambda: Refused(SAID), arrives=False)
LONGEST_OUTAGE = 500.0  # seconds: an attempt that gets no answer, a probe that is refused, the longest wait, another


class Receiver:
    """A sink that answers by a script, and notes what came in which order."""

    Options: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, bench: Bench, wants: Callable[[Event], bool]) -> None:
        self.wants = wants
        self.script: deque[Answer] = deque()
        self.usual = OK
        self.refused: str | None = None  # the object whose events it refuses
        self.got: set[int] = set()
        self.promised: set[int] = set()  # answered with a receipt
        self.faults: list[str] = []
        self._bench = bench
        self._latest: dict[str, int] = defaultdict(int)  # per object, of what came in the order of the log
        self._busy: set[str] = set()

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        answer = self.script.popleft() if self.script else self.usual
        if self.refused in {event.subject for event in events}:
            answer = REFUSED
        lane, origin, state = self._bench.db.execute(
            "SELECT d.lane, d.origin, s.state FROM deliveries d JOIN subscriptions s ON s.id = d.subscription "
            "WHERE d.id = ?",
            [int(attempt.delivery_id)],
        ).fetchone()
        if state != "active":
            self.faults.append(f"{[event.seq for event in events]} left while it was {state}")
        in_order = origin == "log" and not lane.startswith("!")
        unasked = (event for event in events if not self.wants(event) and event.type != "poller.ping")
        self.faults += [f"{event.seq} was not wanted" for event in unasked]
        objects = {event.subject for event in events} if in_order else set()
        if objects & self._busy:
            self.faults.append(f"two attempts at once: {objects & self._busy}")
        self._busy |= objects
        try:
            return await self._meet(answer, events, in_order)
        finally:
            self._busy -= objects

    async def _meet(self, answer: Answer, events: Sequence[Event], in_order: bool) -> Receipt:
        for event in events if answer.arrives else ():
            if in_order and event.seq not in self.got:
                if event.seq < self._latest[event.subject]:
                    self.faults.append(f"{event.seq} came behind {self._latest[event.subject]}")
                self._latest[event.subject] = event.seq
            self.got.add(event.seq)
        await self._bench.clock.sleep(answer.after)
        if answer.error is not None:
            raise answer.error()
        self.promised.update(event.seq for event in events)
        return SAID

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


@functools.cache
def new_state() -> bytes:
    """A state that was just created. To create one takes a fifth of a history's time, and syncs the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        Bench(path).db.close()
        return path.read_bytes()


class World(Bench):
    """A bench whose process may die."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(new_state())
        super().__init__(path, pending_limit=ROOM)
        self.receivers: dict[str, Receiver] = {}
        self.absent: set[str] = set()

    def open(self) -> None:
        super().open()
        self.db.execute("PRAGMA synchronous = OFF")  # the machine stays up, only the process dies
        self.write = Mortal()

    def receiver(self, name: str, wants: Callable[[Event], bool], **keys: Any) -> None:
        self.route(name, **keys)
        receiver = self.receivers[name] = Receiver(self, wants)
        self.routes[-1] = structs.replace(self.routes[-1], open_sink=lambda: receiver)

    def present(self) -> list[Any]:
        return [route for route in self.routes if route.subscription.name not in self.absent]

    def is_digest(self, name: str) -> bool:
        [subscription] = [one.subscription for one in self.routes if one.subscription.name == name]
        return subscription.digest is not None

    def deliverer(self, **keys: Any) -> Deliverer:
        return Deliverer(
            self.present(),
            store=self.store,
            leases=LeaseTable(self.db),
            write=self.write,
            clock=self.clock,
            random=Random(1),
            **keys,
        )

    async def ended(self) -> None:
        """Stop in good order, unless the process dies over it."""
        self.stop.set()
        while self.running is not None and not self.running.done():
            await self.pass_(1)

    async def reborn(self) -> None:
        """Let go of everything that the process had in hand, and start it again on the same file."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=0)
        self.db.close()
        self.open()
        await self.start()

    async def go_on(self) -> None:
        await self.settle()
        while self.write.dead:
            await self.reborn()

    async def pass_(self, seconds: float) -> None:
        """As on any bench, but the process may die on the way."""
        until = self.clock.steady() + seconds
        while (waking := self.clock.next_waking()) is not None and waking <= until:
            self.clock.advance(max(0.0, waking - self.clock.steady()))
            await self.settle()
            if self.write.dead and not self.stop.is_set():
                await self.go_on()
        self.clock.advance(until - self.clock.steady())
        await self.settle()


def is_even(event: Event) -> bool:
    return event.source == "/sources/acme" and event.data["object"].get("n", 1) % 2 == 0


ONE_BY_ONE = ("all", "even", "single")
NAMES = st.sampled_from(["all", "even", "digest", "single"])
LETTERS = st.sampled_from("abcd")


class Deliveries(RuleBasedStateMachine):
    """What may happen on the way from the log to the sinks, in any order."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.recorded = 0
        self.has_forgotten = False
        self.forgotten: dict[str, set[int]] = defaultdict(
            set
        )  # by subscription: what it wanted and is not kept any more
        self.do(self._begin())

    async def _begin(self) -> None:
        world = self.world = World(Path(self.folder.name) / "state.db")
        ours = lambda event: event.source == "/sources/acme"  # noqa: E731
        world.receiver("all", ours, retry=(5.0, 60.0), concurrency=2)
        world.receiver("even", is_even, retry=(5.0,), where="data.object.n % 2 == 0")
        world.receiver("digest", ours, retry=(5.0, 5.0), digest=30.0)
        world.receiver("single", ours, retry=(), concurrency=1)
        world.receiver(
            "ops",
            lambda event: event.source == "/poller" and event.subject != "subscriptions/ops",
            types=("poller.*",),
        )
        await world.start()

    def do(self, step: Any) -> None:
        with structlog.testing.capture_logs():
            self.runner.run(step)
            self.runner.run(self.world.go_on())

    @rule(objects=st.lists(st.tuples(LETTERS, st.sampled_from([None, 1, 2])), min_size=1, max_size=12))
    def record(self, objects: list[tuple[str, int | None]]) -> None:
        """The numbers decide who wants an event; one without makes the filter fail."""
        for letter, n in objects:
            self.recorded += 1
            raw = b'{"object":{}}' if n is None else b'{"object":{"n":%d}}' % n
            self.world.log.append([make_event(self.recorded, subject=f"items/{letter}", raw=raw)])
        self.wake()

    @rule(name=NAMES, answers=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=12))
    def answer(self, name: str, answers: list[Answer]) -> None:
        self.world.receivers[name].script.extend(answers)

    @rule(name=NAMES, answer=st.sampled_from(ANSWERS))
    def answer_always(self, name: str, answer: Answer) -> None:
        self.world.receivers[name].usual = answer

    @rule(name=st.sampled_from(ONE_BY_ONE), letter=LETTERS | st.none())
    def refuse(self, name: str, letter: str | None) -> None:
        """From now on it refuses what concerns one object."""
        self.world.receivers[name].refused = letter and f"items/{letter}"

    @rule(seconds=st.sampled_from([0.5, 6.0, 31.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.world.pass_(seconds))

    @rule(steps=st.integers(0, 8), commits=st.booleans())
    def die_soon(self, steps: int, commits: bool) -> None:
        self.world.write.steps_left, self.world.write.commits = steps, commits

    @rule(steps=st.integers(1, 9))
    def fill_the_disk(self, steps: int) -> None:
        self.world.write.full = steps

    @rule()
    def die_now(self) -> None:
        self.do(self.world.reborn())

    @rule()
    def restart(self) -> None:
        self.do(self._restart())

    async def _restart(self) -> None:
        await self.world.ended()
        await self.world.reborn()

    @rule(name=NAMES)
    def pause(self, name: str) -> None:
        self.world.store.pause(name)
        self.wake()

    @rule(name=NAMES)
    def resume(self, name: str) -> None:
        if name not in self.world.absent:
            self.world.store.resume(name)
            self.wake()

    @rule(state=st.sampled_from(["dead", "delivered", "pending"]), name=NAMES)
    def redeliver(self, state: str, name: str) -> None:
        found = self.world.reader.deliveries(states=[state], subscription=name, limit=3)
        self.world.store.redeliver([delivery.id for delivery in found], now=self.world.clock.now())
        self.wake()

    @rule(name=NAMES, share=st.floats(0, 1))
    def replay(self, name: str, share: float) -> None:
        self.world.store.replay(name, after=int(share * self.world.log.last_seq()))
        self.wake()

    @rule(name=NAMES)
    def ping(self, name: str) -> None:
        self.world.store.ping(name, ping(name, now=self.world.clock.now()), now=self.world.clock.now())
        self.wake()

    @rule(name=NAMES)
    def come_or_go(self, name: str) -> None:
        """The configuration is read again, without or again with a subscription."""
        self.world.absent ^= {name}
        self.do(self._reconfigure())

    @rule(seconds=st.sampled_from([-7200.0, -30.0, 7200.0]))
    def clock_is_set(self, seconds: float) -> None:
        """As the daemon follows it: not while the disk is full, nor before what waited for that is written."""
        world = self.world
        world.write.full = 0
        self.do(world.pass_(5.0))
        world.clock.set_wall(seconds)
        with transaction(world.db) as conn:
            rewind(conn, world.clock.now(), min(seconds, 0.0))
        self.wake()

    @rule(share=st.floats(0, 1))
    def forget(self, share: float) -> None:
        """The oldest events have been kept long enough; who was not given them is disabled."""
        for name, receiver in self.world.receivers.items():
            self.forgotten[name] |= {event.seq for event in self.kept() if receiver.wants(event)}
        self.do(self._forget(int(share * self.world.log.last_seq())))
        self.has_forgotten = True
        left = {event.seq for event in self.kept()}
        for seqs in self.forgotten.values():
            seqs -= left

    def kept(self) -> list[Event]:
        return self.world.log.read(limit=10**6)

    async def _forget(self, upto: int) -> None:
        self.world.write.full = 0
        task = asyncio.create_task(self.world.delivering.purge(upto, before=0.0))
        while not (task.done() or self.world.write.dead):
            await self.world.settle()
        await asyncio.gather(task, return_exceptions=self.world.write.dead)

    @rule(name=NAMES)
    def change_manner(self, name: str) -> None:
        """The configuration is read again: what left one by one leaves as a digest, or the other way round."""
        for first_seq, route in enumerate(self.world.routes):
            if route.subscription.name == name:
                digest = 30.0 if route.subscription.digest is None else None
                subscription = structs.replace(route.subscription, digest=digest)
                self.world.routes[first_seq] = structs.replace(route, subscription=subscription)
        self.do(self._reconfigure())

    async def _reconfigure(self) -> None:
        self.world.write.full = 0
        task = asyncio.create_task(self.world.delivering.reconfigure(self.world.present()))
        while not (task.done() or self.world.write.dead):
            await self.world.settle()
            if not task.done() and not self.world.write.dead:
                waking = self.world.clock.next_waking()
                assert waking is not None
                self.world.clock.advance(max(0.0, waking - self.world.clock.steady()))
                await self.world.settle()
        await asyncio.gather(task, return_exceptions=self.world.write.dead)

    def wake(self) -> None:
        self.world.delivering.wake()
        self.do(self.world.settle())

    @invariant()
    def nothing_is_out_of_order_or_unwanted(self) -> None:
        for name, receiver in self.world.receivers.items():
            assert not receiver.faults, f"{name}: {receiver.faults}"

    @invariant()
    def the_books_balance(self) -> None:
        for books in self.world.reader.ledger():
            assert books.balanced, books
        for state in self.world.reader.subscriptions():
            row = "SELECT count(*) FROM deliveries WHERE state = 'pending' AND subscription = s.id"
            query = f"SELECT ({row}) FROM subscriptions s WHERE name = ?"
            assert (state.pending,) == self.world.db.execute(query, [state.name]).fetchone(), state

    @invariant()
    def what_is_pending_has_a_lane_and_nothing_else_has(self) -> None:
        """Except, until it is claimed, the lane of an attempt that was under way while its event was forgotten."""
        waiting = "SELECT DISTINCT subscription, lane FROM deliveries WHERE state = 'pending'"
        lanes = "SELECT subscription, lane FROM lanes"
        assert self.world.db.execute(f"{waiting} EXCEPT {lanes}").fetchall() == []
        if not self.has_forgotten:
            assert self.world.db.execute(f"{lanes} EXCEPT {waiting}").fetchall() == []

    def teardown(self) -> None:
        try:
            self.do(self._heal())
            self.what_is_not_refused_is_not_held_up()
            self.do(self._accept_all())
            self.the_books_balance()
            assert self.world.db.execute("SELECT * FROM lanes").fetchall() == []
            self.nothing_is_out_of_order_or_unwanted()
            for name in self.world.receivers:
                self.everything_came(name)
            self.do(self.world.ended())
        finally:
            self.runner.close()
            self.world.db.close()
            self.folder.cleanup()

    async def _heal(self) -> None:
        """Nothing dies any more, and every receiver is well, except that one object may still be refused."""
        world = self.world
        gone, world.absent = world.absent, set()
        for receiver in world.receivers.values():
            receiver.script.clear()
            receiver.usual = OK
        world.write.steps_left, world.write.full = None, 0
        if gone:  # else not: it would free what is stuck
            await self._reconfigure()
        for name in world.receivers:
            world.store.resume(name)
        world.delivering.wake()
        await world.settle()
        await world.pass_(LONGEST_OUTAGE)

    def what_is_not_refused_is_not_held_up(self) -> None:
        """A receiver that refuses one object has all others soon, however the probes fell and whatever waits."""
        for name in ONE_BY_ONE:
            receiver, state = self.world.receivers[name], self.world.state(name)
            if receiver.refused is None or self.world.is_digest(name) or state.pending >= 10 * ROOM:
                continue
            others = {e.seq for e in self.kept() if receiver.wants(e) and e.subject != receiver.refused}
            pending = self.world.reader.deliveries(states=["pending"], subscription=name, limit=10**6)
            waiting = {one.seq for one in pending} | {seq for seq in others if seq > state.cursor}
            assert not waiting & others, (name, receiver.refused, waiting & others)

    async def _accept_all(self) -> None:
        for receiver in self.world.receivers.values():
            receiver.refused = None
        for _ in range(50):
            await self.world.pass_(100.0)

    def everything_came(self, name: str) -> None:
        """Each event that is wanted is delivered, and then it came, or dead; the others are noted as not matching."""
        world, receiver = self.world, self.world.receivers[name]
        wanted = {event.seq for event in self.kept() if receiver.wants(event)}
        ends: dict[str, set[int]] = {"delivered": set(), "dead": set()}
        for delivery in world.reader.deliveries(subscription=name, limit=10**6):
            assert delivery.state in ends, delivery
            if delivery.origin == "log":
                ends[delivery.state].add(delivery.seq)
        assert ends["delivered"] | ends["dead"] == wanted
        assert ends["delivered"] <= receiver.promised
        books, forgotten = world.books(name), self.forgotten[name]
        assert books.unread == 0
        assert books.delivered + books.dead + books.dropped + books.not_matching == world.log.last_seq()
        assert books.not_matching <= world.log.last_seq() - len(wanted | forgotten)
        assert len(forgotten - receiver.promised) <= books.dead + books.dropped
        if not self.has_forgotten:
            assert (books.dropped, books.not_matching) == (0, world.log.last_seq() - len(wanted))


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(
    max_examples=HISTORIES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
