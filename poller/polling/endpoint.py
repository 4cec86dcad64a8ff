"""One endpoint in memory: its units, its sweep, its guards. It belongs to the event loop alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from poller.changes.endpoint_rules import EndpointRules
from poller.changes.exemptions import Exemptions
from poller.changes.guards import NoiseDetector, Quarantine, Turnover
from poller.changes.recount import Recount
from poller.polling.draft import Draft
from poller.polling.results import Fetched, PollResult
from poller.polling.sweep import SweepProgress
from poller.polling.units import Units
from state.leases import Lease
from state.polls import EndpointState, Opened, UnitState, UnitTimes

MOST_CHANGED: Final = 10_000


class Requests:
    """The requests of one endpoint that are under way, in the order in which they left.

    Requests and answers are counted together. No clock takes part: a wall clock may be set back.
    """

    def __init__(self, latest: int) -> None:
        self.latest = latest
        self.changed: dict[str, int] = {}  # objects changed while another request was under way: order of the answer
        self.unmodified: dict[str, int] = {}  # by unit: answers 304 in a row
        self._under_way: dict[str, int] = {}

    def next(self) -> int:
        """The order of what happens now."""
        self.latest += 1
        return self.latest

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[int]:
        """A request is under way, until its answer is recorded. Gives its order."""
        self._under_way[what] = order = self.next()
        try:
            yield order
        finally:
            self._under_way.pop(what, None)

    def remember(self, ids: Iterable[str], answered_order: int) -> None:
        """Objects were changed by an answer: others that are under way may be older."""
        others = len(self._under_way) > 1
        if others:
            self.changed.update(dict.fromkeys(ids, answered_order))
        if self.changed and (not others or len(self.changed) > MOST_CHANGED):
            oldest = min(self._under_way.values(), default=answered_order)
            self.changed = {i: order for i, order in self.changed.items() if order > oldest}


@dataclass(slots=True)
class Guards:
    """What keeps one odd answer from becoming a storm of events."""

    exemptions: Exemptions
    recount: Recount | None
    quarantine: Quarantine = field(default_factory=dict)

    @classmethod
    def load(cls, state: EndpointState) -> Guards:
        """The guards as they are kept."""
        return cls(Exemptions.load(state.accepted), Recount.load(state.held, state.sweep_began))


@dataclass(slots=True, eq=False)
class PendingAnswer:
    """An answer that waits to be recorded."""

    key: str
    fetched: Fetched
    sweep_waits: bool  # more units are to come: the parents are not all known yet
    result: PollResult | None = None
    error: Exception | None = None
    is_left: bool = False  # nobody waits for it any more
    woken: asyncio.Future[None] | None = None  # it is over, or it is its turn

    @property
    def is_over(self) -> bool:
        """Whether it was recorded, or cannot be."""
        return self.result is not None or self.error is not None or self.is_left

    def wake(self) -> None:
        """Let whoever waits for it go on."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


class Turn:
    """Answers of one endpoint take turns between reading and recording; those that wait go together.

    One of them takes the turn for all, and wakes the others once they are over. Where more wait by then, the first of
    those is next.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # for a turn that is no answer's, too
        self.waiting: deque[PendingAnswer] = deque()
        self.is_stale = False  # what is in memory may not be what is kept
        self.looks_up = False  # an object that was taken for a new one was known: no more are taken so
        self._taker: PendingAnswer | None = None

    @contextlib.asynccontextmanager
    async def joined(self, answer: PendingAnswer) -> AsyncIterator[None]:
        """Wait with the others until this answer is over, or is the one that takes the turn for all that wait."""
        self.waiting.append(answer)
        try:
            if self._taker is None:
                self._taker = answer
                await asyncio.sleep(0)  # what else has been answered by now goes with it
            else:
                answer.woken = asyncio.get_running_loop().create_future()
                await answer.woken
            yield
        finally:
            if not answer.is_over:
                answer.is_left = True
                if answer in self.waiting:
                    self.waiting.remove(answer)
            if self._taker is answer:
                self._taker = self.waiting[0] if self.waiting else None
                if self._taker is not None:
                    self._taker.wake()


class Oddities:
    """What is odd in the answers of one endpoint, for an operator to see."""

    def __init__(self) -> None:
        self.noise = NoiseDetector()
        self.notes: dict[str, str] = {}  # by unit: what its latest answer had that was set aside

    def forget(self, unit: str) -> None:
        """Know nothing of a unit that is gone."""
        self.noise.forget(unit)
        self.notes.pop(unit, None)


class WatchedEndpoint:
    """One endpoint: what it means, what is known of it, and how its current sweep goes."""

    def __init__(self, rules: EndpointRules, opened: Opened, lease: Lease) -> None:
        self.rules = rules
        self.lease = lease  # of its budget: what is recorded under an older one is refused
        self.turnover = Turnover()
        self.oddities = Oddities()
        self.unchanged: dict[int, UnitTimes] = {}  # polls that are still to be written, with whatever is written next
        self.turn = Turn()
        self.requests = Requests(0)
        self.load(opened)

    def load(self, opened: Opened) -> None:
        """Know what is kept of the endpoint, and nothing else."""
        self.state = opened.state
        self.sweeps_decide = opened.has_suspects  # whether what is missing may be confirmed by complete sweeps
        self.units = Units(opened.units)
        self.guards = Guards.load(opened.state)
        orders = [unit.asked_order for unit in opened.units]
        self.requests.latest = max(self.requests.latest, opened.state.sweep_order, *orders, 0)
        self.sweep = SweepProgress(opened.state, self.units)
        if any(order >= opened.state.sweep_order for order in orders):
            self.sweep.interrupt()

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.rules.endpoint.name

    @property
    def label(self) -> str:
        """Source and endpoint, as messages name them."""
        return f"{self.state.source}/{self.name}"

    @property
    def is_child(self) -> bool:
        """Whether it is a list per parent object."""
        return self.rules.endpoint.parent is not None

    @property
    def in_baseline(self) -> bool:
        """Whether its first complete sweep is still under way."""
        return self.state.baseline_before is not None

    @property
    def has_swept(self) -> bool:
        """Whether a sweep has been complete, be it an uncertain one that ended no baseline."""
        return self.state.last_sweep is not None or self.state.uncertain is not None

    def begin_sweep(self) -> None:
        """Poll every unit once more."""
        self.sweep = SweepProgress(self.state, self.units)

    def put(self, unit: UnitState) -> None:
        """Know a unit, new or as it is after a poll."""
        if unit.key not in self.units:
            self.sweep.wait_for([unit.key])
        self.units.put(unit)

    def forget(self, key: str) -> None:
        """Drop a unit that is no more."""
        unit = self.units.drop(key)
        if unit is not None:
            self.unchanged.pop(unit.id, None)
        self.sweep.forget(key)
        self.guards.quarantine.pop(key, None)
        self.requests.unmodified.pop(key, None)
        self.oddities.forget(key)


def exempt(w: WatchedEndpoint, draft: Draft, exemptions: Exemptions) -> None:
    """Know new exemptions, and record them."""
    w.guards.exemptions = exemptions
    draft.marks.accepted = exemptions.dump()


def may_delete(w: WatchedEndpoint) -> bool:
    """Whether deletions are reported at all now."""
    return w.rules.deletion.deletes and w.guards.recount is None and not w.in_baseline


# What an operator must see, and what sweeps on command look at.


def waits_for_others(w: WatchedEndpoint, key: str) -> bool:
    """Whether asking a unit again is of no use before others were asked: it is counted, or kept aside."""
    recount, aside = w.guards.recount, w.guards.quarantine.get(key)
    if recount is not None and key in recount.seen:
        return True
    return aside is not None and bool(_not_asked_since(w, aside.seen_order))


def awaited(w: WatchedEndpoint) -> list[str]:
    """Keys of the units that pages kept aside wait for."""
    since = max((aside.seen_order for aside in w.guards.quarantine.values()), default=None)
    return [] if since is None else _not_asked_since(w, since)


def _not_asked_since(w: WatchedEndpoint, order: int) -> list[str]:
    swept, aside = w.units.swept(), w.guards.quarantine
    return [key for key, unit in swept.items() if key not in aside and unit.asked_order <= order]


def status_of(w: WatchedEndpoint) -> Mapping[str, Any]:
    """What an operator must see of an endpoint."""
    shown: dict[str, Any] = {}
    if w.guards.recount is not None and w.state.held is None:
        shown["in_doubt_since"] = w.guards.recount.began
    if w.guards.quarantine:
        shown["aside"] = {key: dict(aside.shift.fields) for key, aside in w.guards.quarantine.items()}
    if w.oddities.notes:
        shown["notes"] = dict(list(w.oddities.notes.items())[:10])
    if w.oddities.noise.candidates:
        shown["ignore_candidates"] = sorted(w.oddities.noise.candidates)
    return shown
