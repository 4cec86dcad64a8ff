"""Errors of requests to a source.

FetchError          no answer, or one that cannot be used
    TooLarge        more bytes than `max_answer`, or more values than fit into memory
    TooSlow         longer than `timeout`
"""

from __future__ import annotations

from state.errors import PollerError


class FetchError(PollerError):
    """A source gave no answer, or one that cannot be used. The URL has no secrets."""

    def __init__(
        self,
        url: str,
        reason: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{url}: {reason}", hint=hint)
        self.url = url
        self.status = status
        self.retry_after = retry_after  # seconds


class TooLarge(FetchError):
    """An answer of more bytes than `max_answer`."""


class TooSlow(FetchError):
    """An answer that took longer than `timeout` from when the call was sent."""
