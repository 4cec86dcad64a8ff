"""A model API in this process: it lives as its steps say, and remembers all it ever was."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.truth.answers import as_json, distorted, etag_of, listed, stamp, time_text
from tests.truth.world import AWAY, LIARS, LINE_MUTATIONS, TRAITS, Step, World

State = Mapping[str, Any]
LIES = ("empty", "204")  # that there is nothing
UNKNOWABLE = (
    {"ignores-page", "tied"},
    {"lines-ignore-page", "lines-tied"},  # pages at random: no list
    {"short-pages", "total-low"},  # a short page that the total calls the last one
    {"repeats-last", "next-for-ever"},  # a page that is shown three times is the last one, whatever it names
    *({"cached", liar} for liar in LIARS),  # 304 says that an older copy is how it is now
)
TWIN = "twin"  # the name of the other object
KEPT = 20.0  # seconds for which a cache keeps an answer
NEVER = 1e6  # seconds after which nobody waits for an answer any more


@dataclass(slots=True)
class Fault:
    """What goes wrong with calls of one kind: after `skip` of them, `times` of them."""

    kind: str
    where: str
    skip: int
    times: int


@dataclass(slots=True)
class Hidden:
    """A time in which no list shows an object; nor is it under its own URL where it is away `everywhere`."""

    begin: float
    end: float = float("inf")
    everywhere: bool = False
    is_unlisted: bool = False  # until somebody lists it again

    def lasts(self, now: float) -> bool:
        """Whether it is now."""
        return self.begin <= now < self.end

    def meets(self, since: float, until: float) -> bool:
        """Whether it is at any moment of that time."""
        return self.begin <= until and self.end >= since


@dataclass(slots=True)
class Twin(Hidden):
    """A time in which the list shows another object, too, under the id of one."""

    subject: str = ""
    state: State = field(default_factory=dict)  # of the other one


@dataclass(slots=True)
class Upstream(httpx.AsyncBaseTransport):
    """The API. `history` has, for each subject, every state it ever had and since when."""

    world: World
    now: Callable[[], float]
    rows: list[dict[str, Any]] = field(default_factory=list)
    trash: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    history: dict[str, list[tuple[float, State | None]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    has_hidden_ids: bool = False  # an answer has left an id out
    lies: list[float] = field(default_factory=list)  # when it pretended that there was nothing
    traits: set[str] = field(default_factory=set)  # the ways in which it misbehaves now
    met: set[str] = field(default_factory=set)  # and ever did
    unseen: dict[str, list[Hidden]] = field(
        default_factory=lambda: defaultdict(list)
    )  # by trait: when nobody could see it
    hidden: dict[int, list[Hidden]] = field(default_factory=lambda: defaultdict(list))  # by number
    twin: int | None = None  # the object under whose id the list shows another one, too
    twins: list[Twin] = field(default_factory=list)
    calls: int = 0
    arrivals: list[float] = field(default_factory=list)  # when calls came
    answers: list[tuple[str, int]] = field(default_factory=list)  # (path, status) of each

    def __post_init__(self) -> None:
        self._random = random.Random(self.world.seed)
        self._ids = 0
        self._edits = 0
        self._lied = False
        self._copies: dict[tuple[int, str], tuple[float, httpx.Response]] = {}  # of caches
        self._numbers: defaultdict[str, int] = defaultdict(int)  # by parent, of its lines
        for _ in range(self.world.objects):
            self.change("create", len(self.rows))
        for name in self.world.traits:
            self.begin(name)

    # How it misbehaves.

    def begin(self, trait: str) -> None:
        """Misbehave from now on. Where two objects have one id, whatever else moves the list makes one the other."""
        if self.twin is not None or (trait == "twin" and self.traits):
            return
        if any({trait, other} in UNKNOWABLE for other in self.traits):
            return
        if trait not in self.traits and not TRAITS[trait].is_visible(self.world):
            self.unseen[trait].append(Hidden(self.now()))
        self.traits.add(trait)
        self.met.add(trait)
        if trait == "twin":
            row = min((row for row in self._listed() if not row["gone"]), key=lambda row: row["n"], default=None)
            self.twin = None if row is None else row["n"]
        if self.twin is not None:
            subject = f"things/{self.twin}"
            state = {**self.state()[subject], "name": TWIN}
            self.twins.append(Twin(self.now(), subject=subject, state=state))

    def end(self, trait: str) -> None:
        """Behave again in this respect."""
        if trait in self.traits and self.unseen[trait]:
            self.unseen[trait][-1].end = self.now()
        self.traits.discard(trait)
        if trait == "twin" and self.twin is not None:
            self.twins[-1].end = self.now()
            self.twin = None

    def contradicted(self) -> set[str]:
        """The endpoints whose every sweep contradicts itself, so that it must be called uncertain."""
        found = set()
        if any(TRAITS[name].is_contradiction(self.world) for name in self.traits - {"twin"}) or self.twin is not None:
            found.add("things")
        if "lines-more-at-end" in self.traits and any(not row["gone"] for row in self._listed()):
            found.add("lines")
        return found

    # What happens to its objects.

    def change(self, act: str, pick: int) -> None:
        """Let one thing happen to one object; nothing where there is no such object."""
        if self.twin is not None and act not in ("edit", *LINE_MUTATIONS):
            return
        self._edits += 1
        getattr(self, "_" + act.replace("-", "_"))(pick)
        if self.world.order == "id" or self.world.style == "keyset":
            self.rows.sort(key=lambda row: row["n"])
        elif self.world.order == "newest":
            self.rows.sort(key=lambda row: -row["edit"])
        self._remember()

    def keep_one(self) -> None:
        """Be no list that shows nothing: without own URLs, an empty one where there were objects says nothing."""
        if all(row["gone"] for row in self._listed()):
            self.change("create", 0)
        pick = 0
        while self.world.lines and not any(self.lines[str(row["n"])] for row in self._listed() if not row["gone"]):
            self.change("create-line", pick)
            pick += 1

    def _create(self, pick: int) -> None:
        self._ids += 1
        row = {"n": self._ids, "name": f"name {self._ids}", "gone": False}
        self._touched(row)
        self.rows.insert(pick % (len(self.rows) + 1), row)
        if self.world.lines:
            self._create_line(pick)

    def _edit(self, pick: int) -> None:
        if row := _picked(self._free(), pick):
            row["name"] = f"edit {self._edits}"
            self._touched(row)

    def _delete(self, pick: int) -> None:
        if row := _picked(self._free(), pick):
            self.rows.remove(row)
            self.trash.append(row)

    def _restore(self, pick: int) -> None:
        if row := _picked(self.trash, pick):
            self.trash.remove(row)
            self._touched(row)
            self.rows.insert(pick % (len(self.rows) + 1), row)

    def _return(self, pick: int) -> None:
        """As it was: it had only been away."""
        if row := _picked(self.trash, pick):
            self.trash.remove(row)
            self.rows.insert(pick % (len(self.rows) + 1), row)

    def _unlist(self, pick: int) -> None:
        """It leaves the list, and answers under its own URL."""
        if not self.world.has_items:
            return
        if row := _picked([row for row in self._free() if row in self._listed()], pick):
            self.hidden[row["n"]].append(Hidden(self.now(), is_unlisted=True))

    def _relist(self, pick: int) -> None:
        if row := _picked([row for row in self.rows if self.is_unlisted(row["n"])], pick):
            self.hidden[row["n"]][-1].end = self.now()

    def flap(self, pick: int, times: int) -> None:
        """Hide an object for a moment that is too short to be believed. Once each: twice may look like once."""
        if self.twin is not None:
            return
        seconds, row = AWAY[times - 1], _picked([row for row in self._free() if not self.hidden[row["n"]]], pick)
        is_short = seconds <= self.world.absent_for
        if row is not None and (is_short or self.world.has_items):
            self.hidden[row["n"]].append(Hidden(self.now(), self.now() + seconds, is_short))

    def _reorder(self, pick: int) -> None:
        random.Random(pick).shuffle(self.rows)

    def _swap(self, pick: int) -> None:
        if len(self.rows) > 1:
            at = pick % (len(self.rows) - 1)
            self.rows[at], self.rows[at + 1] = self.rows[at + 1], self.rows[at]

    def _soften(self, pick: int) -> None:
        if row := _picked(self._free(), pick):
            row["gone"] = True
            self._touched(row)

    def _harden(self, pick: int) -> None:
        if row := _picked([row for row in self.rows if row["gone"]], pick):
            row["gone"] = False
            self._touched(row)

    def _create_line(self, pick: int) -> None:
        if row := _picked([row for row in self.rows if not row["gone"]], pick):
            self._ids += 1
            parent = str(row["n"])
            self._numbers[parent] += 1
            number = self._numbers[parent] if self.world.own_numbers else 1000 + self._ids
            self.lines[parent].append({"id": number, "text": f"line {self._ids}"})

    def _edit_line(self, pick: int) -> None:
        if line := _picked(self._live_lines(), pick):
            line["text"] = f"edit {self._edits}"

    def _delete_line(self, pick: int) -> None:
        if line := _picked(self._live_lines(), pick):
            for lines in self.lines.values():
                if line in lines:
                    lines.remove(line)

    def _live_lines(self) -> list[dict[str, Any]]:
        return [line for row in self.rows for line in self.lines[str(row["n"])]]

    def _free(self) -> list[dict[str, Any]]:
        """The objects to which something may happen: one that has a twin stays as it is."""
        return [row for row in self.rows if row["n"] != self.twin]

    def _listed(self) -> list[dict[str, Any]]:
        """The objects that a list shows now."""
        return [row for row in self.rows if not any(one.lasts(self.now()) for one in self.hidden[row["n"]])]

    def still_hidden_until(self) -> float:
        """When the last object is shown again that is hidden for a while."""
        ends = [one.end for spans in self.hidden.values() for one in spans if one.end != float("inf")]
        return max(ends, default=0.0)

    def is_unlisted(self, number: int) -> bool:
        """Whether no list shows the object until somebody lists it again."""
        return bool(self.hidden[number]) and self.hidden[number][-1].end == float("inf")

    def _touched(self, row: dict[str, Any]) -> None:
        row["edit"], row["at"] = self._edits, self.now()

    # What it is, and was.

    def state(self) -> dict[str, State]:
        """Every object that is there, by subject, as a subscriber should know it."""
        alive = [row for row in self.rows if not row["gone"]]
        found: dict[str, State] = {}
        for row in alive:
            shown = self._shown(row)
            shown.pop("noise", None)
            found[f"things/{row['name'] if self.world.content else row['n']}"] = shown
            for line in self.lines[str(row["n"])] if self.world.lines else ():
                found[f"lines/{row['n']}/{line['id']}"] = dict(line)
        return found

    def _remember(self) -> None:
        state = self.state()
        for subject in state.keys() | self.history.keys():
            past = self.history.setdefault(subject, [(0.0, None)])
            if past[-1][1] != state.get(subject):
                past.append((self.now(), state.get(subject)))

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        noise = {"noise": self.calls} if self.world.noisy else {}
        if self.world.content:
            return {"name": row["name"], **noise}
        return {"id": row["n"], "name": row["name"], "gone": row["gone"], "updated_at": stamp(row), **noise}

    # What it answers.

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as it is when the call arrives, a while after it left and a while before the answer is there."""
        await asyncio.sleep(self._random.choice((0.01, 0.1, 0.7)))
        self.calls += 1
        self.arrivals.append(self.now())
        where, answer = self._answer(request)
        if "cached" in self.traits:
            answer = self._copy(request, answer)
        fault = self._fault(where)
        if fault is not None:
            answer = await self._faulty(fault, answer)
            if fault in LIES:
                self.lies.append(self.now())
        await asyncio.sleep(self._random.choice((0.01, 0.1, 0.7)))
        self.answers.append((request.url.path, answer.status_code))
        return answer

    def _copy(self, request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        """The copy of one of two caches, which it keeps for a while."""
        key = (self._random.randrange(2), str(request.url))
        at, kept = self._copies.get(key, (-NEVER, answer))
        if self.now() - at > KEPT:
            at, kept = self._copies[key] = (self.now(), answer)
        if kept.status_code == 304:  # it keeps whole answers only
            del self._copies[key]
            return answer
        etag, headers = kept.headers.get("etag"), {**kept.headers, "age": str(int(self.now() - at))}
        is_same = etag is not None and request.headers.get("if-none-match") == etag
        return httpx.Response(304, headers=headers) if is_same else _again(kept, headers)

    def _answer(self, request: httpx.Request) -> tuple[str, httpx.Response]:
        match request.url.path.strip("/").split("/"):
            case ["things"]:
                return "list", self._things(request)
            case ["things", _] if "own-404" in self.traits:
                return "item", httpx.Response(404)
            case ["things", n]:
                row = next((row for row in self.rows if str(row["n"]) == n and not self._is_away(row)), None)
                return "item", as_json(self._shown(row)) if row else httpx.Response(404)
            case ["things", n, "lines"] if any(str(row["n"]) == n for row in self.rows):
                return "lines", self._lines(request, n)
        return "lines", httpx.Response(404)

    def _is_away(self, row: Mapping[str, Any]) -> bool:
        if self.met:  # what hides it from the list for long, and its own URL for a moment, makes it go
            return False
        return any(one.everywhere and one.lasts(self.now()) for one in self.hidden[row["n"]])

    def _things(self, request: httpx.Request) -> httpx.Response:
        world, rows = self.world, self._listed()
        if self.twin is not None:
            rows += [{**row, "name": TWIN} for row in rows if row["n"] == self.twin]
        rows = [row for row in rows if stamp(row) >= request.url.params.get("since", "")]
        answer = listed(
            request,
            [(row["n"], self._shown(row)) for row in self._in_order(rows, "tied")],
            style=world.style,
            size=world.size,
            past_end=world.past_end,
            traits=self.traits,
        )
        newest = max((row["edit"] for row in rows if f'"id":{row["n"]},' in answer.text), default=0)
        return self._marked(request, answer, f'"{newest}"' if "etag-newest" in self.traits else None)

    def _lines(self, request: httpx.Request, n: str) -> httpx.Response:
        rows = [(line["id"], line) for line in self._in_order(self.lines[n], "lines-tied")]
        traits = {name.removeprefix("lines-") for name in self.traits if name.startswith("lines-")}
        style, size = ("page", self.world.line_size) if self.world.line_size else ("none", 0)
        return self._marked(request, listed(request, rows, style=style, size=size, past_end=200, traits=traits))

    def _in_order(self, rows: list[dict[str, Any]], trait: str) -> list[dict[str, Any]]:
        found = list(rows)
        if trait in self.traits:
            self._random.shuffle(found)
        return found

    def _marked(self, request: httpx.Request, answer: httpx.Response, newest: str | None = None) -> httpx.Response:
        """The answer with its validators, or 304. `newest`: what marks its newest row alone."""
        if not answer.is_success:
            return answer
        if "modified-stuck" in self.traits:
            answer.headers.update({"last-modified": time_text(1e9), "date": time_text(self.now())})
            is_same = "if-modified-since" in request.headers
        elif "etag-stuck" in self.traits:
            answer.headers["etag"] = '"always"'
            is_same = request.headers.get("if-none-match") == '"always"'
        elif self.world.etags or newest is not None:
            answer.headers["etag"] = newest or etag_of(answer)
            is_same = request.headers.get("if-none-match") == answer.headers["etag"]
        else:
            return answer
        kept = {name: value for name, value in answer.headers.items() if name in ("etag", "last-modified", "link")}
        return httpx.Response(304, headers=kept) if is_same else answer

    def _fault(self, where: str) -> str | None:
        for fault in list(self.faults):
            if fault.where == where and fault.skip > 0:
                fault.skip -= 1
            elif fault.where == where:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                self.has_hidden_ids |= fault.kind == "no-id"
                return fault.kind
        return None

    def fail(self, step: Step) -> None:
        """Let calls go wrong from now on. An API without own URLs lies once at most, else nobody could know better."""
        if step.kind in LIES and not (self.world.has_items and step.where == "list"):
            if self._lied:
                return
            self._lied = True
        times = 1 if step.kind in LIES else step.times
        self.faults.append(Fault(step.kind, step.where, step.pick % 3, times))

    async def _faulty(self, kind: str, answer: httpx.Response) -> httpx.Response:
        if kind == "timeout":
            await asyncio.sleep(NEVER)
        if kind == "reset":
            raise httpx.ReadError("connection reset")
        return distorted(kind, answer, now=self.now())


def _again(answer: httpx.Response, headers: Mapping[str, str]) -> httpx.Response:
    return httpx.Response(answer.status_code, headers=headers, content=answer.content)


def _picked(rows: list[dict[str, Any]], pick: int) -> dict[str, Any] | None:
    return rows[pick % len(rows)] if rows else None
