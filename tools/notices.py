"""The page of notices: every event in which Poller reports on itself, read from the calls that make it.

A notice is made by `Notice(...)`, or by a function that passes its own arguments on to one. What is filled in at run
time is written as the name of the value in braces, or `…`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

HEAD: Final = """\
# Notices: what Poller reports about itself

Each notice is an event with `source` `/poller` in the same log as all others. A subscription gets notices only if its
`types` name them:

```toml
[[subscriptions]]
name = "operators"
plugin = "slack"
webhook_url = { env = "SLACK_WEBHOOK" }
types = ["poller.*"]
```

`data` has `summary` (one sentence for people), `version` (which counts the notices about one subject) and `detail`
(the same for programs). No subscription gets a notice about itself, except the test event of `poller ping`.

In the summaries below `{name}` and `…` stand for what is filled in. Written from the program's source by `make docs`;
not by hand.
"""

MEANINGS: Final = {  # what a notice reports and what to do about it, by its type without "poller."
    "budget.throttled": "The server refused a call because there were too many, or asked for a pause of more than two"
    " minutes. No call is sent before the time in `until`. Sent once per episode. See [the budget]"
    "(budget.md#what-the-server-says).",
    "clock.set": "The machine's clock was set while the daemon ran. `seconds` is negative if it was set back. Measured"
    " delays leave out changes across that moment.",
    "delivery.dead": "A delivery was given up and is kept as a dead letter. Sent for the first dead letter since a"
    " delivery last succeeded. `next` names the command that sends it again.",
    "endpoint.held": "So many objects are gone at once, or an operator asked for it, that nothing of this endpoint is"
    " recorded. Look at the API, then use `poller release`. See [deletions](deletions.md).",
    "endpoint.rebaselined": "The next sweep of the endpoint is recorded without events: on command, or because"
    " its path, ids or excluded fields have changed in the configuration.",
    "endpoint.released": "A hold has ended, by itself or by `poller release`.",
    "endpoint.schema_changed": "A field was added, removed or set to null on most objects of several pages. The change"
    " is recorded without an event for each object.",
    "endpoint.uncertain": "A sweep may not have seen the whole list, or the URLs of its objects cannot be relied on."
    " `why` lists the contradictions. Sent once per episode. `poller try` shows what the list answers.",
    "endpoint.unlisted": "An object has left the list and still answers under its own URL. Sent for the first such"
    " object of an endpoint. The key `unlisted` says how such objects are reported.",
    "gap": "An endpoint can be read again after more than five minutes in which it could not be. Changes of that"
    " time are found by the next polls; what was created and deleted within it is not known.",
    "ping": "The test event of `poller ping NAME`. It is delivered only to that subscription.",
    "source.failing": "A source or one of its endpoints fails, or nothing is polled though something is due; `scope`"
    " says which. Sent once per episode. See [when a source fails](health.md).",
    "source.recovered": "The episode that `poller.source.failing` reported is over. `missed` lists what could not be"
    " read meanwhile.",
    "state.failing": "The state could not be written, so nothing was polled or delivered. It is recorded together with"
    " `poller.state.recovered`, once the state can be written again.",
    "state.recovered": "The state can be written again.",
    "subscription.disabled": "The receiver answered 410, or events were not delivered within `retention` and were"
    " dropped. Nothing more is delivered before `poller resume NAME`.",
    "subscription.failing": "Five attempts in a row failed. Deliveries wait, and one attempt at a time probes the"
    " receiver. See [sinks](sinks.md).",
    "subscription.recovered": "An attempt succeeded after `poller.subscription.failing`; deliveries continue.",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Scope:
    """The values of names within one call of a function, as expressions, and the functions of its module."""

    values: Mapping[str, tuple[ast.expr, Scope | None]]
    functions: Mapping[str, Function]

    def value(self, node: ast.expr | None) -> tuple[ast.expr | None, Scope]:
        """The expression that a name stands for, and the scope in which to read it."""
        scope = self
        while isinstance(node, ast.Name) and node.id in scope.values:
            node, outer = scope.values[node.id]
            scope = outer or scope
        return node, scope

    def text(self, node: ast.expr | None) -> str:
        """A text as it is written in the source; `…` where it is not written there."""
        found, scope = self.value(node)
        match found:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=parts):
                return "".join(scope.text(part) for part in parts)
            case ast.FormattedValue(value=inner):
                return scope.filled(inner)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return scope.text(left) + scope.text(right)
        return "…"

    def filled(self, node: ast.expr) -> str:
        """What an f-string fills in: its text where that is known, else the name of the value in braces."""
        match node:
            case ast.Name(id=name):
                known = self.text(node)
                return f"{{{name}}}" if known == "…" else known
            case ast.Attribute(attr=name):
                return f"{{{name}}}"
            case ast.Call(args=[inner]):
                return self.filled(inner)
        return "…"

    def members(self, node: ast.expr | None) -> Iterator[str]:
        """The keys of a dictionary, also of those that are merged into it."""
        found, scope = self.value(node)
        match found:
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    yield from scope.members(value) if key is None else [scope.text(key)]
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                yield from [*scope.members(left), *scope.members(right)]
            case ast.Call(func=ast.Name(id=name)) if name in scope.functions:
                for returned in ast.walk(scope.functions[name]):
                    if isinstance(returned, ast.Return):
                        yield from scope.members(returned.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way in which a notice is made."""

    kind: str
    subject: str
    summary: str
    detail: tuple[str, ...]


def page() -> str:
    """The whole page."""
    found = sorted(kinds(), key=lambda one: one.kind)
    return HEAD + "".join(section(kind, [one for one in found if one.kind == kind]) for kind in sorted(MEANINGS))


def section(kind: str, made: list[Kind]) -> str:
    """One notice: what it reports, its subject, its summaries and the members of `detail`."""
    subject = " or ".join(f"`{one}`" for one in sorted({one.subject for one in made}))
    summaries = "\n".join(f"- {one}" for one in dict.fromkeys(one.summary for one in made))
    members = ", ".join(f"`{one}`" for one in dict.fromkeys(name for one in made for name in one.detail))
    end = f"\nIn `detail`: {members}.\n" if members else ""
    return f"\n## poller.{kind}\n\n{MEANINGS[kind]}\n\nSubject {subject}. Its summary:\n\n{summaries}\n{end}"


def kinds() -> Iterator[Kind]:
    """Every notice that the program can make."""
    for file in sorted(ROOT.glob("poller/**/*.py")):
        text = file.read_text(encoding="utf-8")
        if "Notice(" in text:
            tree = ast.parse(text)
            functions = {node.name: node for node in ast.walk(tree) if isinstance(node, Function)}
            for name, function in functions.items():
                for call in made_in(function, "Notice"):
                    yield from kinds_of(call, scope_of(function, None, functions), name)


def kinds_of(call: ast.Call, scope: Scope, function: str) -> Iterator[Kind]:
    """The notices that one call makes: one, or one for each caller of the function that passes its arguments on."""
    given = {one.arg: one.value for one in call.keywords}
    kind = scope.text(given["kind"])
    if not any(sign in kind for sign in "…{"):
        yield Kind(
            kind=kind,
            subject=scope.text(given["subject"]),
            summary=scope.text(given["summary"]).strip(),
            detail=tuple(scope.members(given["detail"])),
        )
        return
    for caller in scope.functions.values():
        for passing in made_in(caller, function):
            outer = scope_of(caller, None, scope.functions)
            inner = scope_of(scope.functions[function], (passing, outer), scope.functions)
            yield from kinds_of(call, inner, caller.name)


def made_in(function: Function, name: str) -> Iterator[ast.Call]:
    """The calls of a function or class by its plain name."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def scope_of(function: Function, passed: tuple[ast.Call, Scope] | None, functions: Mapping[str, Function]) -> Scope:
    """What a function assigns once, and the arguments that a call passes to it."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                assigned.setdefault(name, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                assigned.setdefault(name, []).append(value)
    values: dict[str, tuple[ast.expr, Scope | None]] = {
        name: (one[0], None) for name, one in assigned.items() if len(one) == 1
    }
    if passed is not None:
        call, outer = passed
        names = [argument.arg for argument in function.args.args]
        values |= {name: (value, outer) for name, value in zip(names, call.args, strict=False)}
        values |= {one.arg: (one.value, outer) for one in call.keywords if one.arg is not None}
    return Scope(values, functions)
