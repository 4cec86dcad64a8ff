"""Rules of an endpoint's objects, compiled from plugin and configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from poller.documents.diff import NOTHING, Rules
from poller.events.filters import ObjectRule
from poller.sources.paths import identity, unparsed_identity
from poller.sources.protocol import Endpoint
from state.records import NewEvent

ABSENT_FOR: Final = 60.0  # seconds: longer than an unstable backend or a slow cache hides objects
ABSENT_FOR_WITH_URL: Final = 10.0  # seconds, if the object's own URL decides

Unlisted = Literal["keep", "updated", "deleted"]  # how to treat an object that left its list but answers at its own URL


class DeletionRules(msgspec.Struct, frozen=True, kw_only=True):
    """Which objects count as deleted, and when that is believed."""

    deletes: bool = True  # False: no deletion is reported
    soft: ObjectRule | None = None  # if true, the object counts as deleted
    absent_for: float | None = None  # seconds that an object must be missing; None: the default of `missing_time`
    unlisted: Unlisted = "keep"
    turnover: bool = False  # objects come and go: missing ones count only if no others have replaced them

    def missing_time(self, *, has_own_url: bool) -> float:
        """Seconds that an object must be missing before its deletion is believed."""
        if self.absent_for is not None:
            return self.absent_for
        return ABSENT_FOR_WITH_URL if has_own_url else ABSENT_FOR

    @property
    def asks_twice(self) -> bool:
        """Whether an own URL must say twice that its object is gone: too dear where objects come and go."""
        return not self.turnover and self.missing_time(has_own_url=True) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRules:
    """The rules of one endpoint. Raises PathError for its id."""

    source: str
    namespace: str
    endpoint: Endpoint
    fields: Rules  # which fields are compared, stored and sent
    deletion: DeletionRules = field(default_factory=DeletionRules)
    conditional: bool = True  # ETag and Last-Modified of an answer are sent back
    baseline: Literal["silent", "emit"] = "silent"
    max_depth: int = 64  # nesting of an object; deeper ones are set aside
    transform: Callable[[NewEvent], NewEvent | None] | None = None  # the plugins' transform; None if there is none
    identify: Callable[[Mapping[str, Any]], str | None] = field(init=False)
    identify_unparsed: Callable[[bytes], list[str | None]] | None = field(init=False)  # ids of a list of objects

    def __post_init__(self) -> None:
        """Compile how objects are identified. If they are not stored as they came, they must be parsed for it."""
        name, is_kept_whole = self.endpoint.id, self.endpoint.normalise is None and self.fields.excluded is NOTHING
        object.__setattr__(self, "identify", identity(name, rules=self.fields))
        object.__setattr__(self, "identify_unparsed", unparsed_identity(name) if is_kept_whole else None)

    @property
    def runs_plugins(self) -> bool:
        """Whether comparing and deciding runs plugin code or configured expressions."""
        return self.transform is not None or self.deletion.soft is not None or self.endpoint.normalise is not None
