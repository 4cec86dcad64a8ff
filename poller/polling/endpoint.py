"""One endpoint in memory: its units, its sweep and its guards. Used only on the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from poller.changes.certainty import claims_of
from poller.changes.comparison import RequestTimes
from poller.changes.decision import LatestChanges
from poller.changes.endpoint_rules import EndpointRules
from poller.changes.exemptions import Exemptions
from poller.changes.guards import NoiseDetector, Quarantine, Turnover
from poller.changes.many_missing import Recount
from poller.polling.draft import Draft
from poller.polling.results import Fetched, PollResult
from poller.polling.sweep import SweepProgress
from poller.polling.units import Units
from state.leases import Lease
from state.polls import EndpointState, Opened, UnitState, UnitTimes

MOST_CHANGED: Final = 10_000


class Asking:
    """A request that is under way while its block runs; gives its order."""

    def __init__(self, under_way: dict[str, int], what: str, order: int) -> None:
        self._under_way = under_way
        self._what = what
        self._order = order

    def __enter__(self) -> int:
        self._under_way[self._what] = self._order
        return self._order

    def __exit__(self, *_: object) -> None:
        self._under_way.pop(self._what, None)


class Requests:
    """The requests of one endpoint that are under way, in the order in which they were sent.

    Requests and answers are counted together. The order never depends on a clock, because a wall clock may be set back.
    """

    def __init__(self, *, since: float) -> None:
        self.latest = 0
        self.changed: dict[
            str, int
        ] = {}  # objects that changed while another request was under way: order of the answer
        self.unmodified: dict[str, int] = {}  # by unit: consecutive answers with 304
        self._changed_at: dict[str, float] = {}  # latest objects that changed: when the answer arrived that showed it
        self._since = since  # wall time since when those are known
        self.behind = 0.0  # seconds by which the server's clock is behind this one, by its latest answer
        self._under_way: dict[str, int] = {}
        self._most = MOST_CHANGED  # objects in `changed` before those that no longer matter are dropped

    def next(self) -> int:
        """The order number of the current moment."""
        self.latest += 1
        return self.latest

    def asking(self, what: str) -> Asking:
        """Register a request until its answer is recorded, and give its order."""
        return Asking(self._under_way, what, self.next())

    def changed_among(self, ids: Iterable[str]) -> dict[str, int]:
        """Those of these objects that changed while another request was under way, with the order of the answer."""
        changed = self.changed
        return {one: changed[one] for one in ids if one in changed} if changed else {}

    def latest_changes(self, ids: Iterable[str]) -> LatestChanges:
        """What is remembered of the changes of these objects."""
        return LatestChanges(since=self._since, at={i: self._changed_at[i] for i in ids if i in self._changed_at})

    def remember(self, ids: Sequence[str], asked: RequestTimes) -> None:
        """Remember objects that an answer changed: answers to earlier requests, and copies in caches, may be older."""
        answered_order = asked.answered_order
        self._changed_at.update(dict.fromkeys(ids, asked.answered_at))
        if len(self._changed_at) > MOST_CHANGED:
            self._changed_at, self._since = {}, asked.answered_at
        others = len(self._under_way) > 1
        if others:
            self.changed.update(dict.fromkeys(ids, answered_order))
        if self.changed and (not others or len(self.changed) > self._most):
            oldest = min(self._under_way.values(), default=answered_order)
            self.changed = {i: order for i, order in self.changed.items() if order > oldest}
            self._most = max(MOST_CHANGED, 2 * len(self.changed))


class Guards(msgspec.Struct):
    """The guards that keep one odd answer from causing many events."""

    exemptions: Exemptions
    recount: Recount | None
    quarantine: Quarantine = msgspec.field(default_factory=dict)

    @classmethod
    def load(cls, state: EndpointState) -> Guards:
        """The guards as stored."""
        exemptions = Exemptions.load(state.accepted)
        return cls(exemptions, Recount.load(state.held, state.sweep_began), {**exemptions.quarantine})


class PendingAnswer(msgspec.Struct, eq=False):
    """An answer that waits to be recorded."""

    key: str
    fetched: Fetched
    sweep_waits: bool  # more units will follow: not all parents are known yet
    result: PollResult | None = None
    error: Exception | None = None
    is_left: bool = False  # its poll no longer waits for it
    woken: asyncio.Future[None] | None = None  # set when it is over or has the turn

    @property
    def is_over(self) -> bool:
        """Whether it was recorded or cannot be recorded."""
        return self.result is not None or self.error is not None or self.is_left

    def wake(self) -> None:
        """Wake the poll that waits for it."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


class Turn:
    """Serialises reading and recording of answers of one endpoint; waiting answers are recorded together.

    One of them takes the turn for all and wakes the others when they are over. If more are waiting by then, the first
    of those is next.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # also held by steps that do not record an answer
        self.waiting: deque[PendingAnswer] = deque()
        self.is_stale = False  # memory may differ from the state
        self.looks_up = False  # an object assumed to be new was known: assume no more
        self._taker: PendingAnswer | None = None

    async def join(self, answer: PendingAnswer) -> None:
        """Wait until this answer is over, or takes the turn for all that wait. `leave` follows, even if this raises."""
        self.waiting.append(answer)
        if self._taker is None:
            self._taker = answer
            await asyncio.sleep(0)  # other answers that have arrived join it
        else:
            answer.woken = asyncio.get_running_loop().create_future()
            await answer.woken

    def leave(self, answer: PendingAnswer) -> None:
        """Wait for this answer no longer. If it has the turn, the first of those that wait is next."""
        if not answer.is_over:
            answer.is_left = True
            if answer in self.waiting:
                self.waiting.remove(answer)
        if self._taker is answer:
            self._taker = self.waiting[0] if self.waiting else None
            if self._taker is not None:
                self._taker.wake()


class Oddities:
    """Oddities in the answers of one endpoint: what is shown to operators, and what is remembered to find more."""

    def __init__(self) -> None:
        self.noise = NoiseDetector()
        self.notes: dict[str, str] = {}  # by unit: what was set aside in its latest answer
        self.late_in = 0  # the latest sweep that found changes which no query of recent changes shows

    def note(self, unit: UnitState) -> None:
        """Note what was set aside of a unit's latest answer."""
        if aside := claims_of(unit).aside:
            self.notes[unit.key] = "; ".join(aside)
        else:
            self.notes.pop(unit.key, None)

    def forget(self, unit: str) -> None:
        """Forget a unit that no longer exists."""
        self.noise.forget(unit)
        self.notes.pop(unit, None)


class WatchedEndpoint:
    """One endpoint: its rules, its state, and the progress of its sweep."""

    def __init__(self, rules: EndpointRules, opened: Opened, lease: Lease, *, now: float) -> None:
        self.rules = rules
        self.lease = lease  # lease of its budget: recordings under an older one are refused
        self.turnover = Turnover()
        self.oddities = Oddities()
        self.unchanged: dict[int, UnitTimes] = {}  # unchanged polls that are written with the next transaction
        self.turn = Turn()
        self.requests = Requests(since=now)
        self.load(opened)

    def load(self, opened: Opened) -> None:
        """Replace everything in memory by the stored endpoint."""
        self.state = opened.state
        self.sweeps_decide = opened.has_suspects  # whether complete sweeps may confirm deletions
        self.units = Units(opened.units)
        self.units.invalidate_ends()
        for unit in opened.units:
            self.oddities.note(unit)
        self.guards = Guards.load(opened.state)
        orders = [unit.asked_order for unit in opened.units]
        aside = [one.seen_order for one in self.guards.quarantine.values()]
        self.requests.latest = max(self.requests.latest, opened.state.sweep_order, *orders, *aside, 0)
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
        """Whether the endpoint is a list per parent object."""
        return self.rules.endpoint.parent is not None

    @property
    def in_baseline(self) -> bool:
        """Whether its first complete sweep is still under way."""
        return self.state.baseline_before is not None

    @property
    def has_swept(self) -> bool:
        """Whether a sweep was ever complete, including an uncertain one that did not end the baseline."""
        return self.state.last_sweep is not None or self.state.uncertain is not None

    def begin_sweep(self) -> None:
        """Poll every unit once more."""
        self.sweep = SweepProgress(self.state, self.units)

    def put(self, unit: UnitState) -> None:
        """Add a unit, or replace it after a poll."""
        if unit.key not in self.units:
            self.sweep.wait_for([unit.key])
        self.units.put(unit)

    def forget(self, key: str) -> None:
        """Remove a unit that no longer exists."""
        unit = self.units.drop(key)
        if unit is not None:
            self.unchanged.pop(unit.id, None)
        self.sweep.forget(key)
        self.guards.quarantine.pop(key, None)
        self.requests.unmodified.pop(key, None)
        self.oddities.forget(key)


def exempt(w: WatchedEndpoint, draft: Draft, exemptions: Exemptions) -> None:
    """Set new exemptions, and draft their recording."""
    w.guards.exemptions = exemptions
    draft.marks.accepted = exemptions.dump()


def may_delete(w: WatchedEndpoint) -> bool:
    """Whether deletions are reported at the moment."""
    return w.rules.deletion.deletes and w.guards.recount is None and not w.in_baseline


# What operators see, and what on-demand sweeps check.


def waits_for_others(w: WatchedEndpoint, key: str) -> bool:
    """Whether polling a unit again is useless before others were polled: it was counted, or is set aside."""
    recount, aside = w.guards.recount, w.guards.quarantine.get(key)
    if recount is not None and key in recount.seen:
        return True
    return aside is not None and bool(_not_asked_since(w, aside.seen_order))


def awaited(w: WatchedEndpoint) -> list[str]:
    """Keys of the units that pages set aside wait for."""
    since = max((aside.seen_order for aside in w.guards.quarantine.values()), default=None)
    return [] if since is None else _not_asked_since(w, since)


def _not_asked_since(w: WatchedEndpoint, order: int) -> list[str]:
    swept, aside = w.units.swept(), w.guards.quarantine
    return [key for key, unit in swept.items() if key not in aside and unit.asked_order <= order]


def status_of(w: WatchedEndpoint) -> Mapping[str, Any]:
    """The endpoint's details for the status."""
    shown: dict[str, Any] = {}
    if w.guards.recount is not None and w.state.held is None:
        shown["in_doubt_since"] = w.guards.recount.began
    if w.oddities.notes:
        shown["notes"] = dict(list(w.oddities.notes.items())[:10])
    if w.oddities.noise.candidates:
        shown["ignore_candidates"] = sorted(w.oddities.noise.candidates)
    return shown
