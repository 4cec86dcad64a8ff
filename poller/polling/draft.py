"""A recording of an endpoint while it is put together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType, structs

from state.notices import Notice
from state.polls import Answering, EndpointState, FailedPoll, PollRecord, Recording, Sweep, UnitTimes


class Draft(msgspec.Struct, kw_only=True):
    """A recording that is being put together."""

    at: float
    polls: list[PollRecord] = []
    failures: Sequence[FailedPoll] = ()
    rebaseline: tuple[float, int] | None = None
    begin_sweep: tuple[float, int] | None = None
    dropped: Sequence[str] = ()
    new_units: Sequence[tuple[str, bytes]] = ()
    answering: Sequence[Answering] = ()
    ended: Sweep | None = None
    tail_asked_at: float | None = None
    since_at: float | None = None
    held: bytes | UnsetType | None = UNSET
    accepted: bytes | UnsetType | None = UNSET
    notices: list[Notice] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to record."""
        return not (self.changes_endpoint or self.polls or self.failures or self.answering)

    @property
    def changes_endpoint(self) -> bool:
        """Whether more changes than units and their own objects."""
        marks = (self.rebaseline, self.begin_sweep, self.ended, self.tail_asked_at, self.since_at)
        return bool(
            marks != (None,) * 5
            or self.dropped
            or self.new_units
            or self.notices
            or self.held is not UNSET
            or self.accepted is not UNSET
        )

    def recording(self, state: EndpointState, unchanged: Sequence[UnitTimes]) -> Recording:
        """The recording, based on what is in memory of the endpoint."""
        return Recording(
            endpoint=state.id, base=state.revision, sweep=state.sweep, unchanged=unchanged, **structs.asdict(self)
        )
