"""The guards of one endpoint: what looks too odd to be true waits until more is known, or somebody decides.

*Doubt*: too much is missing at once. What every unit shows is counted before any of it is believed; then the
endpoint is held, or goes on. *Aside*: one page looks like a change of form, or shows strangers; other pages decide.
Only ever called on the store's thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import orjson

from poller.changes.decide import Decision
from poller.changes.guards import (
    AT_LEAST_DELETED,
    AT_LEAST_SHIFTED,
    HOUR,
    Shape,
    ShapeShift,
    agree,
    is_mass_deletion,
    shape_shift,
)
from poller.changes.page import CONTENT, Reading
from poller.documents.diff import parse
from poller.polling.endpoint import Aside, Doubt, Trust, Watching, load_position, place_of
from poller.polling.results import Answer, Asked, Outcome
from state.notices import Notice
from state.polls import Presence, Snapshot, UnitState
from state.sqlite.polls import Polls

TRUSTED_SWEEPS = 4  # one in which objects go missing, two that confirm it, and what is left of the one under way
STRANGERS = ShapeShift(fields={"": Shape.REPLACED}, objects=0)


class Guarding:
    """Guards the endpoints of one state."""

    def __init__(self, polls: Polls) -> None:
        self._polls = polls

    # Doubt: too much is missing at once.

    def is_doubtful(self, w: Watching, reading: Reading, dropped: Iterable[str]) -> bool:
        """Whether this answer would make most of the endpoint's objects suspects."""
        if w.in_baseline or not w.watch.deletes or w.trusts_deletions:
            return False
        missing = len(reading.missing) + sum(w.units[key].shown for key in dropped)
        if not missing:
            return False
        missing += self._polls.suspect_count(w.state.id)
        return missing >= AT_LEAST_DELETED and missing * 2 > w.state.objects

    def count(self, w: Watching, key: str, ids: Iterable[str], answer: Answer, outcome: Outcome) -> None:
        """Count what the unit shows of what is known, and judge once every unit was counted. Nothing is recorded."""
        doubt = w.doubt = w.doubt or Doubt(answer.asked.at)
        outcome.aside = True
        if not w.sweeps(key):
            return
        known = self._polls.known(w.state.id, list(dict.fromkeys(ids)))
        doubt.seen[key] = sum(1 for snapshot in known.values() if _counts(snapshot, doubt))
        place = place_of(load_position(w.units[key].position))
        following = answer.pages[-1].next if answer.pages else w.units[key].next
        if following is None and not w.is_child:
            doubt.last = place
        elif doubt.last is not None and place >= doubt.last:
            doubt.last = None
        self._judge(w, doubt, answer.asked, outcome)

    def _judge(self, w: Watching, doubt: Doubt, asked: Asked, outcome: Outcome) -> None:
        if any(w.sweeps(key) and not _is_counted(doubt, unit) for key, unit in w.units.items()):
            return
        objects = w.state.objects + doubt.deleted
        gone = objects - sum(doubt.seen.values())
        doubt.seen.clear()
        doubt.judged_at = asked.answered_at
        if doubt.by_hand:
            return
        if gone >= AT_LEAST_DELETED and gone * 2 > objects:
            if w.state.held is None:
                self._hold(w, asked, outcome, gone=gone, objects=objects)
            return
        self._end(w, asked.answered_at, outcome, why="what was missing is shown again")
        self._trust(w, replace(w.trust, deletions_until=w.state.sweep + 1))

    def holds_deletion(self, w: Watching, asked: Asked, outcome: Outcome) -> bool:
        """Whether one more deletion would be too many within an hour; then the endpoint is held."""
        if w.trusts_deletions:
            return False
        while w.deletions and w.deletions[0] <= asked.answered_at - HOUR:
            w.deletions.popleft()
        recent, objects, suspects = len(w.deletions), w.state.objects, max(1, self._polls.suspect_count(w.state.id))
        # What is about to be told counts before the first of it is told.
        gone = [*w.deletions, *[asked.answered_at] * suspects]
        if not is_mass_deletion(objects - suspects, gone, asked.answered_at):
            return False
        self._hold(w, asked, outcome, gone=len(gone), objects=objects + recent, deleted=recent)
        return True

    def hold(self, w: Watching, now: float) -> Outcome:
        """Hold the endpoint on command."""
        outcome = Outcome()
        if w.state.held is None:
            objects, suspects = w.state.objects, self._polls.suspect_count(w.state.id)
            asked = Asked(at=now, answered_at=now)
            self._hold(w, asked, outcome, gone=suspects, objects=objects, by_hand=True)
        return outcome

    def _hold(
        self,
        w: Watching,
        asked: Asked,
        outcome: Outcome,
        *,
        gone: int,
        objects: int,
        deleted: int = 0,
        by_hand: bool = False,
    ) -> None:
        detail: dict[str, object] = {"known": objects, "gone": gone, "since": asked.answered_at}
        if by_hand:
            detail["why"] = why = "on command"
        else:
            detail["why"] = why = f"{gone} of {objects} objects are gone at once"
        w.doubt = Doubt(asked.answered_at, deleted=deleted, by_hand=by_hand)
        self._polls.hold(w.state.id, orjson.dumps({**detail, "deleted": deleted, "by_hand": by_hand}))
        self._refresh(w)
        until = "" if by_hand else "they are back or "
        outcome.events += self.tell(
            w,
            "endpoint.held",
            f"{w.label} is held, {why}: nothing is recorded until {until}`poller release {w.label}` "
            "with `--accept` or `--emit` decides",
            detail,
            asked.answered_at,
        )

    def release(
        self, w: Watching, now: float, outcome: Outcome, *, why: str, accept: bool = False, emit: bool = False
    ) -> None:
        """End a hold on command: `accept` takes the new state silently, `emit` tells it.

        With neither, it is looked at again, and held again if it still is as it was.
        """
        by_hand = w.doubt is not None and w.doubt.by_hand
        self._end(w, now, outcome, why=why)
        if accept:
            self.rebaseline(w, now, outcome)
        elif emit:
            self._trust(w, replace(w.trust, deletions_until=w.state.sweep + TRUSTED_SWEEPS))
        elif not by_hand:
            w.doubt = Doubt(now)

    def _end(self, w: Watching, now: float, outcome: Outcome, *, why: str) -> None:
        w.doubt = None
        w.deletions.clear()
        w.aside.clear()
        if w.state.held is not None:
            self._polls.hold(w.state.id, None)
            self._refresh(w)
            outcome.events += self.tell(w, "endpoint.released", f"{w.label} is released: {why}", {"why": why}, now)

    def rebaseline(self, w: Watching, now: float, outcome: Outcome) -> None:
        """Take whatever the next sweep shows, without events of its objects."""
        first = min((unit.id for key, unit in w.units.items() if w.sweeps(key)), default=None)
        kept = [u for key, u in w.units.items() if w.is_child or not w.sweeps(key) or u.id == first]
        outcome.dropped += list(w.units)
        w.renew(self._polls.rebaseline(w.state.id, now=now))
        for unit in kept:
            w.put(self._polls.unit(w.state.id, unit.key, unit.position))
            outcome.added.append(unit.key)
        self.say_rebaselined(w, now, outcome)

    def say_rebaselined(self, w: Watching, now: float, outcome: Outcome) -> None:
        """Log that a new baseline begins."""
        summary = f"{w.label} begins a new baseline: its next sweep is taken without events"
        outcome.events += self.tell(w, "endpoint.rebaselined", summary, {}, now)

    # Aside: one page looks like a change of form, or shows strangers.

    def is_strange(self, w: Watching, reading: Reading, before: int, known: dict[str, Snapshot]) -> bool:
        """Whether most of what the page showed is gone and most of what it shows was never seen.

        A new list at its very front looks so; a list of somebody else does, too.
        """
        endpoint = w.watch.endpoint
        if w.in_baseline or w.trusts_deletions or w.is_child or endpoint.id == CONTENT or endpoint.order == "newest":
            return False
        strangers = len(reading.fresh) - len(known)
        return (
            before >= AT_LEAST_SHIFTED
            and len(reading.missing) * 2 > before
            and strangers >= AT_LEAST_SHIFTED
            and strangers * 2 > len(reading.members)
        )

    def others_agree(self, w: Watching, key: str, shift: ShapeShift) -> bool:
        """Whether another page is aside for the same reason."""
        return any(other != key and agree(shift, aside.shift) for other, aside in w.aside.items())

    def sets_aside(self, w: Watching, key: str, shift: ShapeShift, answer: Answer) -> bool:
        """Keep a page aside until other pages decide."""
        if self.others_agree(w, key, shift):
            return False
        aside = w.aside.get(key)
        if aside is None or not agree(aside.shift, shift):
            w.aside[key] = Aside(shift, answer.asked.at, answer.asked.at)
            return True
        others = [unit for other, unit in w.units.items() if other != key and w.sweeps(other) and other not in w.aside]
        asked = [unit for unit in others if (unit.asked_at or 0.0) > aside.asked_at]
        if shift is STRANGERS and any(unit.shown for unit in asked):
            return False
        aside.seen_at = answer.asked.at
        return len(asked) < len(others)

    def agreed(
        self,
        w: Watching,
        key: str,
        reading: Reading,
        known: dict[str, Snapshot],
        decision: Decision,
        answer: Answer,
        outcome: Outcome,
    ) -> bool:
        """Take a change of form silently where pages agree on it, or there is no other page to ask. True: it is."""
        shift = decision.shift or self._like_those_aside(w, key, decision, known, reading)
        if shift is None:
            return False
        alone = sum(1 for other in w.units if w.sweeps(other)) == 1
        agreeing = [
            aside.shift for other, aside in w.aside.items() if (other != key or alone) and agree(aside.shift, shift)
        ]
        if not agreeing:
            return False
        fields = {path: shape for one in (shift, *agreeing) for path, shape in one.fields.items()}
        accepted = ShapeShift(fields={**w.shift.fields, **fields}, objects=shift.objects)
        nulled = w.trust.nulled | {path for path, shape in fields.items() if shape is Shape.NULLED}
        nulled -= {path for path, shape in fields.items() if shape is Shape.RETURNED}
        self._trust(w, replace(w.trust, shift=accepted, shift_until=w.state.sweep + 1, nulled=nulled))
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
        return True

    @staticmethod
    def _like_those_aside(
        w: Watching, key: str, decision: Decision, known: dict[str, Snapshot], reading: Reading
    ) -> ShapeShift | None:
        """Whether a page with few objects shows what the pages aside do."""
        if not any(other != key for other in w.aside) or not decision.updates:
            return None
        pairs = [
            (parse(known[shown.object_id].body), shown.parsed()) for shown in reading.fresh if shown.object_id in known
        ]
        return shape_shift(pairs, len(reading.members), w.watch.rules, at_least=1, nulled=w.trust.nulled)

    def _trust(self, w: Watching, trust: Trust) -> None:
        w.trust = trust
        self._polls.accept(w.state.id, trust.dump())

    def _refresh(self, w: Watching) -> None:
        w.state = self._polls.endpoint(w.state.id)

    def tell(self, w: Watching, kind: str, summary: str, detail: dict[str, object], now: float) -> list[int]:
        """Log what the operator must know of this endpoint."""
        subject = f"endpoints/{w.label}"
        return self._polls.tell(Notice(kind=kind, subject=subject, summary=summary, detail=detail, time=now))


def _counts(snapshot: Snapshot, doubt: Doubt) -> bool:
    """Whether an object that is shown is one of those that were there. What was told as deleted before the hold was."""
    if snapshot.presence is not Presence.DELETED:
        return True
    return bool(doubt.deleted) and snapshot.unit is None


def _is_counted(doubt: Doubt, unit: UnitState) -> bool:
    """Whether the unit was counted, or lies behind the end of the list and only fails by now."""
    if unit.key in doubt.seen:
        return True
    return bool(unit.failures) and doubt.last is not None and place_of(load_position(unit.position)) > doubt.last
