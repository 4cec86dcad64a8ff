"""Filters of subscriptions: type globs, sources and a CEL expression, each compiled once. Pure.

CEL (https://cel.dev) distinguishes integers from doubles and JSON does not, so numbers are passed by value: 1.0 as the
integer 1. CEL compares integers with doubles, but does not calculate with a mixture; if an expression does that
(`data.object.amount * 1.19`), it is evaluated again with every number of the data as a double.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from state.errors import PollerError
from state.operational import is_operational
from state.records import Event, source_uri

if TYPE_CHECKING:
    import cel

_EVALUATION = (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError)
_SAMPLE: Mapping[str, Any] = {  # fields that every event and object has
    "type": "shop.items.updated",
    "source": "/sources/shop",
    "subject": "items/1",
    "data": {"object": {}, "version": 1, "changes": []},
    "object": {},
}
LONGEST = 4096  # characters of an expression
MOST_STEPS = 300_000  # evaluation steps of nested macros; take half a second
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_UNDEFINED = "Undefined variable or function"
_OPERATIONAL = "poller."
_PATH = re.compile(r"\bobject((?:\.[A-Za-z_]\w*+(?!\s*\())+)")  # of a field, without the methods called on it
_KINDS: tuple[Any, ...] = (True, 1, "text", [], None)
MOST_FIELDS = 4

_FIELD = re.compile(r"\bdata\.(?:object\.([A-Za-z_]\w*)|(version|changes))(?!\w|\s*\()")


class ExpressionError(PollerError, ValueError):
    """A CEL expression can never be evaluated: a configuration error."""


class FilterError(PollerError):
    """A CEL expression cannot be evaluated for this event or object, for example because a field is missing."""


class Expression:
    """Compiled CEL expression that is true or false. Raises ExpressionError if it does not compile."""

    def __init__(self, text: str, variables: Iterable[str]) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise ExpressionError(f"{text[:40]!r}... has more than {LONGEST:,} characters", hint="make it shorter")
        self._depth, self._macros = _nesting(text)
        try:
            self._program = _compile(text)
        except ValueError as exc:
            hint = "CEL has && and || for and and or, == for equal, and texts in quotes"
            raise self._refused(_syntax(exc), hint=hint) from exc
        self._variables = frozenset(variables)
        self._refuse_unknown(set(self._variables))

    def holds(self, context: Mapping[str, Any]) -> bool:
        """Evaluate with these variables. Raises FilterError if that is not possible."""
        try:
            answer = self._evaluate(context)
        except _EVALUATION as exc:
            raise FilterError(f"{self.text!r} cannot be evaluated: {_reason(exc)}", hint=_hint(exc)) from exc
        if not isinstance(answer, bool):
            raise FilterError(f"{self.text!r} is neither true nor false but {answer!r:.80}")
        return answer

    def refuse_other_types(self) -> None:
        """Raise ExpressionError if the result is not true or false, as far as that can be known without an event."""
        other: Any = None
        for sample in _samples(self.text):
            try:
                answer = self._evaluate({name: sample[name] for name in self._variables})
            except (*_EVALUATION, FilterError):
                continue  # not with values of these types
            if isinstance(answer, bool):
                return
            other = answer if other is None else other
        if other is not None:
            hint = 'write a comparison, for example data.object.status == "won"'
            raise self._refused(f"it is neither true nor false but {other!r:.40}", hint)

    def _evaluate(self, context: Mapping[str, Any]) -> Any:
        given = _numbers(context, _by_value)
        if self._depth > 1:
            self._refuse_steps(max(_longest(given), self.text.count(",") + 1))
        try:
            return self._program.execute(given)
        except TypeError:
            return self._program.execute(_numbers(context, _as_double))

    def _refuse_steps(self, longest: int) -> None:
        """Raise FilterError if nested macros would take too long over lists of this length."""
        if self._macros * longest**self._depth > MOST_STEPS:
            what = f"{self._depth} macros within each other over a list of {longest:,} take too long"
            raise FilterError(f"{self.text!r:.200} is not evaluated: {what}")

    def _refuse_unknown(self, known: set[str]) -> None:
        for name in self._program.variables():
            if name not in known and not _is_bound(name, self.text):
                raise self._refused(f"{name!r} is unknown", hint=f"it may use {', '.join(sorted(known))}")
        for name in self._program.functions():
            if name.isidentifier() and not _is_function(name):
                raise self._refused(f"there is no function {name!r}")

    def _refused(self, reason: str, hint: str | None = None) -> ExpressionError:
        return ExpressionError(f"{self.text!r} is not a usable CEL expression: {reason}", hint=hint)


class Filter:
    """Filter that decides which events a subscription gets.

    Operational events (source `/poller`) match only a type glob that starts with "poller.", regardless of `sources`,
    and never match if they are about the `subscription` itself.
    """

    def __init__(
        self,
        *,
        types: Iterable[str] = ("*",),
        sources: Iterable[str] = (),
        where: str | None = None,
        subscription: str | None = None,
    ) -> None:
        globs = list(types)
        self._is_type = matcher(globs)
        self._is_notice = matcher(glob for glob in globs if _literal(glob).startswith(_OPERATIONAL))
        self._sources = frozenset(source_uri(name) for name in sources)
        self._itself = f"subscriptions/{subscription}"
        self._where = event_rule(where) if where is not None else None
        self._seen = _fields(where or "")

    def matches(self, event: Event) -> bool:
        """Whether the subscription gets this event. Raises FilterError if `where` cannot be evaluated; count that as
        no.
        """
        if is_operational(event):
            wanted = self._is_notice(event.type) and event.subject != self._itself
        else:
            wanted = self._is_type(event.type) and (not self._sources or event.source in self._sources)
        return wanted and (self._where is None or self._where.holds(self._context(event)))

    def _context(self, event: Event) -> dict[str, Any]:
        data = event.data if self._seen is None else _only(event.data, self._seen)
        return {"type": event.type, "source": event.source, "subject": event.subject, "data": data}


def event_rule(expression: str) -> Expression:
    """Compile a CEL expression over an event, such as `where`. Raises ExpressionError."""
    return Expression(expression, ("type", "source", "subject", "data"))


def object_rule(expression: str) -> Expression:
    """Compile a CEL expression over `object`, such as `deleted_when`. Raises ExpressionError."""
    return Expression(expression, ("object",))


class ObjectRule:
    """Compiled `deleted_when`. Raises ExpressionError."""

    def __init__(self, expression: str) -> None:
        self._expression = object_rule(expression)

    def holds(self, obj: Mapping[str, Any]) -> bool:
        """Whether it is true of this object. Raises FilterError if it cannot be evaluated; the object then counts as
        unknown.
        """
        return self._expression.holds({"object": obj})


def matcher(globs: Iterable[str]) -> Callable[[str], bool]:
    """A function that tests whether any glob matches a whole text: `*` is any characters including dots, `?` is one."""
    patterns = [re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".") for glob in globs]
    match = re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)", re.DOTALL).fullmatch
    return lambda text: match(text) is not None


def _compile(text: str) -> cel.Program:
    # Imported late because importing it takes a quarter of a second, which only rules justify.
    import cel

    return cel.compile(text)


def _fields(where: str) -> frozenset[str] | None:
    """The fields of `data` and `data.object` that an expression can access; None means all of them."""
    fields = [first or second for first, second in _FIELD.findall(where)]
    return frozenset(fields) if len(re.findall(r"\bdata\b", where)) == len(fields) else None


def _only(data: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    """The data with only these fields: passing all of them to the library takes ten times as long as evaluating."""
    seen = {key: data[key] for key in fields & data.keys()}
    if isinstance(obj := data.get("object"), dict):
        seen["object"] = {key: obj[key] for key in fields & obj.keys()}
    return seen


def _samples(text: str) -> Iterator[dict[str, Any]]:
    """Events for an expression: its fields of the object have values of every type, in every combination.

    One of more than `MOST_FIELDS` fields is given an object without fields.
    """
    paths = sorted(set(_PATH.findall(text)), key=len)
    kinds = product(_KINDS, repeat=len(paths)) if len(paths) <= MOST_FIELDS else [()]
    for values in kinds:
        shown: dict[str, Any] = {}
        for path, value in zip(paths, values, strict=False):
            *outer, last = path.split(".")[1:]
            inner = shown
            for name in outer:
                if not isinstance(inner.get(name), dict):
                    inner[name] = {}
                inner = inner[name]
            inner[last] = value
        yield {**_SAMPLE, "data": {**_SAMPLE["data"], "object": shown}, "object": shown}


def _literal(glob: str) -> str:
    """The part before the first wildcard."""
    return re.split(r"[*?]", glob, maxsplit=1)[0]


def _numbers(value: Any, number: Callable[[int | float], int | float]) -> Any:
    """The value with every number in it replaced."""
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return {key: _numbers(item, number) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item, number) for item in value]
    return value


def _by_value(value: int | float) -> int | float:
    """The number as CEL takes it: CEL's integers have 64 bits, so larger ones become doubles."""
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else _as_double(value)
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _as_double(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return float("inf") if value > 0 else float("-inf")


def _is_bound(name: str, text: str) -> bool:
    """Whether a macro such as `exists(name, ...)` declares the variable; the library lists such variables, too."""
    return re.search(rf"\(\s*{re.escape(name)}\s*,", text) is not None


def _is_function(name: str) -> bool:
    """Whether the library has this function. It cannot list its functions, but reports an undefined one when called."""
    calls = (f"{name}('a')", f"'a'.{name}('a')", f"'a'.{name}()", f"timestamp('2026-01-01T00:00:00Z').{name}()")
    return any(_is_defined(call) for call in calls)


def _is_defined(call: str) -> bool:
    try:
        _compile(call).execute({})
    except _EVALUATION as exc:
        return _UNDEFINED not in str(exc)
    return True


def _nesting(text: str) -> tuple[int, int]:
    """How deeply macros over lists are nested, and how many there are."""
    bare = _QUOTED.sub("''", text)
    begins = {found.end() - 1 for found in _MACRO.finditer(bare)}
    open_brackets: list[bool] = []
    deepest = 0
    for place, sign in enumerate(bare):
        if sign == "(":
            open_brackets.append(place in begins)
            deepest = max(deepest, sum(open_brackets))
        elif sign == ")" and open_brackets:
            open_brackets.pop()
    return deepest, len(begins)


def _longest(value: Any) -> int:
    """The length of the longest list or table anywhere in a value."""
    if isinstance(value, dict):
        return max(len(value), *map(_longest, value.values()), 0)
    if isinstance(value, list):
        return max(len(value), *map(_longest, value), 0)
    return 0


def _syntax(exc: ValueError) -> str:
    """What the parser stumbles over, without the expression, which the message already quotes."""
    found = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)", str(exc))
    if found is None:
        return str(exc).splitlines()[0]
    missing = re.match(r"missing '(.+?)' at", found[3])
    read = re.search(r"(?:input|at:|at) '(.*?)'(?: expecting|$)", found[3])
    if missing is not None:
        return f"column {found[2]}: {missing[1]!r} is missing"
    if read is None:
        return f"column {found[2]}: {found[3].partition(' expecting')[0]}"
    return (
        "it ends too early" if read[1] == "<EOF>" else f"column {found[2]}: {read[1].strip()!r} is not understood here"
    )


def _reason(exc: Exception) -> str:
    return f"there is no {exc}" if isinstance(exc, KeyError) else str(exc).split(". ")[0]


def _hint(exc: Exception) -> str | None:
    return (
        "Ask with has(...) first, as in has(data.object.x) && data.object.x > 1." if isinstance(exc, KeyError) else None
    )
