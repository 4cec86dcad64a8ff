"""Each proof can fail: a bug that is put into the program on purpose turns it red."""

import logging
import math
import sqlite3
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import poller.events.events
import poller.polling.deletions
import poller.polling.turn
import state.sqlite.claims
import state.sqlite.connection
import state.sqlite.polls
from state.records import Event
from state.sqlite.calls import Calls
from tests.delivery.test_delivery_stateful import Deliveries
from tests.proofs.crash.judge import faults_in
from tests.proofs.soak.growth import grown
from tests.store import test_polls as contract
from tests.support.stores import SqliteBackend
from tests.truth.judge import Untrue
from tests.truth.power_loss import losses, recording
from tests.truth.run import prove
from tests.truth.world import Step, World


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


ONCE = settings(max_examples=60, deadline=None, database=None, phases=[Phase.generate], derandomize=True)
EDITED_TWICE = [Step(wait=10.0), Step(act="edit", wait=10.0), Step(act="edit", wait=10.0)]


def test_a_deletion_without_confirmation_is_found(monkeypatch):
    run = World(style="none", has_items=True), [Step(wait=10.0), Step(act="unlist", wait=10.0)]
    prove(*run)
    monkeypatch.setattr(poller.polling.deletions, "GONE", frozenset({200, 404, 410}))
    with pytest.raises(Untrue, match="deleted"):
        prove(*run)


def test_two_objects_under_one_id_that_are_reported_as_edits_of_one_are_found(monkeypatch):
    run = World(style="page-open", seed=925), [Step(wait=30.0), Step(act="begin", kind="twin", wait=60.0)]
    prove(*run)
    monkeypatch.setattr(poller.polling.turn, "clashes_in", lambda *_: {})
    with pytest.raises(Untrue, match="updated"):
        prove(*run)


def test_an_event_id_that_is_used_again_is_found(monkeypatch):
    prove(World(style="none", objects=1), EDITED_TWICE)
    digest = poller.events.events._digest
    monkeypatch.setattr(poller.events.events, "_digest", lambda parts, _: digest(parts[:4], {}))
    with pytest.raises(Exception, match=r"UNIQUE|twice|known as"):
        prove(World(style="none", objects=1), EDITED_TWICE)


def test_a_call_that_is_written_down_once_it_was_answered_is_found(monkeypatch):
    run = World(objects=6, concurrency=4), [Step(act="crash", kind="before", wait=0.3)] * 12
    prove(*run)
    left: dict[int, tuple[Any, float]] = {}
    numbers, spend, answered = count(1), Calls.spend, Calls.answered

    def spend_late(self: Calls, lease: Any, at: float, *, answers: Any = (), **_: Any) -> int:
        write(self, answers)
        number = next(numbers)
        left[number] = lease, at
        return number

    def write(self: Calls, answers: Any) -> None:
        for number, at in answers:
            if number in left:
                answered(self, [(spend(self, *left.pop(number)), at)])

    monkeypatch.setattr(Calls, "spend", spend_late)
    monkeypatch.setattr(Calls, "answered", write)
    with pytest.raises(Untrue, match="calls in"):
        prove(*run)


def test_an_order_that_breaks_while_an_event_is_retried_is_found(monkeypatch):
    for name in ("JOBS", "OLDEST"):
        query = getattr(state.sqlite.claims, name)
        monkeypatch.setattr(state.sqlite.claims, name, query.replace(".id LIMIT", ".id DESC LIMIT"))
    with pytest.raises(Exception, match=r"came behind|two attempts"):
        run_state_machine_as_test(Deliveries, settings=ONCE)


def test_an_epoch_that_is_not_compared_is_found(monkeypatch, tmp_path):
    backend = SqliteBackend(tmp_path)
    monkeypatch.setattr(state.sqlite.polls, "check", lambda *_: None)
    try:
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            contract.test_an_older_epoch_can_neither_record_nor_spend(contract.Items(backend))
    finally:
        backend.close()


@pytest.mark.parametrize("mode", ["OFF", "NORMAL"])
async def test_a_commit_without_a_sync_is_found(monkeypatch, tmp_path, mode):
    class Careless(sqlite3.Connection):
        def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous = FULL", f"synchronous = {mode}"), *given)

    connect = sqlite3.connect
    with monkeypatch.context() as bug:
        bug.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, **{"factory": Careless, **kwargs}))
        run = await recording(tmp_path, lives=1)
    faults = (await losses(run, tmp_path)).faults
    assert any("calls have left" in fault for fault in faults)
    assert any("was told and is forgotten" in fault for fault in faults)


async def test_what_is_recorded_after_it_was_delivered_is_found(monkeypatch, tmp_path):
    numbers, commit = count(), state.sqlite.connection._commit

    def commit_late(conn: sqlite3.Connection) -> None:
        if next(numbers) % 16 == 15:  # with what comes later
            commit(conn)

    with monkeypatch.context() as bug:
        bug.setattr(state.sqlite.connection, "_commit", commit_late)
        run = await recording(tmp_path, lives=1)
    faults = (await losses(run, tmp_path)).faults
    assert any("was told and is forgotten" in fault for fault in faults)


@pytest.mark.parametrize(("leak", "is_found"), [(0.0, False), (0.01, True)])
def test_a_leak_is_found_by_the_soak(leak, is_found):
    seconds = [10.0 * number for number in range(361)]
    memory = [100.0 + 5.0 * math.sin(at) + (20.0 if at > 60.0 else 0.0) + leak * at for at in seconds]
    assert grown("memory", seconds, memory, most=8.0).is_too_much == is_found


# What the crash proof holds against each other.

A, B = {"id": 1, "name": "a"}, {"id": 1, "name": "b"}


def event(seq: int, kind: str, version: int, obj: dict[str, Any]) -> Event:
    return Event(
        seq=seq,
        id=f"event {seq}",
        source="/sources/shop",
        type=f"shop.things.{kind}",
        subject="things/1",
        time=float(seq),
        observed_after=None,
        raw=b'{"object":{"id":1,"name":"%s"},"version":%d}' % (obj["name"].encode(), version),
    )


CREATED, UPDATED = event(1, "created", 1, A), event(2, "updated", 2, B)


def judged(events: list[Event], accepted: list[Event], *, calls: int = 10) -> list[str]:
    got = [{"id": one.id, "subject": one.subject, "data": {"object": dict(one.data["object"])}} for one in accepted]
    api = SimpleNamespace(history={1: [None, A, B]}, things={1: B}, refused=0, worst=lambda: [(calls, 10, 1.0)])
    return faults_in(events, api, SimpleNamespace(accepted=got), dead=0)  # type: ignore[arg-type]


def test_the_crash_proof_accepts_what_is_as_it_should_be():
    assert judged([CREATED, UPDATED], [CREATED, CREATED, UPDATED]) == []


@pytest.mark.parametrize(
    ("events", "accepted", "fault"),
    [
        ([CREATED], [CREATED, UPDATED], "is not in the log"),
        ([CREATED, UPDATED], [CREATED], "never accepted"),
        ([CREATED, UPDATED], [UPDATED, CREATED], "was delivered after"),
        ([CREATED, event(2, "updated", 3, B)], [CREATED, UPDATED], "it should be version 2"),
        ([CREATED, event(2, "deleted", 2, A)], [CREATED, UPDATED], "it never went"),
        ([CREATED, event(2, "updated", 2, {"id": 1, "name": "c"})], [CREATED, UPDATED], "never was"),
        ([CREATED], [CREATED], "told as"),
    ],
    ids=[
        "delivered before it was recorded",
        "lost on the way",
        "out of order",
        "a version is missing",
        "a deletion of what is there",
        "a state that never was",
        "a change that nobody recorded",
    ],
)
def test_the_crash_proof_finds(events, accepted, fault):
    assert any(fault in one for one in judged(events, accepted))


def test_the_crash_proof_finds_a_window_that_is_exceeded():
    assert judged([CREATED, UPDATED], [CREATED, UPDATED], calls=11) == ["11 calls in 1 s, 10 allowed"]
