"""One answer settled: what is known is read, decided upon and recorded, as one step on the store's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import orjson

from poller.deciding import Asked, Context, Decision, Reading, decide, delete, digest_of, read
from poller.diff import fingerprint
from poller.events import notice
from poller.guards import AT_LEAST_DELETED, HOUR, ShapeShift, agree, is_mass_deletion, shape_shift
from poller.sources import Page, Position
from poller.watching import SINCE, Aside, Doubt, Trust, Watching, dump_position, key_of
from state.polls import Presence, Recording, Snapshot, Suspect, Sweep, UnitState
from state.records import NewEvent
from state.sqlite.polls import Polls

SWEEPS_TO_CONFIRM = 3  # begun while it was there, then two complete ones without it


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What asking for one unit brought. No pages: it is just what the unit showed before."""

    asked: Asked
    calls: int
    pages: Sequence[Page] | None = None
    digest: bytes | None = None
    validators: bytes | None = None
    complete: bool = True  # False: a newest-first list was read up to what is known


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one poll, for planner, log and status."""

    changed: int = 0
    calls: int = 0
    events: list[int] = field(default_factory=list)
    added: list[str] = field(default_factory=list)  # keys of units that appeared
    dropped: list[str] = field(default_factory=list)
    heirs: list[tuple[str, str]] = field(default_factory=list)  # (new last page, the one before)
    swept: bool = False
    aside: bool = False  # nothing was recorded: it waits for other pages
    touched: list[str] = field(default_factory=list)  # ids of objects created, restored or updated
    gone: list[str] = field(default_factory=list)  # ids of objects deleted
    missing: bool = False  # objects went missing: suspects
    notes: list[str] = field(default_factory=list)
    noisy: tuple[str, ...] = ()  # fields that are candidates for `ignore` from now on


class Settling:
    """Settles answers of one state. Only ever called on the store's thread."""

    def __init__(self, polls: Polls) -> None:
        self._polls = polls

    def settle(self, w: Watching, key: str, answer: Answer, *, waits: bool = False) -> Outcome:
        """Record what a poll of the unit showed. `waits`: the parent's first sweep is not complete yet."""
        unit = w.units[key]
        outcome = Outcome(calls=answer.calls)
        if answer.pages is None:
            self._unchanged(w, unit, answer, outcome, waits=waits)
            return outcome
        before = self._polls.unit(w.state.id, key, unit.position)
        reading = read(w.watch, chain.from_iterable(page.objects for page in answer.pages), before.members)
        if not w.sweeps(key) or not answer.complete:
            reading = replace(reading, missing=())
        known = self._polls.known(w.state.id, [shown.object_id for shown in reading.fresh])
        outcome.notes += reading.notes
        if w.doubt is not None or self._is_doubtful(w, reading):
            self._while_in_doubt(w, key, reading, known, answer, outcome)
            return outcome
        decision = decide(w.watch, reading, known, self._context(w, unit, reading, known, answer))
        if decision.shift is not None and self._sets_aside(w, key, decision.shift, answer):
            outcome.aside = True
            return outcome
        if decision.shift is not None or w.aside:
            decision = self._agreed(w, key, reading, known, answer, decision, outcome)
        self._record(w, key, reading, decision, answer, outcome, waits=waits)
        return outcome

    # The usual way: what an answer shows is recorded.

    def _unchanged(self, w: Watching, unit: UnitState, answer: Answer, outcome: Outcome, *, waits: bool) -> None:
        now = replace(unit, asked_at=answer.asked.at, answered_at=answer.asked.answered_at, error=None, failures=0)
        if w.doubt is not None:
            members = self._polls.unit(w.state.id, unit.key, unit.position).members
            w.doubt.seen[unit.key] = len(set(members.values()))
            self._judge_doubt(w, answer.asked, outcome)
            return
        w.nonempty = w.nonempty or unit.digest is not None
        w.noise.observe(unit.key, 1, ())
        w.aside.pop(unit.key, None)
        self._write(
            w,
            unit.key,
            now,
            Recording(
                endpoint=w.state.id,
                revision=w.state.revision,
                unit=now,
                touched=True,
                tail=unit.next is None and w.sweeps(unit.key),
            ),
            answer,
            outcome,
            waits=waits,
        )

    def _context(
        self, w: Watching, unit: UnitState, reading: Reading, known: dict[str, Snapshot], answer: Answer
    ) -> Context:
        return Context(
            state=w.state,
            unit=unit.id if w.sweeps(unit.key) else None,
            asked=answer.asked,
            absent_since=w.state.steady_began,
            appended=self._appended(w, reading, known, answer),
            tail_since=w.state.tail_asked_at,
            accepted=w.shift,
            recent=w.recent,
        )

    @staticmethod
    def _appended(w: Watching, reading: Reading, known: dict[str, Snapshot], answer: Answer) -> frozenset[str]:
        """New objects behind which the list shows no known one."""
        if w.watch.endpoint.order != "id" or w.is_child or not answer.pages:
            return frozenset()
        following = answer.pages[-1].next
        if following is not None:
            behind = w.units.get(key_of(following))
            if behind is not None and behind.asked_at is not None:
                return frozenset()
        new = {shown.object_id for shown in reading.fresh} - known.keys()
        appended = set()
        for object_id in reversed(reading.members.values()):
            if object_id not in new:
                break
            appended.add(object_id)
        return frozenset(appended)

    def _record(
        self,
        w: Watching,
        key: str,
        reading: Reading,
        decision: Decision,
        answer: Answer,
        outcome: Outcome,
        *,
        waits: bool,
    ) -> None:
        unit, pages = w.units[key], answer.pages or ()
        following = pages[-1].next if pages else None
        chained = w.is_child or not w.sweeps(key)
        for digest in decision.undecided:
            reading.members.pop(digest, None)
        missing = set(reading.missing) - {shown.object_id for shown in reading.fresh}
        now = replace(
            unit,
            asked_at=answer.asked.at,
            answered_at=answer.asked.answered_at,
            digest=answer.digest if not decision.undecided else None,
            members=reading.members if w.sweeps(key) else {},
            validators=answer.validators if not decision.undecided else None,
            next=None if following is None or chained else dump_position(following),
            calls=answer.calls,
            failures=0,
            retry_at=None,
            error=None,
        )
        if not chained:
            self._follow(w, key, following, outcome)
            if not reading.members and following is not None:
                w.confirms = False
        if decision.moves or missing:
            w.steady = False
        w.nonempty = w.nonempty or bool(reading.members)
        w.aside.pop(key, None)
        w.robbed(decision.moved_from)
        self._tell_notes(w, key, reading, decision, outcome)
        recording = Recording(
            endpoint=w.state.id,
            revision=w.state.revision,
            unit=now,
            vouches=w.sweeps(key),
            snapshots=decision.snapshots,
            claimed=decision.claimed,
            moved_from=decision.moved_from,
            missing=tuple(missing),
            events=decision.events,
            tail=now.next is None and not chained,
            new_units=self._new_units(following, outcome),
            since_at=answer.asked.at if key == SINCE else None,
        )
        outcome.changed, outcome.missing = decision.changed, bool(missing or outcome.dropped)
        self._note_objects(w, decision, answer, outcome)
        self._write(w, key, now, recording, answer, outcome, waits=waits)

    def _write(
        self,
        w: Watching,
        key: str,
        now: UnitState,
        recording: Recording,
        answer: Answer,
        outcome: Outcome,
        *,
        waits: bool,
    ) -> None:
        w.put(now)
        for unit in recording.new_units:
            w.expect(unit[0])
        sweep = w.sweep_done(key, answer.asked.at, answer.asked.answered_at, waits=waits)
        outcome.events += self._polls.record(replace(recording, sweep=sweep) if sweep else recording)
        for new, position in recording.new_units:
            w.put(self._polls.unit(w.state.id, new, position))
        if sweep is not None:
            outcome.swept = True
            self._refresh(w)
            w.begin_sweep()
        elif recording.snapshots or recording.claimed or recording.missing or recording.tail or recording.since_at:
            self._refresh(w)

    def _refresh(self, w: Watching) -> None:
        w.state = self._polls.endpoint(w.state.id)

    def _follow(self, w: Watching, key: str, following: Position | None, outcome: Outcome) -> None:
        """Units appear behind a page that says that more follows, and go where it says that it is the last."""
        if following is None:
            dropped = w.beyond(key)
            if dropped:
                self._drop(w, dropped, outcome)
        elif (new := key_of(following)) not in w.units:
            outcome.added.append(new)
            outcome.heirs.append((new, key))

    @staticmethod
    def _new_units(following: Position | None, outcome: Outcome) -> tuple[tuple[str, bytes], ...]:
        return tuple((key, dump_position(following)) for key in outcome.added if following is not None)

    def _drop(self, w: Watching, keys: list[str], outcome: Outcome) -> None:
        self._polls.drop_units(w.state.id, keys, now=w.state.sweep_began)
        for key in keys:
            w.forget(key)
        w.steady = False
        outcome.dropped += keys

    @staticmethod
    def _tell_notes(w: Watching, key: str, reading: Reading, decision: Decision, outcome: Outcome) -> None:
        notes = [*reading.notes, *dict.fromkeys(decision.notes)]
        outcome.notes += decision.notes[:1]
        if notes:
            w.notes[key] = "; ".join(notes)
        else:
            w.notes.pop(key, None)
        outcome.noisy = w.noise.observe(key, len(reading.members), decision.updates)

    @staticmethod
    def _note_objects(w: Watching, decision: Decision, answer: Answer, outcome: Outcome) -> None:
        told = [snapshot for snapshot in decision.snapshots if snapshot.version or w.in_baseline]
        outcome.touched = [s.object_id for s in decision.snapshots if s.presence is Presence.PRESENT]
        outcome.gone = [s.object_id for s in decision.snapshots if s.presence is Presence.DELETED]
        w.remember((snapshot.object_id for snapshot in told), answer.asked.answered_at)

    def shows_nothing_new(self, w: Watching, page: Page) -> bool:
        """Whether every object of the page is known just as it is: a newest-first list has no news behind it."""
        reading = read(w.watch, page.objects, {})
        known = self._polls.known(w.state.id, [shown.object_id for shown in reading.fresh])
        return bool(reading.fresh) and all(
            (old := known.get(shown.object_id)) is not None
            and old.presence is not Presence.DELETED
            and old.digest == fingerprint(shown.object, w.watch.rules)
            for shown in reading.fresh
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
        if now is None or now.presence is not Presence.SUSPECT or w.recent.get(object_id, 0.0) > asked.at:
            return outcome
        if not w.trusts_deletions and self._is_mass_deletion(w, asked.answered_at):
            self._hold(w, asked, outcome)
            return outcome
        decision = delete(w.watch, replace(suspect, snapshot=now), asked)
        recording = Recording(
            endpoint=w.state.id,
            revision=w.state.revision,
            unit=None,
            snapshots=decision.snapshots,
            events=decision.events,
        )
        outcome.events += self._polls.record(recording)
        outcome.changed, outcome.gone = 1, [object_id]
        w.deletions.append(asked.answered_at)
        w.remember([object_id], asked.answered_at)
        self._refresh(w)
        return outcome

    def still_there(self, w: Watching, suspect: Suspect, asked: Asked) -> None:
        """The object's own URL answers."""
        self._polls.still_there(w.state.id, suspect.snapshot.object_id, seen_at=asked.at, checks=suspect.checks + 1)

    def _is_mass_deletion(self, w: Watching, now: float) -> bool:
        while w.deletions and w.deletions[0] <= now - HOUR:
            w.deletions.popleft()
        if len(w.deletions) + 1 < AT_LEAST_DELETED:
            return False
        objects, _ = self._polls.census(w.state.id)
        return is_mass_deletion(objects - 1, [*w.deletions, now], now)

    # Guards: too much missing at once, or a change of form.

    def _is_doubtful(self, w: Watching, reading: Reading) -> bool:
        if not reading.missing or w.in_baseline or not w.watch.deletes or w.trusts_deletions:
            return False
        missing = len(reading.missing) + self._polls.suspect_count(w.state.id)
        return missing >= AT_LEAST_DELETED and missing * 2 > self._polls.census(w.state.id)[0]

    def _while_in_doubt(
        self, w: Watching, key: str, reading: Reading, known: dict[str, Snapshot], answer: Answer, outcome: Outcome
    ) -> None:
        """Count what the unit shows of what is known; record nothing but units that appear."""
        if w.doubt is None:
            w.doubt = Doubt(answer.asked.at)
        outcome.aside = True
        fresh = {shown.digest for shown in reading.fresh}
        kept = sum(1 for digest in reading.members if digest not in fresh)
        back = sum(1 for snapshot in known.values() if snapshot.presence is not Presence.DELETED)
        if w.sweeps(key):
            w.doubt.seen[key] = kept + back
            following = answer.pages[-1].next if answer.pages else None
            if following is not None and not w.is_child:
                self._follow(w, key, following, outcome)
                for new, position in self._new_units(following, outcome):
                    w.put(self._polls.unit(w.state.id, new, position))
        self._judge_doubt(w, answer.asked, outcome)

    def _judge_doubt(self, w: Watching, asked: Asked, outcome: Outcome) -> None:
        """Once every unit was asked again: too much is gone (hold), or it is all there (go on)."""
        doubt = w.doubt
        if doubt is None:
            return
        end = {key for key, unit in w.units.items() if w.sweeps(key) and key not in doubt.seen}
        if end:
            return
        objects, _ = self._polls.census(w.state.id)
        gone = objects - sum(doubt.seen.values())
        if gone >= AT_LEAST_DELETED and gone * 2 > objects:
            doubt.seen.clear()
            if w.state.held is None:
                self._hold(w, asked, outcome, gone=gone, objects=objects)
            return
        self.release(w, asked.answered_at, outcome, why="what was missing is shown again")

    def _hold(
        self, w: Watching, asked: Asked, outcome: Outcome, *, gone: int | None = None, objects: int | None = None
    ) -> None:
        known, suspects = self._polls.census(w.state.id)
        detail: dict[str, object] = {
            "known": known if objects is None else objects,
            "gone": (suspects + len(w.deletions)) if gone is None else gone,
            "since": asked.answered_at,
        }
        w.doubt = Doubt(asked.answered_at)
        self._polls.hold(w.state.id, orjson.dumps(detail))
        self._refresh(w)
        outcome.events += self.tell(
            w,
            "endpoint.held",
            f"{detail['gone']} of {detail['known']} objects of {w.label} are gone at once: nothing is recorded until "
            f"they are back or `poller release {w.label} --accept` or `--emit` decides",
            detail,
            asked.answered_at,
        )

    def hold(self, w: Watching, now: float) -> Outcome:
        """Hold the endpoint on command."""
        outcome = Outcome()
        if w.state.held is None:
            self._hold(w, Asked(at=now, answered_at=now), outcome)
        return outcome

    def release(
        self, w: Watching, now: float, outcome: Outcome, *, why: str, accept: bool = False, emit: bool = False
    ) -> None:
        """End a hold: `accept` takes the new state silently, `emit` tells it; neither: it is as it was."""
        was_held = w.state.held is not None
        w.doubt = None
        if was_held:
            self._polls.hold(w.state.id, None)
            self._refresh(w)
            outcome.events += self.tell(w, "endpoint.released", f"{w.label} is released: {why}", {"why": why}, now)
        if accept:
            self.rebaseline(w, now, outcome)
        else:
            self._trust(w, replace(w.trust, deletions_until=w.state.sweep + (SWEEPS_TO_CONFIRM + 1 if emit else 1)))
        w.deletions.clear()

    def rebaseline(self, w: Watching, now: float, outcome: Outcome) -> None:
        """Take whatever the next sweep shows, without events of its objects."""
        first = min(w.units.values(), key=lambda unit: unit.id, default=None)
        outcome.dropped += list(w.units)
        w.state = self._polls.rebaseline(w.state.id, now=now)
        w.units.clear()
        w.keys.clear()
        w.aside.clear()
        w.doubt = None
        w.trust = Trust()
        if first is not None and not w.is_child:
            w.put(self._polls.unit(w.state.id, first.key, first.position))
            outcome.added.append(first.key)
        w.begin_sweep()
        self.say_rebaselined(w, now, outcome)

    def say_rebaselined(self, w: Watching, now: float, outcome: Outcome) -> None:
        """Log that a new baseline begins."""
        outcome.events += self.tell(
            w,
            "endpoint.rebaselined",
            f"{w.label} begins a new baseline: its next sweep is taken without events",
            {},
            now,
        )

    def begin_sweep(self, w: Watching, now: float) -> None:
        """Begin the sweep anew, now: every unit is to be polled after it."""
        self._polls.begin_sweep(w.state.id, now=now)
        self._refresh(w)
        w.begin_sweep()

    def end_sweep(self, w: Watching, sweep: Sweep) -> None:
        """End a sweep that had nothing to ask for."""
        w.state = self._polls.end_sweep(w.state.id, sweep)
        w.begin_sweep()

    def _trust(self, w: Watching, trust: Trust) -> None:
        w.trust = trust
        self._polls.accept(w.state.id, trust.dump())

    def _sets_aside(self, w: Watching, key: str, shift: ShapeShift, answer: Answer) -> bool:
        """Keep a page aside that looks like a change of form, until other pages decide."""
        known = w.aside.get(key)
        others = {other: aside for other, aside in w.aside.items() if other != key}
        if any(agree(shift, other.shift) for other in others.values()):
            return False
        if known is None or not agree(known.shift, shift):
            w.aside[key] = Aside(shift, answer.asked.at)
            return True
        return any(
            w.sweeps(other) and other not in w.aside and (unit.asked_at or 0.0) <= known.asked_at
            for other, unit in w.units.items()
            if other != key
        )

    def _agreed(
        self,
        w: Watching,
        key: str,
        reading: Reading,
        known: dict[str, Snapshot],
        answer: Answer,
        decision: Decision,
        outcome: Outcome,
    ) -> Decision:
        """Take a change of form silently where pages agree on it (or there is no other page to ask)."""
        shift = decision.shift or self._like_those_aside(w, key, decision, known, reading)
        if shift is None:
            return decision
        alone = sum(1 for other in w.units if w.sweeps(other)) == 1
        agreeing = [
            aside.shift for other, aside in w.aside.items() if (other != key or alone) and agree(aside.shift, shift)
        ]
        if not agreeing:
            return decision
        fields = {path: shape for one in (shift, *agreeing) for path, shape in one.fields.items()}
        accepted = ShapeShift(fields={**w.shift.fields, **fields}, objects=shift.objects)
        self._trust(w, replace(w.trust, shift=accepted, shift_until=w.state.sweep + 1))
        w.aside.clear()
        told = {path: str(shape) for path, shape in fields.items()}
        words = ", ".join(f"{path} {shape}" for path, shape in told.items())
        outcome.events += self.tell(
            w,
            "endpoint.schema_changed",
            f"the objects of {w.label} have another form ({words}): taken without an event for each",
            {"fields": told},
            answer.asked.answered_at,
        )
        return decide(w.watch, reading, known, self._context(w, w.units[key], reading, known, answer))

    @staticmethod
    def _like_those_aside(
        w: Watching, key: str, decision: Decision, known: dict[str, Snapshot], reading: Reading
    ) -> ShapeShift | None:
        """Whether a page with few objects shows what the pages aside do."""
        if not any(other != key for other in w.aside) or not decision.updates:
            return None
        pairs = [
            (orjson.loads(known[shown.object_id].body), shown.object)
            for shown in reading.fresh
            if shown.object_id in known
        ]
        return shape_shift(pairs, len(reading.members), w.watch.rules, at_least=1)

    def tell(self, w: Watching, kind: str, summary: str, detail: dict[str, object], now: float) -> list[int]:
        """Log what the operator must know of this endpoint."""
        subject = f"endpoints/{w.label}"
        return self._polls.tell(subject, lambda version: _notice(kind, subject, summary, detail, version, now))


def _notice(kind: str, subject: str, summary: str, detail: dict[str, object], version: int, now: float) -> NewEvent:
    return notice(kind, subject, summary=summary, version=version, detail=detail, time=now)


def chain_digest(digests: Sequence[bytes]) -> bytes:
    """One digest for all the answers of a chain."""
    return digests[0] if len(digests) == 1 else digest_of(b"".join(digests))
