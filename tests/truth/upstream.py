"""A model API in this process: it answers as its world says, remembers all it ever was, and fails on command."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx
import orjson

from tests.truth.world import Step, World

State = Mapping[str, Any]
NEVER = 1e6  # seconds after which nobody waits for an answer any more


@dataclass(slots=True)
class Fault:
    """What goes wrong with calls of one kind: after `skip` of them, `times` of them."""

    kind: str
    where: str
    skip: int
    times: int


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
    hidden: list[float] = field(default_factory=list)  # when it pretended that there was nothing
    is_tied: bool = False  # its order is another one at every call
    calls: int = 0
    answers: list[tuple[str, int]] = field(default_factory=list)  # (path, status) of each

    def __post_init__(self) -> None:
        self._random = random.Random(self.world.seed)
        self._ids = 0
        self._edits = 0
        self._lied = False
        for _ in range(self.world.objects):
            self.change("create", len(self.rows))

    # What happens to its objects.

    def change(self, act: str, pick: int) -> None:
        """Let one thing happen to one object; nothing where there is no such object."""
        self._edits += 1
        getattr(self, "_" + act.replace("-", "_"))(pick)
        if self.world.order == "id" or self.world.style == "keyset":
            self.rows.sort(key=lambda row: row["n"])
        elif self.world.order == "newest":
            self.rows.sort(key=lambda row: -row["edit"])
        self._remember()

    def keep_one(self) -> None:
        """Be no empty list: without own URLs, an empty one where there were objects says nothing."""
        if all(row["gone"] for row in self.rows):
            self.change("create", 0)
        while self.world.lines and not any(subject.startswith("lines/") for subject in self.state()):
            self.change("create-line", len(self.lines))

    def _create(self, pick: int) -> None:
        self._ids += 1
        row = {"n": self._ids, "name": f"name {self._ids}", "gone": False}
        self._touched(row)
        self.rows.insert(pick % (len(self.rows) + 1), row)
        if self.world.lines:
            self._create_line(pick)

    def _edit(self, pick: int) -> None:
        if row := _picked(self.rows, pick):
            row["name"] = f"edit {self._edits}"
            self._touched(row)

    def _delete(self, pick: int) -> None:
        if row := _picked(self.rows, pick):
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

    def _reorder(self, pick: int) -> None:
        random.Random(pick).shuffle(self.rows)

    def _swap(self, pick: int) -> None:
        if len(self.rows) > 1:
            at = pick % (len(self.rows) - 1)
            self.rows[at], self.rows[at + 1] = self.rows[at + 1], self.rows[at]

    def _soften(self, pick: int) -> None:
        if row := _picked(self.rows, pick):
            row["gone"] = True
            self._touched(row)

    def _harden(self, pick: int) -> None:
        if row := _picked([row for row in self.rows if row["gone"]], pick):
            row["gone"] = False
            self._touched(row)

    def _create_line(self, pick: int) -> None:
        if row := _picked([row for row in self.rows if not row["gone"]], pick):
            self._ids += 1
            self.lines[str(row["n"])].append({"id": 1000 + self._ids, "text": f"line {self._ids}"})

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
        at = datetime.fromtimestamp(row["at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"id": row["n"], "name": row["name"], "gone": row["gone"], "updated_at": at, **noise}

    # What it answers.

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as it is when the call arrives, a while after it left and a while before the answer is there."""
        await asyncio.sleep(self._random.choice((0.01, 0.1, 0.7)))
        self.calls += 1
        where, answer = self._answer(request)
        fault = self._fault(where)
        if fault is not None:
            answer = await self._faulty(fault, answer)
            if fault == "empty":
                self.hidden.append(self.now())
        await asyncio.sleep(self._random.choice((0.01, 0.1, 0.7)))
        self.answers.append((request.url.path, answer.status_code))
        return answer

    def _answer(self, request: httpx.Request) -> tuple[str, httpx.Response]:
        match request.url.path.strip("/").split("/"):
            case ["things"]:
                return "list", self._list(request)
            case ["things", n]:
                row = next((row for row in self.rows if str(row["n"]) == n), None)
                return "item", _json(self._shown(row)) if row else httpx.Response(404)
            case ["things", n, "lines"] if any(str(row["n"]) == n for row in self.rows):
                return "lines", _json({"items": self.lines[n]})
        return "lines", httpx.Response(404)

    def _list(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        rows = [row for row in self.rows if _stamp(row) >= params.get("since", "")]
        if self.is_tied:
            self._random.shuffle(rows)
        begin, end = self._slice(rows, params)
        body: dict[str, Any] = {"items": [self._shown(row) for row in rows[begin:end]]}
        headers = {}
        match self.world.style:
            case "keyset":
                body["next"] = str(rows[end - 1]["n"]) if end < len(rows) else None
            case "cursor":
                body["next"] = str(end) if end < len(rows) else None
            case "page-total":
                body["total"] = len(rows)
            case "link" if end < len(rows):
                onward = request.url.copy_set_param("page", int(params.get("page", 1)) + 1)
                headers["link"] = f'<{onward}>; rel="next"'
        return self._conditional(request, body, headers)

    def _slice(self, rows: list[dict[str, Any]], params: httpx.QueryParams) -> tuple[int, int]:
        size = self.world.size
        match self.world.style:
            case "page" | "page-total" | "page-open" | "link":
                begin = (int(params.get("page", 1)) - 1) * size
            case "offset":
                begin = int(params["offset"])
            case "keyset":
                begin = sum(1 for row in rows if row["n"] <= int(params.get("cursor", 0)))
            case "cursor":
                begin = int(params.get("cursor", 0))
            case _:
                return 0, len(rows)
        return begin, begin + size

    def _conditional(self, request: httpx.Request, body: Any, headers: dict[str, str]) -> httpx.Response:
        if not self.world.etags:
            return _json(body, headers)
        headers["etag"] = f'"{sha256(orjson.dumps([body, headers])).hexdigest()[:8]}"'
        if request.headers.get("if-none-match") == headers["etag"]:
            return httpx.Response(304, headers=headers)
        return _json(body, headers)

    def _fault(self, where: str) -> str | None:
        for fault in list(self.faults):
            if fault.where == where and fault.skip > 0:
                fault.skip -= 1
            elif fault.where == where:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return fault.kind
        return None

    def fail(self, step: Step) -> None:
        """Let calls go wrong from now on. An API without own URLs lies once at most, else nobody could know better."""
        if step.kind == "empty" and not (self.world.has_items and step.where == "list"):
            if self._lied:
                return
            self._lied = True
        times = 1 if step.kind == "empty" else step.times
        self.faults.append(Fault(step.kind, step.where, step.pick % 3, times))

    async def _faulty(self, kind: str, answer: httpx.Response) -> httpx.Response:
        if kind == "timeout":
            await asyncio.sleep(NEVER)
        if kind == "reset":
            raise httpx.ReadError("connection reset")
        if kind.isdigit():
            return httpx.Response(int(kind), headers={"retry-after": "2"} if kind == "429" else {})
        if kind == "html":
            return httpx.Response(200, html="<html>Be right back.</html>")
        if not answer.is_success:
            return answer
        return _distorted(kind, answer)


def _distorted(kind: str, answer: httpx.Response) -> httpx.Response:
    """A good answer made into a bad one."""
    body = orjson.loads(answer.content)
    headers = {k: v for k, v in answer.headers.items() if k in ("link", "etag")}
    items = body.get("items")
    if kind == "truncated":
        return httpx.Response(200, content=answer.content[:-2], headers=headers)
    if items is None:  # an object's own answer: whatever it says, it is there
        return answer
    if kind == "empty":
        return _json({"items": []})
    if kind == "null":
        return _json({**body, "items": None}, headers)
    if items and kind == "no-id":
        items[0].pop("id", None)
        items[0].pop("name", None)
    if items and kind == "twice":
        items.append({**items[0], "name": "another"})
    return _json(body, headers)


def _picked(rows: list[dict[str, Any]], pick: int) -> dict[str, Any] | None:
    return rows[pick % len(rows)] if rows else None


def _stamp(row: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(row["at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return httpx.Response(
        200, content=orjson.dumps(body), headers={"content-type": "application/json", **(headers or {})}
    )
