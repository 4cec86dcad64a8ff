"""Events are kept as long as they are to be, and no longer, whatever the clock says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.retention import LONGEST_PAUSE, MARKS, LogAge

HALF_AN_HOUR = 1800.0
YEAR = 365 * 86_400.0
LOOKS = st.lists(st.tuples(st.floats(0, 4 * HALF_AN_HOUR), st.integers(0, 3)), min_size=1, max_size=60)


@given(looks=LOOKS, retention=st.sampled_from([60.0, 3600.0, 20_000.0]))
def test_an_event_is_kept_for_the_retention_and_little_longer(looks: list[tuple[float, int]], retention: float) -> None:
    age, now, recorded = LogAge(), 0.0, []
    for pause, events in looks:
        recorded += [now + pause] * events  # at the latest
        now += pause
        age = LogAge.parse(age.at(now, len(recorded), retention).dump())
        upto = age.outlived(retention)
        slack = 4 * HALF_AN_HOUR + retention / MARKS
        assert all(now - at >= retention for at in recorded[:upto])
        assert all(now - at < retention + 2 * slack for at in recorded[upto:])
        assert len(age.marks) <= MARKS + 2


def test_a_clock_that_is_years_ahead_from_the_start_makes_nothing_old() -> None:
    age = LogAge().at(0.0, 5, 30 * 86_400.0).at(9 * YEAR, 5, 30 * 86_400.0)
    assert (age.age, age.outlived(30 * 86_400.0)) == (LONGEST_PAUSE, 0)
    assert age.at(0.0, 5, 30 * 86_400.0).age == LONGEST_PAUSE  # and back again


def test_what_cannot_be_read_is_a_log_that_nobody_has_looked_at() -> None:
    assert LogAge.parse(None) == LogAge.parse(b"{") == LogAge.parse(b'{"age": "old"}') == LogAge()


def test_marks_of_another_log_count_for_nothing() -> None:
    assert LogAge().at(0.0, 100, 60.0).at(120.0, 7, 60.0).outlived(60.0) == 0
