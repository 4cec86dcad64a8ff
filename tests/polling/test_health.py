from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.events.cloudevents import iso
from poller.polling.episodes import backoff
from poller.polling.health import EndpointHealth, HealthReport, HealthUpdate, SourceHealth
from poller.polling.notices import budget_throttled
from poller.polling.stall import StallWatch
from state.notices import Notice
from state.operational import notice_event

NOON = 1_795_000_000.0
MINUTE = 60.0
HOUR = 3600.0


class Life:
    """A source whose units fail and succeed; counts failures in a row as the state does, and keeps what was told."""

    def __init__(self, seen: dict[str, float] | None = None) -> None:
        self.health = SourceHealth("acme", seen=seen)
        self.failures: dict[tuple[str, str], int] = defaultdict(int)
        self.notices: list[Notice] = []

    def fail(self, endpoint: str, unit: str, at: float, status: int | None = 500, **more: Any) -> HealthUpdate:
        self.failures[endpoint, unit] += 1
        told = {"reason": f"HTTP {status}", "retry_after": None, "failures": self.failures[endpoint, unit], **more}
        verdict = self.health.failed(endpoint, unit, NOON + at, status=status, **told)
        self.notices += verdict.notices
        return verdict

    def succeed(self, endpoint: str, unit: str, at: float) -> HealthUpdate:
        self.failures.pop((endpoint, unit), None)
        verdict = self.health.succeeded(endpoint, unit, NOON + at)
        self.notices += verdict.notices
        return verdict

    def fail_row(self, count: int = 5, at: float = 0.0) -> None:
        for number in range(count):
            self.fail("projects", f"page={number}", at)

    def allows(self, endpoint: str, unit: str, at: float) -> bool:
        return self.health.allows(endpoint, unit, NOON + at)

    def told(self) -> list[str]:
        return [notice.kind for notice in self.notices]


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.mark.parametrize(
    ("failures", "wait"), [(0, 5), (1, 5), (2, 10), (3, 20), (9, 1280), (10, 1800), (11, 1800), (10**9, 1800)]
)
def test_the_wait_doubles_from_5_seconds_to_30_minutes(failures: int, wait: float):
    assert backoff(failures) == wait


@pytest.mark.parametrize(("retry_after", "wait"), [(None, 10), (-3.0, 10), (2.0, 10), (77.0, 77), (1e9, 86400)])
def test_what_the_server_asks_for_is_a_floor_up_to_a_day(retry_after: float | None, wait: float):
    assert backoff(2, retry_after) == wait


def test_a_failing_unit_waits_alone(life: Life):
    verdicts = [life.fail("projects", "page=1", at) for at in (0.0, 5.0, 15.0)]

    assert [verdict.retry_at for verdict in verdicts] == [NOON + 5, NOON + 15, NOON + 35]
    assert life.allows("projects", "page=2", 15.0)
    assert life.health.blocked_until("projects", NOON + 15) is None
    assert life.notices == []


def test_the_unit_keeps_to_the_servers_word(life: Life):
    assert life.fail("projects", "page=1", 0.0, 503, retry_after=600.0).retry_at == NOON + 600


def test_five_units_failing_in_a_row_leave_the_source_one_probe(life: Life):
    life.fail_row(4)
    assert life.allows("invoices", "page=1", 1.0)
    life.fail("invoices", "page=9", 2.0)

    assert not life.allows("invoices", "page=1", 3.0)
    assert life.health.blocked_until("customers", NOON + 3) == NOON + 7
    assert life.allows("customers", "page=1", 7.0)


def test_only_one_probe_is_under_way(life: Life):
    life.fail_row()
    life.health.started("customers", "page=1", NOON + 5)

    assert life.allows("customers", "page=1", 6.0)  # it is the probe
    assert not life.allows("customers", "page=2", 64.0)
    assert life.allows("customers", "page=2", 65.0)  # the probe was lost


def test_failing_probes_come_ever_more_slowly_up_to_30_minutes(life: Life):
    life.fail_row()
    now, waits = NOON, []
    for number in range(11):
        opens = life.health.blocked_until("projects", now)
        assert opens is not None
        waits.append(opens - now)
        now = opens
        life.health.started("projects", f"page={number}", now)
        life.fail("projects", f"page={number}", now - NOON)

    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800]


def test_calls_that_had_left_before_do_not_slow_the_probes(life: Life):
    life.fail_row()
    for number in range(5, 9):
        life.fail("projects", f"page={number}", 1.0)

    assert life.health.blocked_until("projects", NOON + 1) == NOON + 5


def test_a_success_in_between_keeps_the_source_open(life: Life):
    life.fail_row(4)
    life.succeed("projects", "page=9", 1.0)
    life.fail("projects", "page=5", 2.0)

    assert life.allows("projects", "page=6", 3.0)
    assert life.notices == []


def test_the_first_success_reopens_the_source(life: Life):
    life.fail_row()

    assert life.succeed("customers", "page=1", 5.0).reopened
    assert life.allows("projects", "page=7", 5.0)
    assert not life.succeed("customers", "page=1", 6.0).reopened


def test_the_source_is_said_to_fail_once_and_to_be_back_once(life: Life):
    life.fail_row(9)
    for at in (5.0, 15.0, 35.0):
        life.fail("projects", "page=1", at)
    life.succeed("projects", "page=1", 75.0)
    life.succeed("projects", "page=2", 76.0)

    failing, recovered = life.notices
    assert (failing.kind, failing.subject) == ("source.failing", "sources/acme")
    assert failing.summary == (
        "Source acme fails: 5 polls in a row failed, each of another unit: HTTP 500. "
        f"It is tried again at {iso(NOON + 5)}."
    )
    assert failing.detail["since"] == iso(NOON)
    assert failing.detail["next_try"] == iso(NOON + 5)
    assert len(failing.detail["failing"]) == 5
    assert (recovered.kind, recovered.subject) == ("source.recovered", "sources/acme")
    assert recovered.summary == "Source acme is back after 1 min 15 s; not read meanwhile: projects."
    assert recovered.detail["seconds"] == 75


def test_a_fifth_forbidden_list_in_a_row_closes_its_endpoint(life: Life):
    blocked = []
    for number in range(5):
        life.fail("lines", f"parent={number}", 0.0, 403, per_parent=True)
        blocked.append(life.health.snapshot().endpoints[0].blocked)

    assert blocked == [False, False, False, False, True]


def test_no_try_is_announced_before_the_budget_allows_a_call(life: Life):
    for number in range(5):
        life.fail("projects", f"page={number}", 0.0, not_before=NOON + HOUR)

    assert [notice.detail["next_try"] for notice in life.notices] == [iso(NOON + HOUR)]


def test_a_source_of_one_unit_is_said_to_fail_at_the_fifth_time(life: Life):
    life.succeed("items", "", 0.0)
    for at in (10.0, 15.0, 25.0, 45.0):
        life.fail("items", "", at, None)
    assert life.notices == []
    life.fail("items", "", 85.0, None)
    life.fail("items", "", 165.0, None)
    life.succeed("items", "", 400.0)

    assert life.told() == ["source.failing", "source.recovered", "gap"]
    assert life.notices[0].detail["scope"] == "source"
    assert life.notices[0].detail["since"] == iso(NOON + 10)


def test_two_endpoints_that_fail_together_are_one_failing_source(life: Life):
    for at in (0.0, 5.0, 15.0, 35.0, 75.0, 155.0):
        life.fail("items", "", at)
        life.fail("orders", "", at)
    life.succeed("items", "", 200.0)
    life.succeed("orders", "", 201.0)

    assert life.told() == ["source.failing", "source.recovered"]
    assert [gone["endpoint"] for gone in life.notices[1].detail["missed"]] == ["items", "orders"]


def test_one_page_that_fails_while_others_go_well_is_told_once_for_its_endpoint(life: Life):
    for at in range(0, 600, 60):
        life.fail("projects", "page=3", at)
        life.fail("projects", "page=4", at + 1)
        life.succeed("projects", "page=5", at + 2)
    life.succeed("projects", "page=3", 700)
    assert life.told() == ["source.failing"]
    life.succeed("projects", "page=4", 701)

    failing, recovered = life.notices
    assert failing.detail["scope"] == recovered.detail["scope"] == "endpoint"
    assert failing.summary.startswith("Endpoint acme/projects failed 5 times in a row at page=3: HTTP 500.")
    assert recovered.detail["missed"][0]["unit"] == "page=4"
    assert recovered.detail["missed"][0]["from"] == iso(NOON + 1)


def test_a_unit_that_is_gone_is_not_waited_for(life: Life):
    for at in range(0, 600, 60):
        life.fail("projects", "page=3", at)
        life.succeed("projects", "page=5", at + 1)

    verdict = life.health.forget("projects", "page=3", NOON + 700)
    assert [notice.kind for notice in verdict.notices] == ["source.recovered"]
    assert life.health.snapshot() == HealthReport(state="ok")
    assert life.health.forget("nothing", "page=3", NOON + 700) == HealthUpdate()


def test_refused_credentials_block_the_source_at_once_with_a_probe_every_15_minutes(life: Life):
    assert life.fail("projects", "page=1", 0.0, 401).retry_at == NOON + 900
    assert life.health.blocked_until("invoices", NOON) == NOON + 900
    for at in (900.0, 1800.0, 2700.0):
        life.health.started("invoices", "page=1", NOON + at)
        life.fail("invoices", "page=1", at, 401)
        assert life.health.blocked_until("projects", NOON + at) == NOON + at + 900

    assert life.told() == ["source.failing"]
    assert "its credentials are refused" in life.notices[0].summary


def test_refused_credentials_outrank_a_failing_row(life: Life):
    life.fail_row()
    life.fail("projects", "page=1", 5.0, 401)

    assert life.health.blocked_until("projects", NOON + 5) == NOON + 905
    assert life.health.snapshot().state == "blocked"
    assert life.told() == ["source.failing"]


def test_a_forbidden_endpoint_leaves_the_others_alone(life: Life):
    life.succeed("payroll", "page=1", -60.0)
    assert life.fail("payroll", "page=1", 0.0, 403).retry_at == NOON + 900
    life.fail("payroll", "page=2", 1.0, 403)

    assert life.health.blocked_until("payroll", NOON + 1) == NOON + 900
    assert life.allows("projects", "page=1", 1.0)
    assert [notice.detail["endpoint"] for notice in life.notices] == ["payroll"]

    life.succeed("projects", "page=1", 2.0)
    assert not life.allows("payroll", "page=1", 2.0)
    assert life.succeed("payroll", "page=2", 900.0).reopened
    assert life.told() == ["source.failing", "source.recovered", "gap"]


def test_many_forbidden_endpoints_do_not_close_the_source(life: Life):
    for number in range(20):
        life.fail(f"secret{number}", "page=1", 0.0, 403)

    assert life.allows("projects", "page=1", 0.0)


def test_an_outage_is_told_though_an_endpoint_is_forbidden(life: Life):
    life.fail("payroll", "page=1", 0.0, 403)
    life.fail_row(at=10.0)
    life.succeed("projects", "page=1", 20.0)

    assert [(told.kind, told.detail["scope"]) for told in life.notices] == [
        ("source.failing", "endpoint"),
        ("source.failing", "source"),
        ("source.recovered", "source"),
    ]


def test_a_probe_may_be_asked_for_at_once(life: Life):
    life.fail("payroll", "page=1", 0.0, 403)
    life.fail("projects", "page=1", 0.0, 401)

    assert set(life.health.probe_now()) == {("payroll", "page=1"), ("projects", "page=1")}
    assert life.allows("payroll", "page=1", 1.0)
    life.health.started("payroll", "page=1", NOON + 1)
    assert not life.allows("projects", "page=1", 2.0)


def test_a_clock_that_is_set_back_blocks_nothing_for_long(life: Life):
    life.fail("projects", "page=1", 0.0, 401)

    assert life.allows("projects", "page=2", -86400.0)


def test_an_endpoint_that_was_unseen_for_long_is_named_with_its_times(life: Life):
    life.succeed("projects", "page=1", 0.0)
    life.fail("projects", "page=1", 60.0)
    verdict = life.succeed("projects", "page=2", 361.0)

    (gap,) = verdict.notices
    assert (gap.kind, gap.subject) == ("gap", "endpoints/acme/projects")
    assert gap.detail == {"from": iso(NOON), "to": iso(NOON + 361), "seconds": 361}
    assert life.succeed("projects", "page=1", 900.0).notices == ()


@pytest.mark.parametrize(
    ("failed_at", "seen_at"),
    [(3600.0, 3605.0), (10.0, 300.0)],
    ids=["rarely polled and failed once", "back within five minutes"],
)
def test_what_was_not_long_unseen_is_no_gap(life: Life, failed_at: float, seen_at: float):
    life.succeed("projects", "page=1", 0.0)
    life.fail("projects", "page=1", failed_at)

    assert life.succeed("projects", "page=1", seen_at).notices == ()


def test_an_endpoint_seen_in_part_has_no_gap(life: Life):
    for at in range(0, 1200, 60):
        life.fail("projects", "page=1", at)
        life.succeed("projects", "page=2", at + 1)

    assert "gap" not in life.told()


def test_an_endpoint_kept_waiting_by_its_source_has_a_gap_though_it_was_never_asked(life: Life):
    life.succeed("customers", "page=1", 0.0)
    life.fail_row(at=10.0)
    life.succeed("projects", "page=1", 2 * HOUR)
    life.succeed("customers", "page=1", 2 * HOUR + 1)

    recovered, first, second = life.notices[1:]
    assert [gone["endpoint"] for gone in recovered.detail["missed"]] == ["customers", "projects"]
    assert recovered.summary == "Source acme is back after 1 h 59 min; not read meanwhile: customers, projects."
    assert [first.subject, second.subject] == ["endpoints/acme/projects", "endpoints/acme/customers"]
    assert second.detail["seconds"] == 7201


def test_a_gap_reaches_back_behind_a_restart():
    life = Life(seen={"projects": NOON - HOUR})
    life.fail("projects", "page=1", 0.0)
    verdict = life.succeed("projects", "page=1", 400.0)

    assert verdict.notices[0].detail["from"] == iso(NOON - HOUR)


@pytest.mark.parametrize("count", [10, 11])
def test_a_notice_names_at_most_ten_endpoints(life: Life, count: int):
    for number in range(count):
        life.fail(f"list{number:02}", "", 0.0)
    life.succeed("list00", "", 90.0)

    assert life.notices[1].summary.endswith(f"list09{' and 1 more' if count == 11 else ''}.")
    assert len(life.notices[1].detail["missed"]) == count


def test_status_shows_what_waits_and_for_how_long(life: Life):
    assert life.health.snapshot() == HealthReport(state="ok")
    life.fail("projects", "page=1", 0.0)
    young = EndpointHealth(
        endpoint="projects", reason="HTTP 500", since=NOON, blocked=False, units=1, next_try=NOON + 5
    )
    assert life.health.snapshot() == HealthReport(state="ok", endpoints=(young,))

    life.fail("payroll", "page=1", 1.0, 403)
    report = life.health.snapshot()
    assert (report.state, report.since, report.next_probe) == ("failing", NOON + 1, None)
    assert [(shown.endpoint, shown.blocked) for shown in report.endpoints] == [("payroll", True), ("projects", False)]

    life.fail_row(at=2.0)
    report = life.health.snapshot()
    assert (report.state, report.reason, report.next_probe) == ("probing", "HTTP 500", NOON + 7)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 5.0, 70.0, 400.0, 2000.0]),
        st.sampled_from(["projects", "payroll", "items"]),
        st.sampled_from(["page=1", "page=2", "page=3"]),
        st.sampled_from([200, 200, 500, 500, 500, 500, 401, 403, None]),
        st.sampled_from([None, None, 30.0, 4000.0]),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happens_episodes_are_told_once_and_something_may_be_asked_within_30_minutes(
    steps: list[tuple[float, str, str, int | None, float | None, bool]],
):
    life, at, failed_at = Life(), 0.0, 0.0
    for pause, endpoint, unit, status, retry_after, announced in steps:
        at += pause
        if announced:
            life.health.started(endpoint, unit, NOON + at)
        if status == 200:
            life.succeed(endpoint, unit, at)
            assert life.allows(endpoint, unit, at)
            assert life.health.snapshot().state in ("ok", "failing")
        else:
            failed_at = NOON + at
            retry_at = life.fail(endpoint, unit, at, status, retry_after=retry_after).retry_at
            assert retry_at is not None
            assert max(5.0, retry_after or 0.0) <= retry_at - failed_at <= max(1800.0, retry_after or 0.0)
        for name in ("projects", "payroll", "items", "never asked"):
            until = life.health.blocked_until(name, NOON + at)
            assert (until is None) == life.allows(name, "another", at)
            if until is not None:
                assert NOON + at < until <= NOON + at + 1800
                assert life.allows(name, "another", until - NOON)
    assert_told_once(life.notices)


def assert_told_once(notices: list[Notice]) -> None:
    """Of the source, and of each endpoint: failing, recovered, failing ... and every notice makes an event."""
    open_now: set[str | None] = set()
    for told in notices:
        assert notice_event(told, 1).raw
        if told.kind == "gap":
            assert told.detail["seconds"] > 300
            continue
        scope = told.detail["endpoint"] if told.detail["scope"] == "endpoint" else None
        assert (scope in open_now) == (told.kind == "source.recovered")
        open_now ^= {scope}


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_all_is_over_once_every_unit_went_well(
    steps: list[tuple[float, str, str, int | None, float | None, bool]],
):
    life, at = Life(), 0.0
    for pause, endpoint, unit, status, retry_after, _ in steps:
        at += pause
        life.fail(endpoint, unit, at, 500 if status == 200 else status, retry_after=retry_after)
    for endpoint, unit in list(life.failures):
        life.succeed(endpoint, unit, at + 1)

    assert life.health.snapshot() == HealthReport(state="ok")
    assert life.told().count("source.failing") == life.told().count("source.recovered")


def check(watch: StallWatch, at: float, *, due: float | None = None, polled: float | None = None) -> Notice | None:
    return watch.check(
        NOON + at,
        due_since=None if due is None else NOON + due,
        last_poll=None if polled is None else NOON + polled,
    )


def test_a_source_that_should_poll_and_does_not_is_told_within_five_minutes():
    watch = StallWatch("acme")
    assert check(watch, 299.0, due=0.0) is None
    alarm = check(watch, 300.0, due=0.0)

    assert alarm is not None
    assert (alarm.kind, alarm.subject) == ("source.failing", "sources/acme")
    assert alarm.summary.startswith("Source acme is not polled: something has been due for 5 min")
    assert alarm.detail["last_poll"] is None


def test_a_stall_is_told_once_and_its_end_once():
    watch = StallWatch("acme", limit=60.0)
    told = [check(watch, at, due=10.0, polled=0.0) for at in range(0, 600, 10)]
    assert [notice.kind for notice in told if notice] == ["source.failing"]
    assert check(watch, 600.0, due=None, polled=0.0) is None  # nothing is due any more, and nothing was polled

    over = check(watch, 610.0, due=605.0, polled=606.0)
    assert over is not None
    assert over.kind == "source.recovered"
    assert over.detail["seconds"] == 600
    assert check(watch, 620.0, due=605.0, polled=606.0) is None


def test_a_second_stall_is_told_again():
    watch = StallWatch("acme")
    polls = [(300.0, 0.0), (310.0, 305.0), (605.0, 305.0), (700.0, 650.0)]
    told = [check(watch, at, due=0.0, polled=polled) for at, polled in polls]

    assert [notice and notice.kind for notice in told] == ["source.failing", "source.recovered"] * 2


@pytest.mark.parametrize("due", [None, 0.0], ids=["nothing is due", "it polls"])
def test_what_polls_or_has_nothing_due_is_no_stall(due: float | None):
    watch = StallWatch("acme")

    assert [check(watch, at, due=due, polled=None if due is None else at - 200) for at in range(0, 3000, 100)] == [
        None
    ] * 30


def test_a_due_time_that_starts_anew_at_each_look_hides_no_stall():
    watch = StallWatch("acme")

    told = [check(watch, at, due=at, polled=-5.0) for at in range(0, 400, 10)]
    assert [notice.kind for notice in told if notice] == ["source.failing"]


def test_a_reason_that_ends_in_a_period_ends_no_sentence_twice(life: Life):
    life.fail("projects", "1", 0, 401, reason="HTTP 401: This key is revoked.")
    life.fail("orders", "1", 1, 403, reason="HTTP 403: Not yours.")
    throttled = budget_throttled("acme", now=NOON, until=NOON + 60, reason="HTTP 429: Slow down.")

    assert [notice.kind for notice in (*life.notices, throttled)] == ["source.failing", "budget.throttled"]
    assert "revoked. It is tried again" in life.notices[0].summary
    assert "Slow down. No call is sent" in throttled.summary
