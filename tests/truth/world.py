"""What a run is made of: how an API lists its objects, and what happens to them while they are watched."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

PAGED = ("page", "page-total", "page-open", "offset", "link")
CHAINED = ("keyset", "cursor")
MUTATIONS = ("create", "edit", "delete", "restore", "reorder", "swap", "soften", "harden")
LINE_MUTATIONS = ("create-line", "edit-line", "delete-line")
ERRORS = ("500", "503", "429", "401", "403", "404", "timeout", "reset")
FAULTS = (*ERRORS, "html", "truncated", "empty", "null", "no-id", "twice")
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
    concurrency: int = 2
    objects: int = 3  # at the beginning
    absent_for: float = 0.0
    seed: int = 0  # of latencies

    @property
    def is_one_unit(self) -> bool:
        """The whole list is asked for at once."""
        return self.style in (*CHAINED, "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happens; then `wait` seconds pass."""

    act: str = "wait"  # a mutation, "fault", "crash", "conflict" or "restart"
    pick: int = 0  # which object, or how many calls, writes or recordings until then
    kind: str = ""  # of a fault or crash
    where: str = "list"  # a fault: "list", "item", "lines"
    times: int = 1
    wait: float = 0.0


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any API that keeps its own promises."""
    style = draw(st.sampled_from((*PAGED, *CHAINED, "none")))
    content = draw(st.integers(0, 5)) == 5
    lines = not content and draw(st.integers(0, 3)) == 3
    orders = ("id",) if style == "keyset" else ("any", "id", "newest")
    return World(
        style=style,
        size=draw(st.integers(1, 3)),
        order="any" if content else draw(st.sampled_from(orders)),
        has_items=not content and draw(st.booleans()),
        since=not content and draw(st.booleans()),
        content=content,
        soft=not content and not lines and draw(st.booleans()),
        noisy=draw(st.booleans()),
        etags=draw(st.booleans()),
        baseline=draw(st.sampled_from(("silent", "emit"))),
        lines=lines,
        concurrency=draw(st.integers(1, 4)),
        objects=draw(st.integers(0, 6)),
        absent_for=draw(st.sampled_from((0.0, 0.0, 5.0, 30.0))),
        seed=draw(st.integers(0, 1000)),
    )


WAITS = st.sampled_from((0.0, 0.0, 0.3, 1.0, 2.0, 4.0, 10.0, 30.0))


def steps(world: World) -> st.SearchStrategy[list[Step]]:
    """What may happen in it."""
    changes = [name for name in MUTATIONS if world.soft or name not in ("soften", "harden")]
    kinds = [kind for kind in FAULTS if not world.content or kind not in ("no-id", "twice")]
    wheres = ["list", *(["item"] if world.has_items else []), *(["lines"] if world.lines else [])]
    changes += LINE_MUTATIONS if world.lines else ()
    picks = st.integers(0, 7)
    mutation = st.builds(Step, act=st.sampled_from(changes), pick=picks, wait=WAITS)
    fault = st.builds(
        Step,
        act=st.just("fault"),
        pick=picks,
        kind=st.sampled_from(kinds),
        where=st.sampled_from(wheres),
        times=st.integers(1, 3),
        wait=WAITS,
    ).filter(lambda step: (step.kind, step.where) != ("404", "item"))  # that is no fault: it says that it is gone
    crash = st.builds(Step, act=st.just("crash"), pick=picks, kind=st.sampled_from(CRASHES), wait=WAITS)
    conflict = st.builds(Step, act=st.just("conflict"), pick=picks, times=st.integers(1, 3), wait=WAITS)
    other = st.builds(Step, act=st.sampled_from(("wait", "restart")), wait=WAITS)
    return st.lists(st.one_of(mutation, mutation, mutation, fault, crash, conflict, other), max_size=25)


@st.composite
def runs(draw: st.DrawFn) -> tuple[World, list[Step]]:
    """A world and what happens in it."""
    world = draw(worlds())
    return world, draw(steps(world))
