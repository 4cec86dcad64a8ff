"""The judge: a subscriber who believes the log alone, held against what the upstream really was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from poller.budget.limits import Limit
from poller.changes.exemptions import Exemptions
from poller.documents.diff import parse
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.engine import Engine
from poller.polling.unit_keys import id_prefix
from state.records import Event
from state.sqlite.store import Store
from tests.truth.upstream import State, Upstream
from tests.truth.world import LIARS

EXACT = 1e-5  # seconds: what Unix seconds as floats cannot tell apart
ALIVE: State = {}  # whatever it was, it was there


class Untrue(AssertionError):
    """The log does not tell what happened."""


class Judge:
    """Takes the baseline of each endpoint when it is complete, and folds the events behind it over it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._baselines: dict[
            str, tuple[int, dict[str, State]]
        ] = {}  # by endpoint: the log's end then, and what was known
        self._ended: dict[str, float] = {}  # by endpoint: when its baseline was complete
        self._unread: dict[str, frozenset[str]] = {}  # by endpoint: lists that had not been read when it was complete
        self.told: dict[str, Event] = {}  # by id

    @property
    def calls(self) -> int:
        """How many calls the upstream has answered."""
        return self._upstream.calls

    @property
    def met(self) -> set[str]:
        """The ways in which the upstream has misbehaved."""
        return self._upstream.met

    def differs(self, known: Mapping[str, State], endpoint: str = "") -> str | None:
        """What a subscriber knows wrongly of an endpoint (or of all), in words. None: nothing.

        How an object is that no list shows any more, and whether it is there, need not be known.
        """
        state, prefix = self._upstream.state(), f"{endpoint}/" if endpoint else ""
        wrong = [
            f"{subject} is {state.get(subject)} and known as {known.get(subject)}"
            for subject in sorted(state.keys() | known.keys())
            if subject.startswith(prefix) and state.get(subject) != known.get(subject) and not self._is_out(subject)
        ]
        return "; ".join(wrong) or None

    def listed(self, known: Mapping[str, State]) -> dict[str, State]:
        """What is known of the objects that a list shows, or whose parent is in its list."""
        return {subject: state for subject, state in known.items() if not self._is_out(subject)}

    @property
    def told_of_listed(self) -> set[str]:
        """The ids of the events, without those of objects that no list shows: their own URLs are asked now and then."""
        return {event.id for event in self.told.values() if not self._is_out(event.subject)}

    def _is_out(self, subject: str) -> bool:
        number = subject.split("/")[1]  # of the object, or of the parent of a line
        return number.isdigit() and self._upstream.is_unlisted(int(number))

    def _was_hidden(self, subject: str, since: float, until: float) -> bool:
        """Whether the API has pretended meanwhile that the object, or any object, was not there."""
        number, hidden = subject.split("/")[1], self._upstream.hidden
        spans = hidden[int(number)] if number.isdigit() else [one for spans in hidden.values() for one in spans]
        lies = any(since <= at <= until for at in self._upstream.lies)
        return lies or self._was_unseen(since, until) or any(one.meets(since, until) for one in spans)

    def _was_unseen(self, since: float, until: float) -> bool:
        """Whether the list was meanwhile shorter than it is, in a way that nobody can see."""
        return any(one.meets(since, until) for spans in self._upstream.unseen.values() for one in spans)

    def _looked_gone(self, event: Event, subject: str) -> bool:
        """Whether nobody could know that what was reported as deleted is there."""
        since = 0.0 if self._upstream.met & LIARS else event.observed_after or 0.0
        is_denied = "own-404" in self._upstream.met and self._was_hidden(subject, since, event.time)
        is_of_lost = self._is_of_unlisted(event) or self._is_of_early_parent(event, since)
        is_prolonged = self._is_prolonged(subject, since, event.time)
        return is_denied or is_prolonged or self._was_unseen(since, event.time) or is_of_lost

    def _is_prolonged(self, subject: str, since: float, until: float) -> bool:
        """Whether the API said that there was nothing just before or after it hid the object: both look like one time,
        which is longer than what it hides an object for.
        """
        number, margin = subject.split("/")[1], self._upstream.world.absent_for
        spans = self._upstream.hidden[int(number)] if number.isdigit() else []
        return any(
            one.meets(since, until) and one.begin - margin <= at <= one.end + margin
            for one in spans
            for at in self._upstream.lies
        )

    def _is_of_early_parent(self, event: Event, since: float) -> bool:
        """Whether its parent was not in its own list when the baseline of that list ended."""
        endpoint, number, *_ = event.subject.split("/")
        until = min(self._ended.get("things", event.time), event.time)
        return endpoint == "lines" and any(one.meets(since, until) for one in self._upstream.hidden[int(number)])

    def _is_of_unlisted(self, event: Event) -> bool:
        """Whether it is in the list of a parent that no list shows: nobody vouches for it."""
        endpoint, number, *_ = event.subject.split("/")
        spans = self._upstream.hidden[int(number)] if endpoint == "lines" else ()
        return any(one.is_unlisted and one.lasts(event.time) for one in spans)

    def look(self, store: Store, engine: Engine) -> None:
        """Take the baselines that are complete. Called after every write, so that nothing lies in between."""
        for run in engine.sources.values():
            for w in run.endpoints.values():
                if w.name in self._baselines:
                    self._take_first_readings(store, w)
                if w.name in self._baselines or w.state.last_sweep is None:
                    continue
                ids = list(store.polls.parents(w.state.id))
                known = {self.subject(w.name, i, o): o for i, o in _bodies(store, w.state.id, ids)}
                self._baselines[w.name] = (store.log.last_seq(), known)
                self._ended[w.name] = self._upstream.now()
                self._unread[w.name] = Exemptions.load(w.state.accepted).unread

    def _take_first_readings(self, store: Store, w: WatchedEndpoint) -> None:
        """Take what lists show first that could not be read before their baseline ended: it is silent, as in it."""
        unread = Exemptions.load(w.state.accepted).unread
        prefixes = [id_prefix(key) for key in self._unread[w.name] - unread]
        self._unread[w.name] = unread
        if not prefixes:
            return
        ids = [one for one in store.polls.parents(w.state.id) if one.startswith(tuple(prefixes))]
        silent = [one for one in store.polls.snapshots(w.state.id, ids).values() if one.version == 0]
        bodies = {self.subject(w.name, one.object_id, parse(one.body)): parse(one.body) for one in silent}
        self._baselines[w.name] = (self._baselines[w.name][0], bodies | self._baselines[w.name][1])

    def subject(self, endpoint: str, object_id: str, obj: State) -> str:
        """How the upstream calls an object."""
        return f"{endpoint}/{obj['name'] if self._upstream.world.content and endpoint == 'things' else object_id}"

    def count(self, limits: Sequence[Limit]) -> None:
        """Count the calls as a strict server does. Raises Untrue where a window has more than are allowed."""
        arrivals = self._upstream.arrivals
        for limit in limits:
            for first, last in zip(arrivals, arrivals[limit.calls :], strict=False):
                if last - first < limit.seconds - EXACT:
                    raise Untrue(f"{limit.calls + 1} calls in {last - first:g} s: {limit} are allowed")

    def _first_of_twin(self, event: Event, subject: str, after: State | None, mistaken: set[int]) -> bool:
        """Whether an id that has begun to name two objects is reported with the second one, for the first time.

        Where the page of the second one is polled before that of the first, it looks like an object that has moved and
        was edited. Only the page of the first would show that it is still there, and to wait for that would delay every
        edit in a list that is sorted by its changes. Where the first one cannot be read, the second one looks like a
        new object.
        """
        for number, twin in enumerate(self._upstream.twins):
            is_it = twin.subject == subject and _same(twin.state, after)
            if is_it and number not in mistaken and twin.meets(event.observed_after or 0.0, event.time):
                mistaken.add(number)
                return True
        return False

    def _since_twin(self, event: Event, subject: str, before: State | None, mistaken: set[int]) -> list[int]:
        """Where in its history an object begins again that was taken for its twin, once the twin is gone.

        A silent baseline takes it so without an event, where the object itself was shown without its id.
        """
        past = self._upstream.history.get(subject, [])
        hidden = self._upstream.has_hidden_ids
        ended = [twin for number, twin in enumerate(self._upstream.twins) if hidden or number in mistaken]
        begins = [one.begin for one in ended if _same(one.state, before) and one.end <= event.time]
        return [max(i for i, (at, _) in enumerate(past) if at <= begin) - 1 for begin in begins]

    def hear(self, store: Store) -> None:
        """Read the log whole. Raises Untrue for what cannot have been."""
        events = [event for event in store.log.read(limit=1_000_000) if event.source != "/poller"]
        versions: defaultdict[str, int] = defaultdict(int)
        if len({event.id for event in events}) != len(events):
            raise Untrue("an event id is told twice")
        latest: dict[str, State | None] = {}
        mistaken: set[int] = set()  # twins that were reported
        for event in events:
            versions[event.subject] += 1
            if event.data["version"] != versions[event.subject]:
                raise Untrue(
                    f"version {event.data['version']} of {event.subject} follows {versions[event.subject] - 1}"
                )
            self._check(event, latest, mistaken)
        gone = [event for event in self.told if event not in {event.id for event in events}]
        if gone:
            raise Untrue(f"forgotten: {gone}")
        self.told = {event.id: event for event in events}

    def _check(self, event: Event, latest: dict[str, State | None], mistaken: set[int]) -> None:
        """Something that the event tells did happen, and between its two times."""
        kind, obj = event.type.rpartition(".")[2], _plain(event.data["object"])
        endpoint, _, object_id = event.subject.partition("/")
        subject = self.subject(endpoint, object_id, obj)
        before = latest.get(subject)
        if before is None and kind != "created":
            before = _undone(event) if kind == "updated" else ALIVE if obj.get("gone") else obj
        after = None if kind == "deleted" else obj
        latest[subject] = after
        past = self._upstream.history.get(subject, [(0.0, None)])
        since = event.observed_after
        if since is not None and since > event.time:
            raise Untrue(f"{_words(event)}: observed after {since} which is later than {event.time}")
        if self._upstream.met & LIARS:
            since = None  # the API itself has said that nothing had changed
        ends = [at for at, _ in past[1:]] + [float("inf")]
        was = [i for i, (_, state) in enumerate(past) if _same(state, before) and (since is None or ends[i] >= since)]
        if kind == "created" and self._was_hidden(subject, since or 0.0, event.time):
            was.append(-1)  # nobody could know better
        was += self._since_twin(event, subject, before, mistaken)
        became = [i for i, (at, state) in enumerate(past) if _same(state, after) and at <= event.time]
        if kind == "deleted" and self._looked_gone(event, subject):
            became.append(len(past))
        if kind != "deleted" and not any(i < j for i in was for j in became):
            became += [len(past)] if self._first_of_twin(event, subject, after, mistaken) else []
        if not any(i < j for i in was for j in became):
            raise Untrue(f"{_words(event)}: it never was like that between {since} and {event.time}, but: {past}")

    def fold(self, store: Store) -> dict[str, State]:
        """What a subscriber knows who took the baseline and every event behind it. Raises Untrue."""
        known: dict[str, Any] = {}
        for _, baseline in self._baselines.values():
            known |= deepcopy(baseline)
        if self._upstream.world.baseline == "emit":
            known = {}
        for event in store.log.read(limit=1_000_000):
            endpoint = event.subject.partition("/")[0]
            if event.source != "/poller" and (
                self._upstream.world.baseline == "emit" or event.seq > self._baselines.get(endpoint, (2**62, {}))[0]
            ):
                self._apply(known, event)
        return {subject: _plain(state) for subject, state in known.items()}

    def _apply(self, known: dict[str, Any], event: Event) -> None:
        obj = event.data["object"]
        endpoint, _, object_id = event.subject.partition("/")
        subject, kind = self.subject(endpoint, object_id, obj), event.type.rpartition(".")[2]
        if (subject in known) == (kind == "created"):
            raise Untrue(f"{_words(event)}: the subscriber knows {known.get(subject)}")
        if kind == "deleted":
            if _plain(known.pop(subject)) != _plain(obj) and not obj.get("gone"):
                raise Untrue(f"{_words(event)} is not what was known of it last")
            return
        if kind == "updated":
            changed = _changed(known[subject], event.data["changes"])
            if _plain(changed) != _plain(obj):
                raise Untrue(f"{_words(event)}: its changes lead to {changed}")
        known[subject] = obj


def _bodies(store: Store, endpoint: int, ids: list[str]) -> list[tuple[str, State]]:
    return [(object_id, parse(snapshot.body)) for object_id, snapshot in store.polls.snapshots(endpoint, ids).items()]


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "noise"}


def _same(one: State | None, other: State | None) -> bool:
    return one is not None if other is ALIVE else one == other


def _undone(event: Event) -> State:
    """The object before an update, as the update tells it."""
    return _changed(
        _plain(event.data["object"]),
        [{"path": c["path"], **({"after": c["before"]} if "before" in c else {})} for c in event.data["changes"]],
    )


def _changed(state: State, changes: list[dict[str, Any]]) -> dict[str, Any]:
    """The flat object with these changes."""
    result = dict(state)
    for change in changes:
        key = change["path"].removeprefix("/")
        if "after" in change:
            result[key] = change["after"]
        else:
            result.pop(key, None)
    return result


def _words(event: Event) -> str:
    return f"#{event.seq} {event.type} {event.subject} v{event.data['version']} {event.data['object']}"
