"""How the requests of a source are asked: refusals in the text of an answer are obeyed, and calls that fail for a
moment are repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import httpx

from poller.budget.limiter import RateLimiter
from poller.clock import Clock
from poller.sources.errors import FetchError
from poller.sources.statuses import is_refusal, says_too_many

if TYPE_CHECKING:
    from poller.polling.source_calls import Ask

PASSING: Final = frozenset({408, 425, 500, 502, 503, 504})  # failures that may be over at the next call
WAITS: Final = (1.0, 5.0)  # seconds before the second and the third call


def obeyed_in_text(ask: Ask, limiter: RateLimiter) -> Ask:
    """Lets the budget wait where the text of an error, rather than its status or headers, says that there were too many
    calls.
    """

    async def heard(request: httpx.Request) -> httpx.Response:
        response = await ask(request)
        if says_too_many(response):
            await limiter.heed(response.status_code, response.headers, is_refusal=True)
        return response

    return heard


def asked_again_if_refused(ask: Ask) -> Ask:
    """Repeats a request once if the credentials are refused. A single 401 may come from a server that does not know the
    key yet.
    """

    async def twice(request: httpx.Request) -> httpx.Response:
        response = await ask(request)
        return response if response.status_code != httpx.codes.UNAUTHORIZED else await ask(request)

    return twice


def asked_again_for_a_moment(ask: Ask, clock: Clock, *, refused: Callable[[httpx.Response], None]) -> Ask:
    """Repeats a request that had no answer, a status that may pass, or a refusal, at most twice.

    It is for later pages of a chain, which begins anew after each failure: one of hundreds of pages would never be read
    to its end where one call in fifty fails, or where the server allows fewer calls in a row than there are pages. A
    refusal is `refused`, and the next call waits for the budget.
    """

    async def patient(request: httpx.Request) -> httpx.Response:
        for wait in WAITS:
            try:
                response = await ask(request)
            except FetchError as error:
                if error.status is not None:  # an answer that cannot be used, or a pause that is too long to wait
                    raise
            else:
                if is_refusal(response):
                    refused(response)
                    continue
                if response.status_code not in PASSING:
                    return response
            await clock.sleep(wait)
        return await ask(request)

    return patient
