"""A pause that a server asks for is believed up to a stated bound; then the budget asks again."""

import httpx
import pytest

from poller.budget.budget import Budget
from poller.budget.headers import is_throttled, read_headers
from poller.budget.limits import Limit
from poller.polling.fetch import unwelcome

NOW = 1_795_000_000.0
HOUR, DAY = 3600.0, 86400.0


def paused(limit: Limit, status: int, headers: dict[str, str]) -> float:
    """Seconds that the next call waits after this answer."""
    budget = Budget("k", [limit], share=1.0)
    budget.obey(read_headers(status, headers, NOW), 0.0)
    return budget.wait(0.0)


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("status", [200, 403, 429, 503])
def test_an_instant_in_any_unit_is_read_as_one(scale, status):
    at = str(round((NOW + 90) * scale))

    assert paused(Limit(100, 60.0), status, {"retry-after": at}) == pytest.approx(90, abs=0.01)
    assert paused(Limit(100, 60.0), status, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": at}) == pytest.approx(
        90, abs=1.5
    )


@pytest.mark.parametrize(("limit", "bound"), [(Limit(100, 60.0), HOUR), (Limit(5000, DAY), DAY), (Limit(1, 2.0), HOUR)])
@pytest.mark.parametrize(
    "headers", [{"retry-after": "9999999"}, {"ratelimit-remaining": "0", "ratelimit-reset": "9999999"}]
)
@pytest.mark.parametrize("status", [200, 503])
def test_no_pause_is_longer_than_the_longest_window_or_an_hour(limit, bound, headers, status):
    assert paused(limit, status, headers) == pytest.approx(bound)


def test_a_reset_is_bounded_by_the_window_that_it_names():
    headers = {"ratelimit": '"minute";r=0;t=80000', "ratelimit-policy": '"minute";q=100;w=60'}

    assert paused(Limit(100_000, DAY), 200, headers) == HOUR


@pytest.mark.parametrize(
    ("status", "headers", "refused"),
    [
        (429, {}, True),
        (403, {}, False),
        (403, {"retry-after": "30"}, True),
        (403, {"x-ratelimit-remaining": "0"}, True),
        (403, {"x-ratelimit-remaining": "7"}, False),
        (401, {"retry-after": "30"}, False),
    ],
)
def test_a_403_that_speaks_of_a_limit_is_a_429(status, headers, refused):
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://api.example/"))

    assert is_throttled(read_headers(status, headers, NOW)) == refused
    assert unwelcome(response).status == (429 if refused else status)
