"""Members of a unit: the objects that it showed at its latest poll, in order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

FEW: Final = 4  # so few changed members are found faster one by one

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, list[str]] | dict[bytes, str]).decode


class Members(Mapping[bytes, str]):
    """The digest of each object's bytes -> its id, in order. All digests have the same length.

    The digests are one run of bytes: a page of which one object was edited is compared and stored without a Python
    object for each of its other members.
    """

    __slots__ = ("_by_digest", "_compared", "digests", "ids")

    def __init__(self, digests: bytes = b"", ids: Sequence[str] = ()) -> None:
        self.digests = digests
        self.ids = ids
        self._by_digest: dict[bytes, str] | None = None
        self._compared: tuple[bytes, list[int] | None] | None = None  # the latest other run, and where it differs

    @classmethod
    def of(cls, members: Mapping[bytes, str]) -> Members:
        """The same members in this form."""
        return members if isinstance(members, Members) else cls(b"".join(members), [*members.values()])

    @classmethod
    def unpacked(cls, packed: bytes | None) -> Members:
        """The members from their stored form; none for None. The form of earlier versions is a map."""
        found = _decode(packed) if packed else (b"", ())
        return cls.of(found) if isinstance(found, dict) else cls(*found)

    def packed(self) -> bytes:
        """The members in their stored form."""
        return _encode((self.digests, self.ids))

    def changed_places(self, digests: bytes) -> list[int] | None:
        """The places at which another run of digests differs. None: they are more than a few, or it is longer or
        shorter.

        The latest result is kept, because a store and then the comparison ask for the same.
        """
        if self._compared is None or self._compared[0] != digests:
            self._compared = digests, self._changed_places(digests)
        return self._compared[1]

    def _changed_places(self, digests: bytes) -> list[int] | None:
        if len(digests) != len(self.digests):
            return None
        width, found, start = self._width, list[int](), 0
        while digests[start:] != self.digests[start:]:
            if len(found) == FEW:
                return None
            low, high = start // width, len(self.ids)  # the first change is at one of these places
            while high - low > 1:
                middle = (low + high) // 2
                if digests[low * width : middle * width] == self.digests[low * width : middle * width]:
                    low = middle
                else:
                    high = middle
            found.append(low)
            start = high * width
        return found

    def lost(self, digests: Collection[bytes]) -> list[str]:
        """The ids of the members that are not among these digests."""
        run = b"".join(digests)
        places = self.changed_places(run)
        if places is not None and not any(self._digest(place) in run for place in places):
            return [self.ids[place] for place in places]
        shown = set(digests)
        return [object_id for digest, object_id in self.by_digest.items() if digest not in shown]

    def __getitem__(self, digest: bytes) -> str:
        return self.by_digest[digest]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.by_digest)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def by_digest(self) -> dict[bytes, str]:
        """The same as a dict, made on first use."""
        if self._by_digest is None:
            self._by_digest = dict(zip(map(self._digest, range(len(self.ids))), self.ids, strict=True))
        return self._by_digest

    @property
    def _width(self) -> int:
        return len(self.digests) // (len(self.ids) or 1)

    def _digest(self, place: int) -> bytes:
        return self.digests[place * self._width : (place + 1) * self._width]


NO_MEMBERS: Final = Members()


def packed_as_map(members: Mapping[bytes, str]) -> bytes:
    """The members in the stored form of earlier versions, whose workers may run beside this one on one database."""
    return _encode(members.by_digest if isinstance(members, Members) else members)
