"""Failing lists per parent: a sweep ends without them, and nothing is concluded about their objects."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint, exempt
from poller.polling.unit_keys import id_prefix
from poller.rendering.counting import failing_of
from poller.rendering.sentences import clause
from state.notices import Notice
from state.polls import Sweep, UnitState

NAMED = 3  # lists named in one message


def give_up(w: WatchedEndpoint, unit: UnitState, draft: Draft, *, sweep_waits: bool) -> None:
    """Note that a unit has failed. If it was the last list that the sweep waited for, the sweep ends."""
    w.sweep.give_up(unit)
    if not w.sweep.given_up or sweep_waits or not w.sweep.is_done or w.guards.recount is not None:
        return
    ended = Sweep(
        ended_at=draft.at,
        ended_order=w.requests.next(),
        began=w.sweep.since,
        steady=w.sweep.steady,
        confirms=w.sweep.confirms and w.sweep.nonempty,
    )
    draft.marks.ended = without_failing(w, draft, ended)


def without_failing(w: WatchedEndpoint, draft: Draft, ended: Sweep, *, but: str = "") -> Sweep:
    """The sweep that ends without the failing lists (`but` was just read). Reported once per episode."""
    failing = sorted(w.sweep.given_up - {but})
    before = w.guards.exemptions
    unread = before.unread
    if w.in_baseline and ended.ends_baseline:
        unread |= {key for key in failing if w.units[key].asked_at is None}
    now = structs.replace(before, failing=frozenset(failing), unread=unread)
    if now != before:
        exempt(w, draft, now)
    if failing and not before.failing:
        draft.notices.append(_notice(w, failing, ended.ended_at))
    return structs.replace(ended, unseen=[id_prefix(key) for key in failing])


def first_reading(w: WatchedEndpoint, draft: Draft, key: str) -> None:
    """Note the first successful read of a list that had failed since the baseline."""
    if key in w.guards.exemptions.unread:
        exempt(w, draft, structs.replace(w.guards.exemptions, unread=w.guards.exemptions.unread - {key}))


def forget_lists(w: WatchedEndpoint, draft: Draft, keys: Sequence[str]) -> None:
    """Forget lists whose parents are gone. If a parent returns, the objects of its list are new."""
    before = w.guards.exemptions
    if not before.unread.isdisjoint(keys):
        exempt(w, draft, structs.replace(before, unread=before.unread.difference(keys)))


def failing_text(w: WatchedEndpoint) -> str | None:
    """The failing lists without which the latest sweep ended, as text; None if there are none."""
    failing = sorted(w.guards.exemptions.failing & w.units.keys())
    return _text(w, failing) if failing else None


def _text(w: WatchedEndpoint, failing: Sequence[str]) -> str:
    named = "; ".join(f"{key}: {clause(w.units[key].error or '')}" for key in failing[:NAMED])
    return f"{failing_of(len(failing), len(w.units.swept()), 'list')} ({named})"


def _notice(w: WatchedEndpoint, failing: Sequence[str], now: float) -> Notice:
    text = _text(w, failing)
    return Notice(
        kind="endpoint.uncertain",
        subject=f"endpoints/{w.label}",
        summary=f"The latest sweep of {w.label} is complete except for lists that cannot be read: {text}. "
        "Nothing is concluded about the objects of these lists. The others are polled as usual.",
        detail={"why": [text]},
        time=now,
    )
