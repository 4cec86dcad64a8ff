"""The tree of errors.

PollerError
    StateError      the state cannot be opened, read or written
        Conflict    the base of a step has changed meanwhile: read and decide again
        LeaseLost   another worker owns the budget or the subscription: drop everything held of it
        Held        another process holds the state
        Outdated    the state was written by an earlier version: the next daemon brings it up to date
        Unavailable the state cannot be written at the moment: a full disk, a lock, a read-only file
"""

from __future__ import annotations


class PollerError(Exception):
    """An error for an operator. The message says what is wrong and where; `hint` says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class StateError(PollerError):
    """The state cannot be opened, read or written."""


class Conflict(StateError):
    """The base of a step has changed meanwhile: read and decide again."""


class LeaseLost(StateError):
    """Another worker, or none, owns the budget or the subscription now: drop everything held of it."""


class Held(StateError):
    """Another process holds the state."""


class Outdated(StateError):
    """A state of an earlier version, or an empty file: the next daemon that runs on it brings it up to date."""


class Unavailable(StateError):
    """The state cannot be written at the moment: a full disk, a lock, a read-only file. Nothing was written."""
