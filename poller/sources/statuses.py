"""Statuses of answers to a request for a list. Pure."""

from __future__ import annotations

from typing import Final

from poller.sources.protocol import Endpoint

# 202: the list is still being prepared. 206: only a part of it, which was not requested.
NO_LISTS: Final = frozenset({202, 206})


def is_list(status: int, endpoint: Endpoint) -> bool:
    """Whether an answer with this status is read as the endpoint's list."""
    return status in endpoint.accept_status or (200 <= status < 300 and status not in NO_LISTS)
