"""Values: the pieces of work that a budget can do next."""

from __future__ import annotations

import msgspec

from poller.polling.endpoint import WatchedEndpoint
from poller.polling.source import ActiveSource
from state.polls import Suspect


class PollUnit(msgspec.Struct, frozen=True):
    """Poll a unit."""

    active: ActiveSource
    w: WatchedEndpoint
    key: str


class ConfirmDeletion(msgspec.Struct, frozen=True):
    """Request a suspect's own URL."""

    active: ActiveSource
    w: WatchedEndpoint
    suspect: Suspect


class Discover(msgspec.Struct, frozen=True):
    """Make the calls that a source needs before its first poll."""

    active: ActiveSource


Work = PollUnit | ConfirmDeletion | Discover
