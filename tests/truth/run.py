"""One run: a world is watched while things happen to it, and judged once it is quiet."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from poller.config.models import Config
from poller.polling import answer
from poller.polling.endpoint import WatchedEndpoint
from state.sqlite.store import Store
from tests.truth.judge import Judge, Untrue
from tests.truth.life import Crash, Life
from tests.truth.loop import BEGIN, JumpingLoop
from tests.truth.settings import LIMITS, config_of
from tests.truth.upstream import Upstream
from tests.truth.world import TRAITS, Step, World

T = TypeVar("T")

SWEEPS_TO_SETTLE = 60
SWEEPS_IN_PEACE = 3
SWEEPS_OF_TRIAL = 3  # after which what cannot be known must be shown as uncertain
SWEEP_TIME = 600.0  # seconds in which one must have ended


@lru_cache(maxsize=1)
def _folder() -> Path:
    """In memory where there is such a place: what is proved here is not the disk."""
    memory = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(prefix="poller-truth-", dir=memory if memory.is_dir() else None)
    _folder.keep = made  # type: ignore[attr-defined]  # lives as long as the process
    Store.open(Path(made.name) / "empty.db", now=BEGIN).close()
    return Path(made.name)


def _patience(world: World) -> float:
    """Seconds after which a deletion must be told.

    Its own URL is asked half of `absent_for` after an object went missing, and again all of it later; each request may
    wait until the longest window of the budget has room. Then the lines of a parent that is gone go missing, too.
    """
    window = max(limit.seconds for limit in LIMITS)
    return 1.5 * world.absent_for + 2 * window + (world.absent_for + window if world.lines else 0.0)


class Endless(Untrue):
    """No sweep is complete in time."""


def prove(world: World, steps: Sequence[Step]) -> Judge:
    """Let it happen. Raises Untrue where the log does not tell just that."""
    return in_jumping_time(_prove(world, steps))


def in_jumping_time(work: Coroutine[Any, Any, T]) -> T:
    """Run it on a loop of its own whose time jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)


async def _prove(world: World, steps: Sequence[Step]) -> Judge:
    async with watched(world) as watching:
        for step in steps:
            await watching.do(step)
        await watching.try_honesty()
        await watching.settle()
        return watching.judge


@contextlib.asynccontextmanager
async def watched(world: World) -> AsyncIterator[Watched]:
    """A world with a poller that begins with an empty state."""
    path, caps = _folder() / "run.db", answer.COMMON_CAPS
    if "caps-size" in world.traits:
        answer.COMMON_CAPS = frozenset({world.size - 1})
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    shutil.copy(_folder() / "empty.db", path)
    watching = Watched(world, path)
    try:
        yield watching
    finally:
        answer.COMMON_CAPS = caps
        await watching.end()


class Watched:
    """A world and the poller that watches it, however many lives that takes."""

    def __init__(self, world: World, path: Path) -> None:
        self.upstream = Upstream(world, asyncio.get_running_loop().time)
        self.judge = Judge(self.upstream)
        self._path = path
        self.config = config_of(world, path)
        self._life: Life | None = None

    async def do(self, step: Step) -> None:
        """Let one thing happen and some time pass."""
        if step.act == "fault":
            self.upstream.fail(step)
        elif step.act == "crash":
            (await self.living()).crash(step.kind, step.pick)
        elif step.act == "conflict":
            (await self.living()).conflict(step.pick, step.times)
        elif step.act == "restart":
            await self._restart()
        elif step.act == "flap":
            self.upstream.flap(step.pick, step.times)
        elif step.act == "begin":
            self.upstream.begin(step.kind)
        elif step.act == "end":
            self.upstream.end(step.kind)
        elif step.act != "wait":
            self.upstream.change(step.act, step.pick)
        await self._pass(asyncio.get_running_loop().time() + step.wait)

    async def try_honesty(self) -> None:
        """The API goes on to misbehave, and nothing else happens: what is shown as ok is known as it is."""
        if not self.upstream.traits:
            return
        self.upstream.faults.clear()
        self.upstream.keep_one()
        await self._restart()
        (await self.living()).engine.interventions.probe_now()
        now = asyncio.get_running_loop().time
        sweeps, until = 0, now() + _patience(self.upstream.world)
        while sweeps < SWEEPS_TO_SETTLE or now() < until:
            sweeps += 1
            try:
                await self.sweep()
            except Endless:
                if all(one.state != "ok" for one in (await self.living()).endpoints().values()):
                    return
                raise
            wrong = await self._dishonest()
            if wrong is None or (sweeps > SWEEPS_OF_TRIAL and not self._must_be_known()):
                return
        raise Untrue(wrong)

    async def _dishonest(self) -> str | None:
        """What is shown as ok and is not, in words. Lists per parent are as complete as their parents' list is."""
        known, shown = self._known(), (await self.living()).endpoints()
        for name, one in shown.items():
            if one.state == "ok" and name in self.upstream.contradicted():
                return f"{name} is shown as ok, and contradicts itself: {sorted(self.upstream.traits)}"
            wrong = self.judge.differs(known, name)
            if one.state == "ok" and shown["things"].state == "ok" and wrong is not None:
                return f"{name} is shown as ok, and {wrong}"
            if one.last_sweep is None and one.state == "ok":
                return f"{name} is shown as ok before its first sweep"
        return None

    def _must_be_known(self) -> bool:
        return all(TRAITS[name].is_visible(self.upstream.world) for name in self.upstream.traits)

    async def settle(self) -> None:
        """Nothing happens any more, and the API behaves: what the subscriber knows becomes what is, and stays so."""
        self.upstream.faults.clear()
        for trait in sorted(self.upstream.traits):
            self.upstream.end(trait)
        self.upstream.keep_one()
        await self._restart()
        await self._pass(self.upstream.still_hidden_until())
        (await self.living()).engine.interventions.probe_now()  # as a reload does
        now = asyncio.get_running_loop().time
        sweeps, until = 0, now() + _patience(self.upstream.world)
        wrong: str | None = None
        while sweeps < 2 or wrong is not None:
            if sweeps >= SWEEPS_TO_SETTLE and now() > until:
                raise Untrue(f"after {sweeps} sweeps: {wrong}")
            await self.sweep()
            sweeps, known = sweeps + 1, self._known()
            wrong = self.judge.differs(known) or await self._unwell()
        listed, told = self.judge.listed(known), self.judge.told_of_listed
        for _ in range(SWEEPS_IN_PEACE):
            await self.sweep()
        if self.judge.listed(self._known()) != listed or self.judge.told_of_listed != told:
            raise Untrue("events although nothing happened")
        if wrong := await self._unwell():
            raise Untrue(wrong)
        self.judge.count(LIMITS)

    async def _unwell(self) -> str | None:
        """Which endpoint is not shown as ok although all is well, in words."""
        shown = (await self.living()).endpoints()
        ill = [f"{name} is {one.state}: {one.reason}" for name, one in shown.items() if one.state != "ok"]
        return "; ".join(ill) or None

    async def end(self) -> None:
        """Stop watching."""
        if self._life is not None:
            await self._life.close()

    def _known(self) -> dict[str, object]:
        assert self._life is not None
        self.judge.hear(self._life.store)
        return dict(self.judge.fold(self._life.store))

    async def sweep(self) -> None:
        """Until every endpoint has seen one more complete sweep that began now or later."""
        life = await self.living()
        began = asyncio.get_running_loop().time()
        under_way = {w.name: w.state.sweep for run in life.engine.sources.values() for w in run.endpoints.values()}

        def is_swept(w: WatchedEndpoint) -> bool:
            if w.state.sweep >= under_way[w.name] + 2:  # also where it was uncertain
                return True
            return w.state.last_sweep_began is not None and w.state.last_sweep_began >= began

        def done() -> bool:
            return all(is_swept(w) for run in life.engine.sources.values() for w in run.endpoints.values())

        await life.work(began + SWEEP_TIME, done=done)
        if not done():
            shown = [f"{name} is {one.state}: {one.reason}" for name, one in life.endpoints().items()]
            raise Endless(f"no complete sweep in ten minutes, {self.upstream.calls} calls so far; {shown}")

    async def _pass(self, until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            life = await self.living()
            try:
                await life.work(until)
            except Crash:
                await self._bury()

    async def _restart(self) -> None:
        life = await self.living()
        try:
            await life.close()
            self._life = None
        except Crash:
            await self._bury()
        await self.living()

    async def reconfigure(self, config: Config) -> None:
        """Begin again with another configuration."""
        self.config = config
        await self._restart()

    async def living(self) -> Life:
        """The life that goes on, or the next one."""
        while self._life is None:
            life = self._life = Life(self._path, self.config, self.upstream, self.judge.look)
            try:
                await life.open()
            except Crash:
                await self._bury()
        return self._life

    async def _bury(self) -> None:
        assert self._life is not None
        life, self._life = self._life, None
        await life.bury()
