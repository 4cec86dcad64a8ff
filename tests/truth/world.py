"""What a run is made of: how an API lists its objects, how it misbehaves, and what happens while it is watched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

COUNTED = ("page", "page-total", "page-open", "page-more", "offset", "offset-total")
PAGED = (*COUNTED, "link")
CHAINED = ("keyset", "cursor")
STYLES = (*PAGED, *CHAINED, "none")
MUTATIONS = ("create", "edit", "delete", "restore", "reorder", "swap", "soften", "harden")
LINE_MUTATIONS = ("create-line", "edit-line", "delete-line")
AWAY = (0.5, 3.5, 8.0, 5.0)  # seconds for which a flapping backend hides an object
ERRORS = (
    "500",
    "502",
    "503",
    "408",
    "429",
    "429-date",
    "403-wait",
    "403-text",
    "401",
    "403",
    "404",
    "400",
    "timeout",
    "reset",
)
HALVES = (
    "errors",
    "part",
    "202",
    "206",
    "renamed",
)  # answers that hold a part of the list, or another form, and say so
FAULTS = (*ERRORS, *HALVES, "html", "truncated", "empty", "204", "null", "no-id", "twice")
CRASHES = ("before", "inside", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One API, and how it is watched."""

    style: str = "page"
    size: int = 2  # objects on a page
    order: str = "any"
    has_items: bool = False
    since: bool = False
    content: bool = False  # objects have no id
    soft: bool = False
    noisy: bool = False  # an ignored field changes at every read
    etags: bool = False
    baseline: str = "silent"
    lines: bool = False  # a list per object
    line_size: int = 0  # lines on a page; 0: all in one answer
    own_numbers: bool = False  # lines are numbered within their parent
    past_end: int = 200  # status of a page after the last one
    concurrency: int = 2
    objects: int = 3  # at the beginning
    absent_for: float = 0.0
    seed: int = 0  # of latencies
    traits: tuple[str, ...] = ()  # ways to misbehave from the beginning

    @property
    def is_one_unit(self) -> bool:
        """The whole list is asked for at once."""
        return self.style in (*CHAINED, "none")

    @property
    def knows_total(self) -> bool:
        """Each answer counts the whole list."""
        return self.style.endswith("-total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """A way in which an API misbehaves until it is mended."""

    fits: Callable[[World], bool]  # worlds in which it can
    is_contradiction: Callable[[World], bool] = lambda _: False  # every sweep of the things must be called uncertain
    is_visible: Callable[[World], bool] = lambda _: True  # a client can know that the list may be short
    may_begin: bool = True  # later than the list


TRAITS: dict[str, Trait] = {
    # Every page is the first one: the parameter that asks for another is not known to the API.
    "ignores-page": Trait(fits=lambda w: w.style != "none"),
    # A page after the last one shows the last one again.
    "repeats-last": Trait(fits=lambda w: w.style in COUNTED and w.past_end == 200),
    # Some pages in the middle have an object less than was asked for, and the list goes on.
    "short-pages": Trait(
        fits=lambda w: w.style != "none" and w.size > 1, is_visible=lambda w: w.style not in ("page", "offset")
    ),
    # Pages have an object less than was asked for.
    "caps-size": Trait(fits=lambda w: w.style in ("page", "offset") and w.size > 1, may_begin=False),
    "total-high": Trait(fits=lambda w: w.knows_total, is_contradiction=lambda _: True),  # it counts what is hidden
    "total-low": Trait(fits=lambda w: w.knows_total and w.size > 1),  # it is an estimate
    "total-shrinks": Trait(fits=lambda w: w.knows_total),  # it counts what is left from this page on
    "total-odd": Trait(fits=lambda w: w.knows_total, is_contradiction=lambda _: True),  # it is no number
    "total-once": Trait(fits=lambda w: w.knows_total),  # only the first answer has it
    # A count that nobody has configured is more than the list shows.
    "counts-more": Trait(fits=lambda w: not w.knows_total, is_contradiction=lambda w: w.past_end == 200),
    # The last page says that there is another one.
    "more-at-end": Trait(fits=lambda w: w.style != "page-more", is_contradiction=lambda w: w.past_end == 200),
    # Every page names another one, also those after the end, which show nothing.
    "next-for-ever": Trait(
        fits=lambda w: w.style in ("page-more", "link", *CHAINED), is_contradiction=lambda w: w.past_end == 200
    ),
    "tied": Trait(fits=lambda w: w.order == "any" and w.style != "keyset"),  # the order is another one at every call
    "cursor-loops": Trait(fits=lambda w: w.style == "cursor"),  # the cursor after the last page is that of the first
    # Two objects have one id.
    "twin": Trait(
        fits=lambda w: w.order == "any" and w.style != "keyset" and not w.content,
        is_contradiction=lambda w: w.objects > 0,
    ),
    # The own URL of every object says 404.
    "own-404": Trait(fits=lambda w: w.has_items),
    # Two caches keep their own copies of its answers for a while, and say how old they are.
    "cached": Trait(fits=lambda w: not w.has_items),
    # It answers 304 where the newest row of a page is still the same.
    "etag-newest": Trait(fits=lambda w: not w.content),
    # It answers 304 whatever has changed.
    "etag-stuck": Trait(fits=lambda _: True),
    "modified-stuck": Trait(fits=lambda w: not w.etags),
    # Each list per parent does as the list does.
    "lines-ignore-page": Trait(fits=lambda w: w.line_size > 0),
    "lines-tied": Trait(fits=lambda w: w.line_size > 0),
    "lines-more-at-end": Trait(fits=lambda w: w.lines and w.objects > 0),
}
LIARS = frozenset(
    {"etag-stuck", "modified-stuck", "etag-newest"}
)  # of these nobody can know when what they hide was last as it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happens; then `wait` seconds pass."""

    act: str = "wait"  # a mutation, "flap", "fault", "crash", "conflict", "restart", "begin" or "end" (of a trait)
    pick: int = 0  # which object, or how many calls, writes or recordings until then
    kind: str = ""  # of a fault, crash or trait
    where: str = "list"  # a fault: "list", "item", "lines"
    times: int = 1
    wait: float = 0.0


Run = tuple[World, list[Step]]


def fitting_traits(world: World) -> list[str]:
    """The ways in which this API can misbehave."""
    return [name for name, trait in TRAITS.items() if trait.fits(world)]


def later_traits(world: World) -> list[str]:
    """Those of them that may begin, or end, while it is watched."""
    return [name for name in fitting_traits(world) if TRAITS[name].may_begin]


# A run as text, so that one command tries it again.


def written(run: Run) -> str:
    """The run as one line of JSON, without what is as by default."""
    world, happened = run
    return json.dumps([_differing(world), [_differing(step) for step in happened]])


def read(text: str) -> Run:
    """The run that was written."""
    world, happened = json.loads(text)
    world["traits"] = tuple(world.get("traits", ()))
    return World(**world), [Step(**step) for step in happened]


def _differing(one: World | Step) -> dict[str, Any]:
    defaults = {f.name: f.default for f in fields(one)}
    return {name: value for name, value in asdict(one).items() if value != defaults[name]}


# A run that fails, made as small as can be.


def smaller(run: Run) -> Iterator[Run]:
    """Runs with less in them: fewer steps, then a world and steps with more of what is so by default."""
    world, happened = run
    for number in (len(happened), 4, 1):
        for at in range(0, len(happened), number or 1):
            yield world, happened[:at] + happened[at + number :]
    for one in world.traits:
        yield replace(world, traits=tuple(name for name in world.traits if name != one)), happened
    for name in _differing(world):
        if name not in ("style", "seed"):
            yield replace(world, **{name: World.__dataclass_fields__[name].default}), happened
    for at, step in enumerate(happened):
        for plain_step in (replace(step, times=1), replace(step, pick=0), replace(step, wait=0.0)):
            if plain_step != step:
                yield world, [*happened[:at], plain_step, *happened[at + 1 :]]
