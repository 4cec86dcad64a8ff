"""Random runs: each number has its own, always the same one."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.truth.world import (
    AWAY,
    COUNTED,
    CRASHES,
    FAULTS,
    LINE_MUTATIONS,
    MUTATIONS,
    STYLES,
    Run,
    Step,
    World,
    fitting_traits,
    later_traits,
)

MOST_STEPS = 16
WAITS = (0.0, 0.0, 0.0, 0.3, 0.3, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 10.0, 30.0)
NO_NAMES = ("no-id", "twice")  # faults that concern the ids of objects


def run_of(number: int) -> Run:
    """The run with that number: a world and what happens in it."""
    draw = Random(number)
    world = _world(draw)
    return world, [_step(draw, world) for _ in range(draw.randint(0, MOST_STEPS))]


def _world(draw: Random) -> World:
    """Any API, well or not."""
    style = draw.choice(STYLES)
    content = _once_in(draw, 6)
    lines = not content and _once_in(draw, 4)
    orders = ("id",) if style == "keyset" else ("any", "id", "newest")
    world = World(
        style=style,
        size=draw.randint(1, 3),
        order="any" if content else draw.choice(orders),
        has_items=not content and _once_in(draw, 2),
        since=not content and _once_in(draw, 2),
        content=content,
        soft=not content and not lines and _once_in(draw, 2),
        noisy=_once_in(draw, 2),
        etags=_once_in(draw, 2),
        baseline=draw.choice(("silent", "emit")),
        lines=lines,
        line_size=draw.randint(0, 2) if lines else 0,
        own_numbers=lines and _once_in(draw, 2),
        past_end=draw.choice((200, 400, 404, 416, 422)) if style in COUNTED else 200,
        concurrency=draw.randint(1, 4),
        objects=draw.randint(0, 6),
        absent_for=draw.choice((0.0, 0.0, 5.0, 30.0)),
        seed=draw.randint(0, 1000),
    )
    fitting = fitting_traits(world)
    chosen = draw.sample(fitting, min(len(fitting), draw.choice((0, 0, 1, 2))))
    return replace(world, traits=tuple(sorted(chosen)))


def _step(draw: Random, world: World) -> Step:
    """Anything that may happen in this world."""
    acts = ["mutation"] * 3 + ["fault", "crash", "conflict", "flap", "other"]
    fitting = later_traits(world)
    act = draw.choice([*acts, "trait"] if fitting else acts)
    step = Step(pick=draw.randint(0, 7), wait=draw.choice(WAITS))
    match act:
        case "mutation":
            return replace(step, act=draw.choice(mutations_of(world)))
        case "fault":
            where, kind = draw.choice(faults_of(world))
            return replace(step, act="fault", kind=kind, where=where, times=draw.randint(1, 3))
        case "crash":
            return replace(step, act="crash", kind=draw.choice(CRASHES))
        case "conflict":
            return replace(step, act="conflict", times=draw.randint(1, 3))
        case "flap":
            return replace(step, act="flap", times=draw.randint(1, len(AWAY)))
        case "trait":
            return Step(act=draw.choice(("begin", "end")), kind=draw.choice(fitting), wait=step.wait)
    return Step(act=draw.choice(("wait", "restart")), wait=step.wait)


def is_possible(run: Run) -> bool:
    """Whether a run might have been drawn: nothing happens in it that its world does not have."""
    world, steps = run
    acts = {*mutations_of(world), "fault", "crash", "conflict", "flap", "begin", "end", "wait", "restart"}
    fitting, faults = later_traits(world), faults_of(world)
    return (
        {*world.traits} <= {*fitting_traits(world)}
        and all(step.act in acts for step in steps)
        and all(step.kind in fitting for step in steps if step.act in ("begin", "end"))
        and all((step.where, step.kind) in faults for step in steps if step.act == "fault")
    )


def mutations_of(world: World) -> list[str]:
    """What can happen to the objects of this world."""
    changes = [name for name in MUTATIONS if world.soft or name not in ("soften", "harden")]
    changes += LINE_MUTATIONS if world.lines else ()
    return changes + (["unlist", "relist"] if world.has_items else [])


def faults_of(world: World) -> list[tuple[str, str]]:
    """(where, kind) of all that can go wrong. Some answers say in this world that an object or page is not there."""
    kinds = [kind for kind in FAULTS if not world.content or kind not in NO_NAMES]
    no_faults = {"list": {str(world.past_end)}, "lines": {str(world.past_end)}, "item": {"404", "204", "202", "206"}}
    places = ["list", *(["item"] if world.has_items else []), *(["lines"] if world.lines else [])]
    return [(where, kind) for where in places for kind in kinds if kind not in no_faults[where]]


def _once_in(draw: Random, times: int) -> bool:
    return draw.randrange(times) == 0
