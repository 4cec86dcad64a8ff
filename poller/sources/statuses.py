"""HTTP statuses of answers to a request for a list. Pure."""

from __future__ import annotations

from typing import Final

from poller.sources.protocol import Endpoint

# 202: the list is still being made. 206: a part of it that nobody asked for.
NO_LISTS: Final = frozenset({202, 206})


def is_list(status: int, endpoint: Endpoint) -> bool:
    """Whether an answer with this status is read as the endpoint's list."""
    return status in endpoint.accept_status or (200 <= status < 300 and status not in NO_LISTS)
