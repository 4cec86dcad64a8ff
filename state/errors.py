"""Everything that can go wrong, as one tree.

PollerError
    StateError      the state cannot be opened, read or written
        Conflict    what a step was based on has changed meanwhile: read again and decide again
        LeaseLost   another worker owns the budget or the subscription: drop what is held of it
        Held        another process holds the state
        Outdated    an earlier version's: whoever runs on it brings it up to date
        Unavailable it cannot be written at the moment (a full disk, a lock, a read-only file): it may be later
"""

from __future__ import annotations


class PollerError(Exception):
    """Something an operator must know. The message says what and where; `hint` says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class StateError(PollerError):
    """The state cannot be opened, read or written."""


class Conflict(StateError):
    """What a step was based on has changed meanwhile: read again and decide again."""


class LeaseLost(StateError):
    """Another worker owns the budget or the subscription now, or nobody does: drop what is held of it."""


class Held(StateError):
    """Another process holds the state."""


class Outdated(StateError):
    """An earlier version's state, or an empty file: whoever runs on it brings it up to date."""


class Unavailable(StateError):
    """The state cannot be written at the moment: a full disk, a lock, a read-only file. Nothing was written."""
