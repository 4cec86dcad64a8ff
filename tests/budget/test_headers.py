"""What servers say about their limits, in every form they say it, and in none."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from poller.budget.headers import Quota, RateLimitHeaders, read_headers
from poller.http_dates import LONGEST

NOW = 1_784_000_000.0  # Tue, 14 Jul 2026 03:33:20 GMT


def read(headers: dict[str, str], status: int = 200) -> RateLimitHeaders:
    return read_headers(status, httpx.Headers(headers), NOW)


def test_an_answer_without_limits_says_nothing():
    assert read({"Content-Type": "application/json", "Date": "x"}, 304) == RateLimitHeaders(status=304)


@pytest.mark.parametrize("remaining", ["0", "-1"])
def test_a_limit_of_no_calls_is_no_limit(remaining: str):
    assert read({"X-RateLimit-Limit": "0", "X-RateLimit-Remaining": remaining}, 200).quotas == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("99999999", LONGEST),
        ("Tue, 14 Jul 2026 03:34:20 GMT", 60.0),
        ("Tuesday, 14-Jul-26 03:34:20 GMT", 60.0),
        ("Tue Jul 14 03:34:20 2026", 60.0),
        ("Tue, 14 Jul 2020 03:34:20 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float):
    found = read({"Retry-After": text}, 429)
    assert found == RateLimitHeaders(status=429, retry_after=seconds)


def test_a_date_is_compared_with_the_servers_own_clock():
    found = read({"Retry-After": "Tue, 14 Jul 2026 09:00:30 GMT", "Date": "Tue, 14 Jul 2026 09:00:00 GMT"})
    assert found.retry_after == 30.0


def test_a_reset_in_a_copy_from_a_cache_is_counted_from_when_it_was_made():
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1784019660", "Age": "45"}
    (quota,) = read({**headers, "Date": "Tue, 14 Jul 2026 09:00:00 GMT"}).quotas
    assert quota.reset_in == 15.0


@pytest.mark.parametrize("text", ["", "-5", "soon", "1e9", "nan", "inf", "0x10", "Tue, 99 Jul 2026 33:00:00 GMT"])
def test_what_cannot_be_read_is_noted_and_left_out(text: str):
    found = read({"Retry-After": text})
    assert found.retry_after is None
    assert found.notes == (f"retry-after cannot be read: {text!r}",)


@pytest.mark.parametrize(
    ("headers", "quotas"),
    [
        ({"RateLimit": '"default";r=50;t=30'}, [Quota(name="default", remaining=50, reset_in=30.0)]),
        (
            {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
            [Quota(name="default", remaining=50, reset_in=30.0, limit=100, window=60.0)],
        ),
        (
            {"RateLimit": '"a";r=1, "b";r=2;t=3', "RateLimit-Policy": '"b";q=9;w=10, "a";q=5;w=1'},
            [
                Quota(name="a", remaining=1, limit=5, window=1.0),
                Quota(name="b", remaining=2, reset_in=3.0, limit=9, window=10.0),
            ],
        ),
        (
            {"RateLimit": '"a,;b";pk=":sdf,;:";r=7'},
            [Quota(name="a,;b", remaining=7)],
        ),
        (
            {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=60"},
            [Quota(name="ratelimit", remaining=50, reset_in=5.0, limit=100, window=60.0)],
        ),
        (
            {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "9", "RateLimit-Reset": "4"},
            [Quota(name="ratelimit-", remaining=9, reset_in=4.0, limit=100)],
        ),
        (
            {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 90)},
            [Quota(name="x-ratelimit-", remaining=0, reset_in=90.0, limit=5000)],
        ),
        (
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((int(NOW) + 90) * 1000)},
            [Quota(name="x-ratelimit-", remaining=0, reset_in=90.0)],
        ),
        (
            {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "7"},
            [Quota(name="x-ratelimit-", remaining=3, reset_in=7.0)],
        ),
        ({"X-RateLimit-Remaining": "3"}, [Quota(name="x-ratelimit-", remaining=3)]),
        (  # Okta and X
            {"x-rate-limit-limit": "600", "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(int(NOW) + 9)},
            [Quota(name="x-rate-limit-", remaining=0, reset_in=9.0, limit=600)],
        ),
        (  # Discord: the seconds are more exact than the epoch, which needs the two clocks to agree
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW + 500), "X-RateLimit-Reset-After": "1.5"},
            [Quota(name="x-ratelimit-", remaining=0, reset_in=1.5)],
        ),
        (
            {"RateLimit-Remaining": "9", "RateLimit-Policy": "100;w=60"},
            [Quota(name="ratelimit-", remaining=9, window=60.0)],
        ),
        (  # the policy is of the headers without `X-`
            {"X-RateLimit-Remaining": "9", "RateLimit-Policy": "100;w=60"},
            [Quota(name="x-ratelimit-", remaining=9)],
        ),
        (  # one of several policies that name nothing is not chosen
            {"RateLimit-Remaining": "9", "RateLimit-Policy": "100;w=60, 5000;w=3600"},
            [Quota(name="ratelimit-", remaining=9)],
        ),
        (
            {"RateLimit": '"a";r=7', "RateLimit-Policy": '"a";q=9;w="60";note="x=y"'},
            [Quota(name="a", remaining=7, limit=9, window=60.0)],
        ),
        (  # a window of at most a leap year
            {"RateLimit": '"a";r=7, "b";r=8', "RateLimit-Policy": '"a";w=31622400, "b";w=31622401'},
            [Quota(name="a", remaining=7, window=31_622_400.0), Quota(name="b", remaining=8)],
        ),
        ({"RateLimit": '"a";r=7', "RateLimit-Policy": '"a";w=0'}, [Quota(name="a", remaining=7)]),
    ],
)
def test_every_form_of_the_rate_limit_headers_is_read(headers: dict[str, str], quotas: list[Quota]):
    found = read(headers)
    assert list(found.quotas) == quotas
    assert found.notes == ()


@pytest.mark.parametrize(
    ("headers", "note"),
    [
        ({"RateLimit": '"default";t=30'}, "ratelimit cannot be read: 'default'"),
        ({"RateLimit": "garbage"}, "ratelimit cannot be read: 'garbage'"),
        ({"RateLimit": "remaining=many"}, "ratelimit remaining cannot be read: 'many'"),
        ({"X-RateLimit-Remaining": "many"}, "x-ratelimit- remaining cannot be read: 'many'"),
        ({"X-RateLimit-Remaining": "-1"}, "x-ratelimit- remaining cannot be read: '-1'"),
        ({"X-RateLimit-Remaining": ""}, "x-ratelimit- remaining cannot be read: ''"),
        ({"X-RateLimit-Remaining": "m" * 99}, "x-ratelimit- remaining cannot be read: " + repr("m" * 40)),
    ],
)
def test_a_quota_without_a_readable_remainder_is_noted(headers: dict[str, str], note: str):
    found = read(headers)
    assert found.quotas == ()
    assert found.notes == (note,)


def test_a_reset_that_cannot_be_read_is_noted_and_the_remainder_counts():
    found = read({"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "soon"})
    assert found.quotas == (Quota(name="x-ratelimit-", remaining=3),)
    assert found.notes == ("x-ratelimit- reset cannot be read: 'soon'",)


def test_absurd_values_are_bounded():
    found = read({"X-RateLimit-Remaining": "9" * 19, "X-RateLimit-Reset": "9" * 19})
    assert found.quotas[0].remaining == 10**9
    assert found.quotas[0].reset_in == LONGEST


NAMES = st.sampled_from(
    [
        "date",
        "retry-after",
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ]
)
VALUES = st.one_of(
    st.text(max_size=60), st.from_regex(r'["a-z0-9;,=. :-]{0,40}', fullmatch=True), st.integers().map(str)
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # the first draw may be slow on a busy machine
@example({"ratelimit-policy": ";"})  # a member without a name
@given(st.dictionaries(NAMES, VALUES))
def test_nothing_a_server_says_raises_or_blocks_for_longer_than_a_day(headers: dict[str, str]):
    found = read_headers(429, headers, NOW)
    assert found.retry_after is None or 0 <= found.retry_after <= LONGEST
    assert len(found.quotas) <= 16
    for quota in found.quotas:
        assert quota.remaining >= 0
        assert quota.reset_in is None or 0 <= quota.reset_in <= LONGEST


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9], ids=["s", "ms", "us", "ns"])
def test_an_instant_is_one_in_whatever_unit_it_is_counted(scale: int) -> None:
    now = 1_795_000_000.0
    at = str((int(now) + 60) * scale)
    found = read_headers(429, {"retry-after": at, "x-ratelimit-remaining": "0", "x-ratelimit-reset": at}, now)

    assert found.retry_after == found.quotas[0].reset_in == 60.0
