"""The answers of one cursor chain, and detection of chains that start over. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from poller.changes.certainty import ENDLESS, MOST_EMPTY
from poller.sources.protocol import Unparsed

Objects = Sequence[msgspec.Raw]
Ids = Callable[[Objects], Sequence[str | bytes]]


class Chain:
    """The pages of one chain, in order. The chain ends at a page that shows exactly the objects of an earlier one.

    A page that shows those of the page just before it ends the chain if the next one does so, too: once, they may be
    the same because the list moved, or because its order is not stable. It ends as well after many pages that show
    nothing: some APIs always name a next one.

    `ids` names objects, and `alike` says whether two answers show the same content.
    """

    def __init__(self, ids: Ids, alike: Callable[[Objects, Objects], bool]) -> None:
        self.pages: list[Unparsed] = []
        self._alike = alike
        self._ids = ids
        self._shown: dict[str | bytes, list[tuple[int, frozenset[str | bytes]]]] = {}  # by first object
        self._repeats: set[int] = set()  # pages that show what the page before shows
        self._empty = 0  # pages in a row that show nothing

    def add(self, page: Unparsed) -> Unparsed:
        """Add the next page, and return it in the form in which it counts."""
        if len(self.pages) == 1:
            self._told_apart(self.pages[0], 0)  # only now: most lists are one answer
        if self.pages:
            page = self._told_apart(page, len(self.pages))
        self._empty = 0 if page.objects else self._empty + 1
        if self._empty >= MOST_EMPTY and page.next is not None:
            page = replace(page, next=None, guesses=(*page.guesses, ENDLESS))
        self.pages.append(page)
        return page

    def _told_apart(self, page: Unparsed, number: int) -> Unparsed:
        if not page.objects:
            return page
        ids = self._ids(page.objects)
        shown = frozenset(ids)
        begun = self._shown.setdefault(ids[0], [])
        earlier = next((other for other, those in reversed(begun) if those == shown), None)
        begun.append((number, shown))
        if earlier is None:
            return page
        is_alike = self._alike(self.pages[earlier].objects, page.objects)
        if is_alike and 0 < earlier == number - 1:
            self._repeats.add(number)
            if earlier not in self._repeats:
                return page
            self.pages[earlier] = replace(self.pages[earlier], objects=())
        return _end(page, earlier + 1, number + 1, is_alike=is_alike)


def _end(page: Unparsed, earlier: int, number: int, *, is_alike: bool) -> Unparsed:
    """The page that ends the chain. Repeating the last page after the end is common, and is not reported."""
    doubts, guesses = page.doubts, page.guesses
    if earlier == 1 or earlier < number - 1:
        doubts = (
            *doubts,
            f"answer {number} of the list shows what answer {earlier} shows: the API does not know the parameter that "
            "asks for the next page, or its list starts over",
        )
    elif is_alike and page.next is not None and page.next.cursor is not None:
        guesses = (
            *guesses,
            f"answer {number} of the list shows what answer {earlier} shows, and names a next page: its list may go on",
        )
    elif not is_alike:
        guesses = (
            *guesses,
            f"answer {number} of the list shows the ids of answer {earlier} with other content: fields that differ in "
            "every answer (`ignore` them), or an `id` that two objects share",
        )
    objects = (
        page.objects if earlier < number - 1 and not is_alike else ()
    )  # ids that name several objects are set aside
    return replace(page, objects=objects, next=None, doubts=doubts, guesses=guesses)
