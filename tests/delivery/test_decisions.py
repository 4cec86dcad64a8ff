"""What is decided after an attempt, and what is written of it: whole decisions, without a store or a sink."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.delivery import breaker, notices
from poller.delivery.batches import halves
from poller.delivery.retry import REFUSALS, SCHEDULE, RetryDecision, Unfinished, judge, receipt_of
from poller.delivery.settlement import SettlementDraft
from poller.delivery.subscription import Route, Subscription
from poller.delivery.subscription_health import SubscriptionHealth
from poller.http_dates import LONGEST
from poller.sinks.protocol import DeliveryError, Gone, Receipt, Refused, Rejected, RetryLater, TooLarge
from state.deliveries import AttemptOutcome, AttemptRow, Claim, Job, Registration, Release, Settled, SinkHealth
from state.records import Event
from tests.support.bench import make_event

OK = Receipt(status="200")
NO = Receipt(status="503", text="busy")
CRM = "subscriptions/crm"


def job(number: int) -> Job:
    event = Event(**{**vars(make_event(number)), "seq": 100 + number})
    return Job(id=number, event=event, attempts=0, retries=0, refusals=0)


# The retry schedule


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (OK, {"state": "delivered", "retries": 2, "refusals": 1}),
        (Gone(NO), {"state": "pending", "retries": 2, "refusals": 1, "disables": True}),
        (Rejected(NO), {"state": "dead", "retries": 3, "refusals": 1}),
        (TooLarge(NO), {"state": "dead", "retries": 3, "refusals": 1}),
        (RetryLater(None, NO), {"state": "pending", "retries": 3, "refusals": 1, "due": 1300.0}),
        (
            RetryLater(90.0, NO),
            {"state": "pending", "retries": 3, "refusals": 1, "due": 1300.0, "not_before": 1090.0},
        ),
        (
            RetryLater(900.0, NO),
            {"state": "pending", "retries": 3, "refusals": 1, "due": 1900.0, "not_before": 1900.0},
        ),
        (Refused(NO), {"state": "pending", "retries": 3, "refusals": 2, "due": 1300.0}),
        (TimeoutError(), {"state": "pending", "retries": 3, "refusals": 1, "due": 1300.0}),
        (
            type("Odd", (Exception,), {"after": 900.0})(),
            {"state": "pending", "retries": 3, "refusals": 1, "due": 1300.0},
        ),
    ],
)
def test_each_answer_has_its_decision(answer: Receipt | BaseException, decision: dict[str, Any]):
    schedule = (10.0, 60.0, 300.0)

    found = judge(answer, retries=2, refusals=1, schedule=schedule, now=1000.0, chance=0.5)
    assert found == RetryDecision(**decision)


@pytest.mark.parametrize("refusals", [0, 1])
def test_a_delivery_whose_schedule_is_over_is_dead_and_keeps_its_counts(refusals: int):
    found = judge(RetryLater(90.0, NO), retries=2, refusals=refusals, schedule=(1.0, 2.0), now=0.0, chance=0.5)

    assert found == RetryDecision(state="dead", retries=3, refusals=refusals, not_before=90.0)


class Sparse(RetryLater):
    """An exception of a plugin that does not call its parent's constructor."""

    def __init__(self) -> None:
        Exception.__init__(self, "later")


def test_a_plugin_that_asks_for_a_retry_and_names_no_wait_follows_the_schedule():
    found = judge(Sparse(), retries=0, refusals=0, schedule=(10.0,), now=1000.0, chance=0.5)

    assert found == RetryDecision(state="pending", retries=1, refusals=0, due=1010.0)


@pytest.mark.parametrize(
    ("after", "due", "not_before"),
    [(None, 5000.0, 0.0), (90.0, 5000.0, 1090.0), (9000.0, 10000.0, 10000.0)],
)
def test_a_probe_that_fails_goes_back_to_its_place_or_to_when_the_receiver_says(
    after: float | None, due: float, not_before: float
):
    error = RetryLater(after, NO)
    found = judge(error, retries=3, refusals=1, schedule=SCHEDULE, now=1000.0, chance=0.5, was_due=5000.0)

    assert found == RetryDecision(state="pending", retries=3, refusals=1, due=due, not_before=not_before)


def test_a_receiver_that_refuses_has_three_attempts_and_one_that_is_down_the_whole_schedule():
    def attempts(error: Exception) -> int:
        retries = refusals = 0
        for number in itertools.count(1):
            found = judge(error, retries=retries, refusals=refusals, schedule=SCHEDULE, now=0.0, chance=0.0)
            retries, refusals = found.retries, found.refusals
            assert retries == number
            if found.state == "dead":
                return number
        raise AssertionError

    assert attempts(Refused(NO)) == REFUSALS == 3
    assert attempts(RetryLater(None, NO)) == 1 + len(SCHEDULE)


class Odd(Exception):
    """An exception of a plugin that cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Bare(DeliveryError):
    """An exception of a plugin that does not call its parent's constructor."""

    def __init__(self) -> None:
        Exception.__init__(self, "bare")


@pytest.mark.parametrize(
    ("answer", "receipt"),
    [
        (OK, OK),
        (RetryLater(None, NO), NO),
        (TimeoutError("60 s"), Receipt(status="timeout", text="60 s")),
        (ValueError("a: b"), Receipt(status="ValueError", text="a: b")),
        (Odd(), Receipt(status="Odd")),
        (Bare(), Receipt(status="Bare", text="bare")),
        (type("Boast", (Exception,), {"receipt": OK})("x"), Receipt(status="Boast", text="x")),
    ],
)
def test_every_answer_has_a_receipt(answer: Receipt | BaseException, receipt: Receipt):
    assert receipt_of(answer) == receipt


@given(st.integers(0, 40))
def test_halves_differ_by_one_at_most(number: int):
    first, second = halves([job(one) for one in range(number)])

    assert 0 <= len(second) - len(first) <= 1


# The breaker, against the rule alone


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["down", "up"]), st.floats(0, 400), st.floats(0, 1000)), max_size=40))
def test_a_breaker_is_open_after_five_failures_in_a_row_and_probes_as_its_wait_and_the_receiver_say(
    attempts: list[tuple[str, float, float]],
):
    health, now, row = breaker.WELL, 0.0, 0
    for what, passed, asked in attempts:
        now += passed
        if what == "up":
            health, row = breaker.WELL, 0
            continue
        before, row = health, row + 1
        health = breaker.failed(health, f"error {row}", now=now, not_before=now + asked)
        assert (health.failures, health.last_error) == (row, f"error {row}")
        assert breaker.is_open(health) is (row >= 5)
        if before.open_until is not None and now < before.open_until:
            assert (health.open_until, health.wait) == (before.open_until, before.wait)
        elif health.open_until is not None:
            assert health.wait == (min(300.0, 2 * before.wait) if before.open_until is not None else 5.0)
            assert health.open_until == now + max(health.wait, asked)
            assert not breaker.may_probe(health, now=health.open_until - 0.001)
            assert breaker.may_probe(health, now=health.open_until)
    assert breaker.may_probe(breaker.WELL, now=now) is False  # a closed one needs no probe


# What an attempt adds to the next settlement


CLAIM = Claim(lane="items/1", due=50.0, not_before=60.0, jobs=(), last_reference=None)
ROW = AttemptRow(number=3, at=90.0, latency=0.5, status="503")


def test_a_settlement_holds_what_the_attempts_have_left_and_nothing_else():
    draft = SettlementDraft(digest=True)
    decision = RetryDecision(state="pending", retries=4, refusals=1, due=70.0, not_before=65.0)
    assert not draft
    draft.settle(CLAIM, [job(1), job(2)], decision, ROW)
    draft.release(CLAIM, decision)
    draft.disabled, draft.promote = "410", True
    draft.health, draft.kept_until = SinkHealth(failures=1), 44.0
    draft.notices.append(notices.ping("crm", now=9.0))
    written = draft.settlement(99.0)

    assert draft
    assert (written.now, written.disabled, written.promote) == (99.0, "410", True)
    assert (written.health, written.kept_until) == (SinkHealth(failures=1), 44.0)
    assert written.notices == (notices.ping("crm", now=9.0),)
    assert written.settled == (
        AttemptOutcome(lane="items/1", ids=(1, 2), digest=True, state="pending", retries=4, refusals=1, attempt=ROW),
    )
    assert written.released == (Release(lane="items/1", due=70.0, not_before=65.0),)


@pytest.mark.parametrize(
    ("decision", "release"),
    [
        (None, Release(lane="items/1")),
        (RetryDecision(state="delivered", retries=1, refusals=0, due=70.0), Release(lane="items/1")),
        (RetryDecision(state="dead", retries=1, refusals=0, due=70.0), Release(lane="items/1")),
    ],
)
def test_a_lane_whose_oldest_delivery_is_over_is_due_as_the_next_one_is(
    decision: RetryDecision | None, release: Release
):
    draft = SettlementDraft()
    draft.release(CLAIM, decision)

    assert draft.settlement(99.0).released == (release,)


def test_a_lane_that_was_not_attempted_goes_back_as_it_was():
    draft = SettlementDraft()
    draft.give_back(CLAIM)

    assert draft.settlement(99.0).released == (Release(lane="items/1", due=50.0, not_before=60.0),)


@pytest.mark.parametrize(
    "fields",
    [
        {"health": SinkHealth(failures=1)},
        {"disabled": "410"},
        {"promote": True},
        {"released": [1]},
        {"settled": [1]},
        {"notices": [1]},
    ],
)
def test_a_draft_with_anything_in_it_is_to_be_written(fields: dict[str, Any]):
    assert SettlementDraft(**fields)


# The health of a subscription


class Sub:
    """A subscription's health, and the draft that its attempts fill."""

    def __init__(self, *, promotes: bool = True, **stored: Any) -> None:
        self.health = SubscriptionHealth("crm", promotes=promotes)
        self.draft = SettlementDraft()
        self.learn(SinkHealth(**stored))

    def learn(self, health: SinkHealth, *, state: str = "active") -> None:
        self.health.learn(Settled(state=state, health=health), self.draft)

    def after(
        self, answer: Receipt | BaseException, *, number: int = 2, now: float = 10.0, not_before: float = 0.0
    ) -> Sub:
        receipt = receipt_of(answer)
        self.health.follow(answer, job(1), number, receipt, self.draft, now=now, not_before=not_before)
        return self

    @property
    def told(self) -> list[str]:
        return [notice.kind for notice in self.draft.notices]


def test_a_new_subscription_accepts_events():
    health = SubscriptionHealth("crm", promotes=True)

    assert (health.name, health.active, health.is_open, health.is_held) == ("crm", True, False, False)
    assert health.health == breaker.WELL


def test_the_fifth_failure_is_told_once_with_what_the_receiver_said():
    sub = Sub(failures=3)
    assert sub.after(RetryLater(None, NO)).told == []
    assert sub.after(RetryLater(None, NO), number=7).told == ["subscription.failing"]
    assert sub.after(RetryLater(None, NO)).told == ["subscription.failing"]

    [notice] = sub.draft.notices
    assert (notice.subject, notice.time) == (CRM, 10.0)
    assert (notice.detail["event"], notice.detail["sequence"]) == (job(1).event.id, 101)
    assert (notice.detail["attempt"], notice.detail["status"], notice.detail["answer"]) == (7, "503", "busy")
    assert "5 attempts in a row" in notice.summary
    assert sub.health.is_open
    assert sub.health.is_held
    assert sub.draft.health == sub.health.health
    assert sub.health.health.last_error == "503 busy"


def test_an_error_is_kept_with_two_hundred_characters_of_the_answer():
    sub = Sub().after(RetryLater(None, Receipt(status="500", text="x" * 300)))
    assert sub.health.health.last_error == "500 " + "x" * 200

    assert Sub().after(RetryLater(None, Receipt(status="500"))).health.health.last_error == "500"


@pytest.mark.parametrize("promotes", [True, False])
def test_a_probe_that_succeeds_closes_the_breaker_tells_it_and_sends_what_waits(promotes: bool):
    sub = Sub(promotes=promotes, failures=9, open_until=5.0, wait=5.0).after(OK)

    [notice] = sub.draft.notices
    assert (notice.kind, notice.subject, notice.time) == ("subscription.recovered", CRM, 10.0)
    assert (notice.detail["attempt"], notice.detail["status"]) == (2, "200")
    assert "after 9 failed attempts" in notice.summary
    assert (sub.draft.promote, sub.draft.health, sub.draft.kept_until) == (promotes, breaker.WELL, 5.0)
    assert not sub.health.is_held


def test_a_success_of_a_subscription_that_was_well_adds_nothing():
    sub = Sub().after(OK)

    assert not sub.draft
    assert (sub.draft.health, sub.draft.promote) == (None, False)


def test_a_success_after_a_few_failures_starts_the_count_again_and_is_written_and_not_told():
    sub = Sub(failures=4).after(OK)

    assert (sub.told, sub.draft.promote, sub.draft.health) == ([], False, breaker.WELL)
    for _ in range(4):
        sub.after(RetryLater(None, NO))
    assert not sub.health.is_open


def test_a_receiver_that_wants_no_more_disables_its_subscription_once():
    sub = Sub().after(Gone(Receipt(status="410")), number=3).after(Gone(Receipt(status="410")))

    assert sub.told == ["subscription.disabled"]
    assert sub.draft.disabled == "410: the receiver wants no more events"
    assert (sub.health.active, sub.health.is_held, sub.health.is_open) == (False, True, False)
    [notice] = sub.draft.notices
    assert (notice.subject, notice.detail["attempt"], notice.time) == (CRM, 3, 10.0)
    assert sub.draft.health is None


def test_an_attempt_that_the_programs_end_cut_short_says_nothing_of_the_sink():
    sub = Sub(failures=4).after(Unfinished())

    assert not sub.draft
    assert sub.health.health.failures == 4


def test_what_an_attempt_found_since_outweighs_what_was_stored_before_it():
    sub = Sub()
    sub.after(RetryLater(None, NO))
    sub.learn(SinkHealth(failures=7, open_until=99.0))
    assert sub.health.health.failures == 1  # it is written next

    sub.after(Gone(NO))
    sub.learn(SinkHealth(), state="active")
    assert not sub.health.active

    sub.draft = SettlementDraft()
    sub.learn(SinkHealth(failures=7, open_until=99.0), state="paused")
    assert (sub.health.health.failures, sub.health.active) == (7, False)
    sub.learn(SinkHealth(), state="active")
    assert sub.health.active


def test_a_new_health_is_written_with_the_probe_that_was_stored():
    sub = Sub(failures=5, open_until=9.0, wait=5.0)
    sub.after(RetryLater(None, NO), now=10.0)

    assert sub.draft.kept_until == 9.0
    assert sub.health.health.open_until == 20.0
    assert not sub.health.may_probe(19.9)
    assert sub.health.may_probe(20.0)


def test_a_breaker_that_opens_waits_as_long_as_the_receiver_asks():
    sub = Sub(failures=4).after(RetryLater(900.0, NO), not_before=910.0)

    assert sub.health.health.open_until == 910.0
    assert "1970-01-01T00:15:10" in sub.draft.notices[0].detail["next"]


def test_a_dead_letter_is_reported_until_the_next_success_only_once():
    sub = Sub()
    for _ in range(2):
        sub.health.report_dead(job(1), 10, NO, sub.draft, now=12.0)
    assert sub.told == ["delivery.dead"]
    [notice] = sub.draft.notices
    assert (notice.subject, notice.time, notice.detail["delivery"]) == (CRM, 12.0, 1)
    assert "event 101" in notice.summary
    assert "after 10 attempts, the last 503" in notice.summary
    assert sub.draft.health is not None
    assert sub.draft.health.dead_reported

    sub.after(OK)
    sub.health.report_dead(job(3), 1, NO, sub.draft, now=13.0)
    assert sub.told == ["delivery.dead", "delivery.dead"]
    assert "digest" not in sub.draft.notices[1].summary
    assert "after 1 attempt, the last 503" in sub.draft.notices[1].summary


# What a store must know of a subscription


def route(next_digest: Any = None, **fields: Any) -> Route:
    return Route(
        subscription=Subscription(name="crm", **fields),
        open_sink=lambda: pytest.fail("opened"),
        next_digest=next_digest,
    )


@pytest.mark.parametrize(
    ("made", "registered"),
    [
        (route(), Registration(name="crm", longest_wait=1.1 * 86400.0)),
        (route(retry=()), Registration(name="crm", longest_wait=LONGEST)),
        (
            route(start=7, enabled=False, retry=(5.0, 200_000.0)),
            Registration(name="crm", start=7, enabled=False, longest_wait=1.1 * 200_000.0),
        ),
        (route(digest=900.0, retry=()), Registration(name="crm", digest=True, longest_wait=LONGEST)),
        (route(digest=604_800.0), Registration(name="crm", digest=True, longest_wait=604_800.0)),
        (
            route(lambda at: at + 700_000.0, digest="0 9 * * 1"),
            Registration(name="crm", digest=True, longest_wait=700_000.0),
        ),
    ],
)
def test_no_delivery_is_due_later_than_the_longest_wait_that_there_can_be(made: Route, registered: Registration):
    assert made.registration(1000.0) == registered


def test_a_digest_is_due_a_while_after_what_was_queued_or_by_its_timetable():
    assert route().due_at is None
    waits, timetable = route(digest=900.0).due_at, route(lambda at: 7.0 * at, digest="0 9 * * *").due_at
    assert waits is not None
    assert timetable is not None
    assert (waits(100.0), timetable(100.0)) == (1000.0, 700.0)


@pytest.mark.parametrize(
    ("event", "is_wanted"),
    [
        ({"type": "acme.items.created", "source": "/sources/shop"}, True),
        ({"type": "other.items.created", "source": "/sources/shop"}, False),
        ({"type": "acme.items.created", "source": "/sources/other"}, False),
        ({"type": "acme.items.created", "source": "/sources/shop", "raw": b'{"object":{"n":0}}'}, False),
        ({"type": "poller.gap", "source": "/poller", "subject": "sources/shop"}, True),
        ({"type": "poller.gap", "source": "/poller", "subject": CRM}, False),  # it is about itself
    ],
)
def test_a_subscription_filters_by_its_own_settings(event: dict[str, Any], is_wanted: bool):
    made = route(types=("acme.*", "poller.*"), sources=("shop",), where="!has(data.object) || data.object.n > 0")
    fields = {**vars(make_event(1)), **event, "seq": 1}
    if event["source"] == "/poller":
        fields["raw"] = b'{"summary":"x"}'

    assert made.subscription.filter().matches(Event(**fields)) is is_wanted
