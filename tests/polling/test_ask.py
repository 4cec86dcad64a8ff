"""How requests are asked: a later page of a chain that fails for a moment is asked for again, and texts that speak of a
limit are obeyed.
"""

import httpx
import pytest

from poller.sources.statuses import says_too_many
from tests.truth.run import Watched, in_jumping_time, watched
from tests.truth.world import Step, World

CHAIN = World(style="cursor", size=1, objects=5)


async def reasons(watching: Watched) -> list[str]:
    """Why polls have failed."""
    life = await watching.living()
    return [unit.error or "" for w in life.engine.sources["api"].endpoints.values() for unit in w.units.failing()]


@pytest.mark.parametrize("kind", ["500", "502", "503", "408", "429", "429-date", "403-wait", "timeout", "reset"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_chain_goes_on_where_a_later_page_fails_for_a_moment(kind, times):
    async def story():
        async with watched(CHAIN) as watching:
            watching.upstream.fail(Step(act="fault", kind=kind, pick=2, times=times))
            await watching.sweep()

            assert await reasons(watching) == []
            assert watching.upstream.calls == CHAIN.objects + times

    in_jumping_time(story())


@pytest.mark.parametrize(("kind", "times"), [("502", 3), ("404", 1), ("html", 1), ("truncated", 1)])
def test_a_chain_begins_anew_where_a_later_page_goes_on_failing_or_fails_for_good(kind, times):
    async def story():
        async with watched(CHAIN) as watching:
            watching.upstream.fail(Step(act="fault", kind=kind, pick=2, times=times))
            await watching.sweep()

            assert watching.upstream.calls == 2 + times + CHAIN.objects

    in_jumping_time(story())


def test_a_refusal_of_a_later_page_is_reported_although_the_chain_goes_on():
    async def story():
        async with watched(CHAIN) as watching:
            watching.upstream.fail(Step(act="fault", kind="429", pick=2, times=1))
            await watching.sweep()
            (told,) = (await watching.living()).store.log.read(limit=10)

            assert told.type == "poller.budget.throttled"
            assert "429 Too Many Requests" in told.data["summary"]

    in_jumping_time(story())


@pytest.mark.parametrize("kind", ["403-text", "200-text"])
def test_an_answer_without_a_list_whose_text_speaks_of_a_limit_is_a_refusal_of_the_budget(kind):
    async def story():
        async with watched(World(style="none", objects=2)) as watching:
            await watching.sweep()
            watching.upstream.fail(Step(act="fault", kind=kind, times=1))
            await watching.sweep()
            life = await watching.living()

            assert [event.type for event in life.store.log.read(limit=10)] == ["poller.budget.throttled"]
            assert life.engine.sources["api"].health.snapshot().state == "ok"

    in_jumping_time(story())


@pytest.mark.parametrize(
    ("status", "text", "is_refusal"),
    [
        (403, '{"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}', True),
        (403, '{"error": {"errors": [{"domain": "usageLimits", "reason": "userRateLimitExceeded"}]}}', True),
        (403, '{"error": {"errors": [{"domain": "usageLimits", "reason": "quotaExceeded"}]}}', True),
        (403, '[{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]', True),
        (400, '{"error": {"code": 4, "message": "(#4) Application request limit reached"}}', True),
        (503, "Request was throttled.", True),
        (503, '{"Code": "SlowDown", "Message": "Please reduce your request rate."}', True),
        (403, '{"message": "Too many concurrent requests"}', True),
        (403, '{"message": "Too many API requests"}', True),
        (402, '{"message": "You have reached your API usage limit"}', True),
        (400, '{"message": "Concurrency limit exceeded for user, please retry later"}', True),
        (403, '{"error": {"errors": [{"domain": "usageLimits", "reason": "accessNotConfigured"}]}}', False),
        (403, '{"message": "Resource not accessible by integration"}', False),
        (400, '{"message": "limit must not exceed 100"}', False),
        (500, '{"message": "memory limit exceeded"}', False),
        (404, '{"message": "no such rate limit"}', False),
        (200, '{"message": "rate limit"}', False),
        (429, "Too Many Requests", False),  # its status says so
    ],
)
def test_only_texts_about_the_number_of_calls_are_refusals(status, text, is_refusal):
    response = httpx.Response(status, text=text, request=httpx.Request("GET", "http://api.example/"))

    assert says_too_many(response) == is_refusal
