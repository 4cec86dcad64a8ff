"""A draft of an endpoint's recording."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import structs

from state.notices import Notice
from state.polls import Answering, EndpointState, FailedPoll, Marks, PollRecord, Recording, UnitTimes


class Draft(msgspec.Struct, kw_only=True):
    """A recording that is being put together."""

    at: float
    polls: list[PollRecord] = []
    failures: Sequence[FailedPoll] = ()
    dropped: Sequence[str] = ()
    new_units: Sequence[tuple[str, bytes]] = ()
    answering: Sequence[Answering] = ()
    marks: Marks = msgspec.field(default_factory=Marks)
    notices: list[Notice] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to record."""
        return not (self.changes_endpoint or self.polls or self.failures or self.answering)

    @property
    def changes_endpoint(self) -> bool:
        """Whether the draft changes more than units and their objects."""
        return bool(self.marks.is_set or self.dropped or self.new_units or self.notices)

    def recording(self, state: EndpointState, unchanged: Sequence[UnitTimes]) -> Recording:
        """The recording, based on the endpoint in memory."""
        return Recording(
            endpoint=state.id, base=state.revision, sweep=state.sweep, unchanged=unchanged, **structs.asdict(self)
        )
