"""Statuses of answers: which ones are a list, and which ones refuse a call because there were too many. Pure."""

from __future__ import annotations

import re
from typing import Final

import httpx

from poller.budget.headers import is_throttled, read_headers
from poller.sources.charsets import opening
from poller.sources.protocol import Endpoint

# 202: the list is still being prepared. 206: only a part of it, which was not requested.
NO_LISTS: Final = frozenset({202, 206})
MAY_REFUSE: Final = frozenset({400, 402, 403, 420, 430, 503, 509, 529})  # if their text says so
READ: Final = 1000  # characters of an error that are searched
_TOO_MANY: Final = re.compile(
    r"rate.?limit|too.many.(?:\w+.){0,2}(?:requests|calls)|throttl|slow.?down|request.?rate"
    r"|(?:request|call|concurrency|secondly|minute|hourly|daily|monthly)s?.?limit"
    r"|quota.{0,20}exceeded|exceeded.{0,40}quota|(?:reached|exceeded).{0,40}usage.?limit|usage.?limit.{0,20}exceeded",
    re.IGNORECASE | re.DOTALL,
)


def is_list(status: int, endpoint: Endpoint) -> bool:
    """Whether an answer with this status is read as the endpoint's list."""
    return status in endpoint.accept_status or (200 <= status < 300 and status not in NO_LISTS)


def is_refusal(response: httpx.Response) -> bool:
    """Whether the answer refuses a call because there were too many: by its status, its headers or its text."""
    return is_throttled(read_headers(response.status_code, response.headers, now=0.0)) or says_too_many(response)


def says_too_many(response: httpx.Response) -> bool:
    """Whether the text of an error, with another status than 429, says that there were too many calls.

    That of GitHub, Google, Salesforce and PagerDuty comes with 403, that of Facebook with 400.
    """
    return response.status_code in MAY_REFUSE and _speaks_of_too_many(response)


def refuses_instead(response: httpx.Response) -> bool:
    """Whether an answer that is no list, although its status is that of one, says that there were too many calls."""
    return response.is_success and len(response.content) <= READ and _speaks_of_too_many(response)


def _speaks_of_too_many(response: httpx.Response) -> bool:
    return _TOO_MANY.search(opening(response, READ)) is not None
