"""Times in headers: every form that peers write is read as what it means, and none of them is without a bound."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.http_dates import LONGEST, retry_after

NOW = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("90000", LONGEST),
        ("999999999", LONGEST),
        ("1795000060", 60.0),  # an instant, counted in seconds
        ("1795000060000", 60.0),  # milliseconds
        ("1795000060000000", 60.0),  # microseconds
        ("1795000060000000000", 60.0),  # nanoseconds
        ("1794999999", 0.0),  # past
        ("Wed, 18 Nov 2026 11:07:40 GMT", 60.0),
        ("Wednesday, 18-Nov-26 11:07:40 GMT", 60.0),
        ("Wed Nov 18 11:07:40 2026", 60.0),  # asctime: GMT without saying so
        ("Wed, 18 Nov 2026 11:07:40 -0000", 60.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_every_form_is_read_as_what_it_means(text: str, seconds: float) -> None:
    assert retry_after(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e400", "inf", "nan", "٣", "9" * 21, "1" * 5000, "\udcff", "a,b"])
def test_what_cannot_be_read_says_nothing(text: str) -> None:
    assert retry_after(text, NOW) is None


def test_a_header_that_is_not_there_says_nothing() -> None:
    assert retry_after(None, NOW) is None


def test_the_bound_may_be_shorter() -> None:
    assert retry_after("86400", NOW, longest=600.0) == 600.0


@given(st.text())
def test_nothing_raises_and_nothing_is_beyond_the_bound(text: str) -> None:
    seconds = retry_after(text, NOW)

    assert seconds is None or 0.0 <= seconds <= LONGEST


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30, 60", 60.0), ("60, soon", 60.0), (" 20 , 10 ", 20.0)],
)
def test_of_values_that_are_joined_by_a_comma_the_longest_holds(text: str, seconds: float) -> None:
    assert retry_after(text, NOW) == seconds


@pytest.mark.parametrize("shape", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+00:00"])
def test_iso_text_is_an_instant(shape: str) -> None:
    assert retry_after(datetime.fromtimestamp(NOW + 90, UTC).strftime(shape), NOW) == 90.0
