"""What an endpoint's objects mean: plugin and configuration, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from poller.documents.diff import NOTHING, Rules
from poller.events.filters import ObjectRule
from poller.sources.paths import identity, unparsed_identity
from poller.sources.protocol import Endpoint
from state.records import NewEvent

ABSENT_FOR: Final = 60.0  # seconds: longer than a backend that flaps, or a cache that lags, hides what is there
ABSENT_FOR_WITH_URL: Final = 10.0  # seconds, where the object's own URL has the last word

Unlisted = Literal["keep", "updated", "deleted"]  # what an object is that left its list and answers at its own URL


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionRules:
    """Which objects count as deleted, and when that is believed."""

    deletes: bool = True  # False: no deletion is reported
    soft: ObjectRule | None = None  # true: the object is as good as deleted
    absent_for: float | None = None  # seconds that an object must be missing; None: `missing_time` chooses
    unlisted: Unlisted = "keep"
    turnover: bool = False  # objects come and go: what is gone counts where no others have come

    def missing_time(self, *, has_own_url: bool) -> float:
        """Seconds for which an object must have been missing before its deletion is believed."""
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
    fields: Rules  # which fields are compared, kept and sent
    deletion: DeletionRules = DeletionRules()
    conditional: bool = True  # what an answer was marked with (ETag, Last-Modified) is sent back
    baseline: Literal["silent", "emit"] = "silent"
    max_depth: int = 64  # of an object's own nesting: a deeper one is set aside
    transform: Callable[[NewEvent], NewEvent | None] | None = None  # the plugins'; None: there is none
    identify: Callable[[Mapping[str, Any]], str | None] = field(init=False)
    identify_unparsed: Callable[[bytes], list[str | None]] | None = field(init=False)  # of a list of objects

    def __post_init__(self) -> None:
        """Compile how an object is named. One that is not kept just as it came must be parsed for it."""
        name, is_kept_whole = self.endpoint.id, self.endpoint.normalise is None and self.fields.excluded is NOTHING
        object.__setattr__(self, "identify", identity(name, rules=self.fields))
        object.__setattr__(self, "identify_unparsed", unparsed_identity(name) if is_kept_whole else None)

    @property
    def runs_plugins(self) -> bool:
        """Whether comparing and deciding runs code of plugins, or expressions of the configuration."""
        return self.transform is not None or self.deletion.soft is not None or self.endpoint.normalise is not None
