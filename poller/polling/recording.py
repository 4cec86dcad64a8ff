"""One answer settled: what is known is read, decided upon and recorded, as one step on the store's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import structs

from poller.changes.decide import Context, Decision, decide, delete, is_known
from poller.changes.page import Reading, digest_of, gathered, read
from poller.polling.endpoint import SINCE, Seen, Watching, dump_position, key_of
from poller.polling.holds import STRANGERS, Guarding
from poller.polling.results import Answer, Asked, Outcome
from poller.sources.protocol import Position, Unparsed
from state.polls import Presence, Recording, Snapshot, Suspect, Sweep, UnitState
from state.sqlite.polls import Polls

SWEEPS_TO_CONFIRM = 3  # the one in which it went missing, then two complete ones without it


class _Poll(msgspec.Struct, frozen=True, kw_only=True):
    """One answer together with what is known of its unit."""

    w: Watching
    unit: UnitState
    answer: Answer
    reading: Reading
    known: dict[str, Snapshot]
    outcome: Outcome
    waits: bool

    @property
    def following(self) -> Position | None:
        """Where the list goes on."""
        return self.answer.pages[-1].next if self.answer.pages else None

    @property
    def is_paged(self) -> bool:
        """The unit is one page of the list: others come before and behind it."""
        return self.w.sweeps(self.unit.key) and not self.w.is_child

    @property
    def dropped(self) -> list[str]:
        """Units behind a page that says that it is the last."""
        return self.w.beyond(self.unit.key) if self.is_paged and self.following is None else []


class Settling:
    """Settles answers of one state. Only ever called on the store's thread."""

    def __init__(self, polls: Polls) -> None:
        self._polls = polls
        self.guarding = Guarding(polls)

    def settle(self, w: Watching, key: str, answer: Answer, *, waits: bool = False) -> Outcome:
        """Record what a poll of the unit showed. `waits`: the parent's first sweep is not complete yet."""
        outcome = Outcome(calls=answer.calls, baseline=w.in_baseline)
        unit = w.units.get(key)
        if unit is None or unit.id != answer.unit or (unit.asked_at is not None and answer.asked.at < unit.asked_at):
            outcome.aside = True  # the unit is no more, or a later answer is known
        elif answer.pages is None:
            self._unchanged(w, unit, answer, outcome, waits=waits)
        else:
            with self._polls.transaction():
                self._shown(w, unit, answer, answer.pages, outcome, waits=waits)
        return outcome

    @staticmethod
    def writes_nothing(w: Watching, key: str, answer: Answer) -> bool:
        """Whether settling it is a matter of memory: the unit shows what it showed before, and no sweep ends by it."""
        unit = w.units.get(key)
        return (
            unit is not None
            and answer.pages is None
            and w.doubt is None
            and key != SINCE
            and (unit.next is not None or w.is_child)
            and not w.pending <= {key}
        )

    def _unchanged(self, w: Watching, unit: UnitState, answer: Answer, outcome: Outcome, *, waits: bool) -> None:
        if answer.digest is None or answer.digest != unit.digest:
            outcome.aside = True  # what it was compared with is not what is known by now
            return
        if w.doubt is not None:
            members = self._polls.members(unit.id)
            self.guarding.count(w, unit.key, members.values(), answer, outcome)
            return
        now = structs.replace(
            unit,
            asked_at=answer.asked.at,
            answered_at=answer.asked.answered_at,
            failures=0,
            retry_at=None,
            error=None,
        )
        w.noise.observe(unit.key, 1, ())
        w.aside.pop(unit.key, None)
        seen = _seen(now, answer, confirms=bool(unit.shown) or unit.next is None)
        is_tail = unit.next is None and w.sweeps(unit.key) and not w.is_child and unit.shown > 0
        recording = Recording(
            endpoint=w.state.id,
            tail_asked_at=answer.asked.at if is_tail else None,
            since_at=answer.asked.at if unit.key == SINCE else None,
        )
        self._polls.touch(unit.id, answer.asked.at, answer.asked.answered_at)
        self._write(w, now, seen, recording, outcome, waits=waits)

    def _shown(
        self, w: Watching, unit: UnitState, answer: Answer, pages: Sequence[Unparsed], outcome: Outcome, *, waits: bool
    ) -> None:
        before = self._polls.members(unit.id) if unit.shown else {}
        reading = read(w.watch, gathered(w.watch, pages), before)
        if not w.sweeps(unit.key) or not answer.complete:
            reading = structs.replace(reading, missing=())
        known = self._polls.known(w.state.id, [shown.object_id for shown in reading.fresh])
        outcome.notes += reading.notes
        poll = _Poll(w=w, unit=unit, answer=answer, reading=reading, known=known, outcome=outcome, waits=waits)
        is_strange = self.guarding.is_strange(w, reading, len(before), known)
        if (
            w.doubt is not None
            or self.guarding.is_doubtful(w, reading, poll.dropped)
            or (is_strange and self.guarding.others_agree(w, unit.key, STRANGERS))
        ):
            self.guarding.count(w, unit.key, reading.members.values(), answer, outcome)
        elif (decision := self._decide(poll, is_strange=is_strange)) is not None:
            self._record(poll, decision)

    def _decide(self, poll: _Poll, *, is_strange: bool) -> Decision | None:
        """What the answer changes. None: it is kept aside."""
        w, key = poll.w, poll.unit.key
        decision = decide(w.watch, poll.reading, poll.known, self._context(poll))
        shift = STRANGERS if is_strange else decision.shift
        if shift is not None and self.guarding.sets_aside(w, key, shift, poll.answer):
            poll.outcome.aside = True
            return None
        if (decision.shift is not None or w.aside) and self.guarding.agreed(
            w, key, poll.reading, poll.known, decision, poll.answer, poll.outcome
        ):
            return decide(w.watch, poll.reading, poll.known, self._context(poll))
        return decision

    def _context(self, poll: _Poll) -> Context:
        w, unit = poll.w, poll.unit
        return Context(
            state=w.state,
            unit=unit.id if w.sweeps(unit.key) else None,
            asked=poll.answer.asked,
            absent_since=_absent_since(w, unit),
            appended=_appended(poll),
            tail_since=w.state.tail_asked_at,
            accepted=w.shift,
            nulled=w.trust.nulled,
            recent=w.recent,
        )

    def _record(self, poll: _Poll, decision: Decision) -> None:
        w, unit, answer, reading, outcome = poll.w, poll.unit, poll.answer, poll.reading, poll.outcome
        members = _without(decision.undecided, reading.members)
        whole = not (reading.unsure or reading.is_partial)
        certain = whole and not decision.undecided
        following = poll.following if poll.is_paged else None
        behind = None if following is None else dump_position(following)
        now = structs.replace(
            unit,
            asked_at=answer.asked.at,
            answered_at=answer.asked.answered_at,
            digest=answer.digest if certain else None,
            shown=len(members),
            validators=answer.validators if certain else None,
            next=behind,
            calls=answer.calls,
            failures=0,
            retry_at=None,
            error=None,
        )
        outcome.dropped += poll.dropped
        if following is not None and (new := key_of(following)) not in w.units:
            outcome.added.append(new)
            outcome.heirs.append((new, unit.key))
        outcome.changed, outcome.missing = decision.changed, bool(reading.missing or outcome.dropped)
        recording = Recording(
            endpoint=w.state.id,
            unit=now,
            members=members if w.sweeps(unit.key) else {},
            vouches=w.sweeps(unit.key),
            growth=_growth(decision.snapshots, poll.known),
            snapshots=decision.snapshots,
            claimed=decision.claimed,
            moved_from=decision.moved_from,
            missing=reading.missing,
            unsure=reading.unsure if w.sweeps(unit.key) else (),
            dropped=tuple(outcome.dropped),
            events=decision.events,
            tail_asked_at=answer.asked.at if behind is None and poll.is_paged and whole and now.shown else None,
            new_units=[(key, behind) for key in outcome.added if behind is not None],
            since_at=answer.asked.at if unit.key == SINCE else None,
        )
        seen = _seen(
            now,
            answer,
            added=outcome.added,
            dropped=outcome.dropped,
            steady=whole and not (decision.moves or reading.missing or outcome.dropped),
            confirms=not reading.is_partial and (bool(reading.members) or behind is None),
        )
        self._write(w, now, seen, recording, outcome, waits=poll.waits)
        w.aside.pop(unit.key, None)
        w.robbed(decision.moved_from)
        self._tell(poll, decision)

    def _write(
        self, w: Watching, now: UnitState, seen: Seen, recording: Recording, outcome: Outcome, *, waits: bool
    ) -> None:
        """Record it, and only then know it."""
        sweep = w.sweep_ends(seen, waits=waits)
        if sweep is not None:
            recording = structs.replace(recording, sweep=sweep)
        new: Sequence[UnitState] = ()
        if recording.unit is not None or recording.changes_objects or recording.changes_marks:
            recorded = self._polls.record(recording)
            outcome.events += recorded.events
            new = recorded.units
        w.see(seen)
        w.put(now)
        for key in seen.dropped:
            w.forget(key)
        for unit in new:
            w.put(unit)
        if recording.changes_marks:
            w.state = self._polls.endpoint(w.state.id)
        elif recording.growth:
            w.state = structs.replace(w.state, objects=w.state.objects + recording.growth)
        if sweep is not None:
            outcome.swept = True
            w.begin_sweep()

    @staticmethod
    def _tell(poll: _Poll, decision: Decision) -> None:
        w, key, reading, outcome = poll.w, poll.unit.key, poll.reading, poll.outcome
        notes = [*reading.notes, *dict.fromkeys(decision.notes)]
        outcome.notes += decision.notes[:1]
        if notes:
            w.notes[key] = "; ".join(notes)
        else:
            w.notes.pop(key, None)
        outcome.noisy = w.noise.observe(key, len(reading.members), decision.updates)
        outcome.snapshots = decision.snapshots
        w.remember((snapshot.object_id for snapshot in decision.snapshots), poll.answer.asked.answered_at)

    def shows_nothing_new(self, w: Watching, page: Unparsed) -> bool:
        """Whether every object of the page is known just as it is: a newest-first list has no news behind it."""
        reading = read(w.watch, page.objects, {})
        known = self._polls.known(w.state.id, [shown.object_id for shown in reading.fresh])
        return bool(reading.fresh) and all(
            is_known(w.watch, shown, known.get(shown.object_id)) for shown in reading.fresh
        )

    # Deletions: confirmed one by one, or by sweeps.

    def deletable(self, w: Watching) -> list[Suspect]:
        """Suspects that two complete sweeps begun after they went missing have not shown."""
        if not self.may_delete(w):
            return []
        return [s for s in self._polls.suspects(w.state.id) if s.missing_sweep + SWEEPS_TO_CONFIRM <= w.state.sweep]

    @staticmethod
    def may_delete(w: Watching) -> bool:
        """Whether deletions are told at all now."""
        return w.watch.deletes and w.doubt is None and not w.in_baseline

    def delete(self, w: Watching, suspect: Suspect, asked: Asked) -> Outcome:
        """Record a confirmed deletion, unless the object was seen meanwhile or too many are gone at once."""
        outcome = Outcome(calls=1)
        object_id = suspect.snapshot.object_id
        now = self._polls.known(w.state.id, [object_id]).get(object_id)
        if (
            not self.may_delete(w)
            or now is None
            or now.presence is not Presence.SUSPECT
            or w.recent.get(object_id, 0.0) > asked.at
        ):
            return outcome
        if self.guarding.holds_deletion(w, asked, outcome):
            return outcome
        decision = delete(w.watch, structs.replace(suspect, snapshot=now), asked)
        recording = Recording(
            endpoint=w.state.id,
            growth=_growth(decision.snapshots, {object_id: now}),
            snapshots=decision.snapshots,
            events=decision.events,
        )
        outcome.events += self._polls.record(recording).events
        outcome.changed, outcome.snapshots = 1, decision.snapshots
        w.deletions.append(asked.answered_at)
        w.remember([object_id], asked.answered_at)
        w.state = self._polls.endpoint(w.state.id)
        return outcome

    def still_there(self, w: Watching, suspect: Suspect) -> None:
        """The object's own URL answers."""
        self._polls.still_there(w.state.id, suspect.snapshot.object_id, checks=suspect.checks + 1)

    def begin_sweep(self, w: Watching, now: float) -> None:
        """Begin the sweep anew, now: every unit is to be polled after it."""
        self._polls.begin_sweep(w.state.id, now=now)
        w.state = self._polls.endpoint(w.state.id)
        w.begin_sweep()
        if w.doubt is not None:
            w.doubt.seen.clear()

    def end_sweep(self, w: Watching, sweep: Sweep) -> None:
        """End a sweep that had nothing to ask for."""
        w.state = self._polls.end_sweep(w.state.id, sweep)
        w.begin_sweep()


def _seen(
    now: UnitState,
    answer: Answer,
    *,
    added: Sequence[str] = (),
    dropped: Sequence[str] = (),
    steady: bool = True,
    confirms: bool = True,
) -> Seen:
    return Seen(
        key=now.key,
        asked_at=answer.asked.at,
        answered_at=answer.asked.answered_at,
        added=added,
        dropped=dropped,
        steady=steady,
        confirms=confirms,
        nonempty=now.shown > 0,
    )


def _without(undecided: Mapping[bytes, bool], members: dict[bytes, str]) -> dict[bytes, str]:
    """The members, without the digests of objects to be looked at again. Of its own ones the unit keeps the ids, or it
    would not be missed if they were gone by then."""
    if not undecided:
        return members
    return {
        digest_of(digest) if digest in undecided else digest: object_id
        for digest, object_id in members.items()
        if undecided.get(digest, True)
    }


def _growth(snapshots: Sequence[Snapshot], known: Mapping[str, Snapshot]) -> int:
    """How many more objects are there once these are written."""
    before = [known[one.object_id] for one in snapshots if one.object_id in known] if known else ()
    return _present(snapshots) - _present(before)


def _present(snapshots: Sequence[Snapshot]) -> int:
    deleted = Presence.DELETED
    return len([one for one in snapshots if one.presence is not deleted])


def _absent_since(w: Watching, unit: UnitState) -> float | None:
    """When an object that is not known yet was certainly not there.

    One answer is one moment: what a list in one answer did not show was not there. A list of several pages shifts while
    it is read.
    """
    whole = unit if w.is_child else w.only_unit
    if whole is not None and whole.digest is not None and whole.calls == 1 and whole.next is None:
        return whole.asked_at
    return None if w.is_child and unit.asked_at is None else w.state.steady_began


def _appended(poll: _Poll) -> frozenset[str]:
    """New objects behind which the list shows no known one, where new ones are appended."""
    w = poll.w
    if w.watch.endpoint.order != "id" or not poll.is_paged:
        return frozenset()
    if poll.following is not None:
        behind = w.units.get(key_of(poll.following))
        if behind is not None and behind.asked_at is not None:
            return frozenset()
    new = {shown.object_id for shown in poll.reading.fresh} - poll.known.keys()
    appended = set()
    for object_id in reversed(poll.reading.members.values()):
        if object_id not in new:
            break
        appended.add(object_id)
    return frozenset(appended)


def chain_digest(digests: Sequence[bytes]) -> bytes:
    """One digest for all the answers of a chain."""
    return digests[0] if len(digests) == 1 else digest_of(b"".join(digests))
