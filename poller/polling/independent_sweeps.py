"""Which complete sweeps of a list count as several. Pure.

Behind caches, one copy of a page may answer in several sweeps. While it is kept, an object can move to that page from
another one without being shown by either, in each of these sweeps.
"""

from __future__ import annotations

import msgspec


class _Latest(msgspec.Struct, frozen=True):
    """The latest sweep that read no copy which an earlier one may have read."""

    before: float | None  # when the one before it began
    began: float  # the time of the oldest copy, Unix seconds
    ended: float


class IndependentSweeps:
    """The complete sweeps of one source's lists, by endpoint."""

    def __init__(self) -> None:
        self._latest: dict[str, _Latest] = {}
        self._overlapping: set[str] = set()  # endpoints that are behind caches

    def add(self, name: str, *, began: float, ended: float) -> None:
        """Note a complete sweep. The clock may have been set back since the one before it."""
        latest = self._latest.get(name)
        if latest is None or ended < latest.ended:
            self._latest[name] = _Latest(None, began, ended)
        elif began >= latest.ended:
            self._latest[name] = _Latest(latest.began, began, ended)
        else:
            self._overlapping.add(name)

    def are_two_since(self, name: str, missing_at: float) -> bool:
        """Whether two sweeps that share no copy began since then. Without caches, counting them is enough."""
        if name not in self._overlapping:
            return True
        before = self._latest[name].before
        return before is not None and before >= missing_at
