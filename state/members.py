"""Members of a unit: the objects that it showed at its latest poll, in order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate, pairwise
from struct import pack, unpack, unpack_from
from typing import Final

import msgspec

FEW: Final = 4  # so few changed members are found faster one by one

_BORDER: Final = 4  # bytes of a place in the text of ids


class _Packed(msgspec.Struct, array_like=True):
    """The stored form of members."""

    digests: bytes
    ids: str | list[str]  # in the form of an earlier version a list
    borders: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed | dict[bytes, str]).decode


class Members(Mapping[bytes, str]):
    """The digest of each object's bytes -> its id, in order. All digests have the same length.

    The digests are one run of bytes, the ids are one text: a page of which one object was edited is read, compared and
    stored without a Python object for each of its other members.
    """

    __slots__ = ("_borders", "_by_digest", "_compared", "_ids", "_number", "_width", "digests")

    def __init__(self, digests: bytes = b"", ids: str = "", borders: bytes = bytes(_BORDER)) -> None:
        self.digests = digests
        self._ids = ids
        self._borders = borders  # where each id begins in that text, and where the last one ends
        self._number = len(borders) // _BORDER - 1
        self._width = len(digests) // (self._number or 1)
        self._by_digest: dict[bytes, str] | None = None
        self._compared: tuple[bytes, list[int] | None] | None = None  # the latest other run, and where it differs

    @classmethod
    def of(cls, members: Mapping[bytes, str]) -> Members:
        """The same members in this form."""
        return members if isinstance(members, Members) else _joined(b"".join(members), members.values())

    @classmethod
    def unpacked(cls, packed: bytes | None) -> Members:
        """The members from their stored form, or from one of those of earlier versions; none for None."""
        if not packed:
            return cls()
        found = _decode(packed)
        if isinstance(found, dict):
            return cls.of(found)
        if isinstance(found.ids, list):
            return _joined(found.digests, found.ids)
        return cls(found.digests, found.ids, found.borders)

    def packed(self) -> bytes:
        """The members in their stored form."""
        return _encode((self.digests, self._ids, self._borders))

    def edited(self, digests: bytes) -> Members:
        """The same objects in the same places, some of them with other digests."""
        return Members(digests, self._ids, self._borders)

    def id_at(self, place: int) -> str:
        """The id of the object in this place."""
        begin, end = unpack_from("<2I", self._borders, place * _BORDER)
        return self._ids[begin:end]

    @property
    def ids(self) -> list[str]:
        """All ids, in order."""
        ids = self._ids
        return [ids[begin:end] for begin, end in pairwise(unpack(f"<{self._number + 1}I", self._borders))]

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
            low, high = start // width, self._number  # the first change is at one of these places
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
        if places is not None and all(run.find(self._digest(place)) < 0 for place in places):
            return list(map(self.id_at, places))
        shown = set(digests)
        return [object_id for digest, object_id in self.by_digest.items() if digest not in shown]

    def __getitem__(self, digest: bytes) -> str:
        return self.by_digest[digest]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.by_digest)

    def __len__(self) -> int:
        return self._number

    @property
    def by_digest(self) -> dict[bytes, str]:
        """The same as a dict, made on first use."""
        if self._by_digest is None:
            self._by_digest = dict(zip(map(self._digest, range(self._number)), self.ids, strict=True))
        return self._by_digest

    def _digest(self, place: int) -> bytes:
        return self.digests[place * self._width : (place + 1) * self._width]


def _joined(digests: bytes, ids: Collection[str]) -> Members:
    borders = accumulate(map(len, ids), initial=0)
    return Members(digests, "".join(ids), pack(f"<{len(ids) + 1}I", *borders))


NO_MEMBERS: Final = Members()


def packed_as_map(members: Mapping[bytes, str]) -> bytes:
    """The members in the stored form of earlier versions, whose workers may run beside this one on one database."""
    return _encode(members.by_digest if isinstance(members, Members) else members)
