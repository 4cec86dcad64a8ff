"""Values: the pieces of work that a budget can do next."""

from __future__ import annotations

from dataclasses import dataclass

from poller.polling.endpoint import WatchedEndpoint
from poller.polling.source import ActiveSource
from state.polls import Suspect


@dataclass(frozen=True, slots=True)
class PollUnit:
    """Poll a unit."""

    active: ActiveSource
    w: WatchedEndpoint
    key: str


@dataclass(frozen=True, slots=True)
class ConfirmDeletion:
    """Request a suspect's own URL."""

    active: ActiveSource
    w: WatchedEndpoint
    suspect: Suspect


@dataclass(frozen=True, slots=True)
class Discover:
    """Make the calls that a source needs before its first poll."""

    active: ActiveSource


Work = PollUnit | ConfirmDeletion | Discover
