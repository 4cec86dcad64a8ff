"""Configuration problems: one line each, with the key, the problem and how to fix it."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from state.errors import PollerError

_HINTS: Final = {
    "missing": "add it",
    "bool_type": "write true or false, without quotes",
    "int_type": "write a whole number, without quotes",
    "float_type": "write a number, without quotes",
    "string_type": "write a string in quotes",
    "tuple_type": 'write a list: ["...", "..."]',
    "list_type": 'write a list: ["...", "..."]',
    "dict_type": "write a table: { key = value }",
    "model_type": "write a table: { key = value }",
}


Also = Callable[[tuple[str | int, ...]], Iterable[str]]  # location of an unknown key -> keys known there


def nothing(_place: tuple[str | int, ...]) -> Iterable[str]:
    """No additional keys."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Problem in a configuration. `key` is its path in the file, empty for the file as a whole."""

    key: str
    what: str
    hint: str | None = None
    at: int | None = None  # line in the file, if known

    def line(self, file: Path | str) -> str:
        """The problem as one line: FILE:LINE: key: problem; fix."""
        where = str(file) if self.at is None else f"{file}:{self.at}"
        where = f"{where}: {self.key}" if self.key else where
        return f"{where}: {self.what}" + (f"; {self.hint}" if self.hint else "")


class ConfigError(PollerError):
    """The configuration is invalid. The message has one line for each of `problems`."""

    def __init__(self, file: Path | str, problems: Sequence[Problem]) -> None:
        alone = problems[0].hint if len(problems) == 1 else None
        shown = [replace(problems[0], hint=None)] if alone else problems
        super().__init__("\n".join(problem.line(file) for problem in shown), hint=alone)
        self.file = file
        self.problems = tuple(problems)


class NotThere(PollerError):
    """Something that a command names does not exist."""


class NotNow(PollerError):
    """A command does not fit the current state."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or all known words if none is close."""
    words = sorted(set(known))
    close = get_close_matches(name.lower(), words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(words)}" if words else "there is none"


def problems_of(
    error: ValidationError, *, at: Sequence[str], model: type[BaseModel], also: Also = nothing
) -> list[Problem]:
    """The problems that pydantic found below the key path `at`. `also` lists further known keys besides the model's."""
    details = error.errors(include_url=False, include_input=False)
    problems = [_problem(detail, at, model, also) for detail in details]
    # Of the members of a union, the one whose type fits describes the problem best.
    told = {one.key for one, detail in zip(problems, details, strict=True) if not detail["type"].endswith("_type")}
    return [
        one
        for one, detail in zip(problems, details, strict=True)
        if one.key not in told or not detail["type"].endswith("_type")
    ]


def _problem(detail: Any, at: Sequence[str], model: type[BaseModel], also: Also) -> Problem:
    loc = tuple(detail["loc"])
    key = dotted((*at, *_written(model, loc)))
    if detail["type"] == "extra_forbidden":
        # the key is in no model, so `_written` would drop it as a tag
        key = dotted((*at, *_written(model, loc[:-1]), loc[-1]))
        known = known_keys(model, loc[:-1]) | set(also(loc))
        return Problem(key=key, what="unknown key", hint=nearest(str(loc[-1]), known))
    what = "required, but missing" if detail["type"] == "missing" else detail["msg"].removeprefix("Value error, ")
    return Problem(key=key, what=f"{what[:1].lower()}{what[1:]}", hint=_HINTS.get(detail["type"]))


def _written(model: Any, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The part of pydantic's location that appears in the file, without names of union members and validators."""
    if not loc:
        return ()
    inner = _inside(model, loc[0])
    step = () if inner == [model] or (isinstance(loc[0], str) and any(sign in loc[0] for sign in "[(")) else loc[:1]
    return (*step, *_written(Union[tuple(inner)] if inner else object, loc[1:]))  # noqa: UP007


def dotted(path: Iterable[str | int]) -> str:
    """Format a path: `("a", "b", 0)` as `"a.b[0]"`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def known_keys(model: Any, loc: Sequence[str | int]) -> set[str]:
    """The keys that a model, or the value at `loc` in it, accepts."""
    if not loc:
        return {key for found in _models(model) for key in keys_of(found)}
    return {key for inner in _inside(model, loc[0]) for key in known_keys(inner, loc[1:])}


def keys_of(model: type[BaseModel]) -> set[str]:
    """The keys of one model as written in the file."""
    return {field.alias or name for name, field in model.model_fields.items()}


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in _members(annotation) for found in _models(part)]


def _members(annotation: Any) -> Sequence[Any]:
    """The members of an annotated type or a union; empty for other types."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[:1]
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()


def _inside(annotation: Any, step: str | int) -> list[Any]:
    """The possible types of the value at `step` in a value of this type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
        return [fields[str(step)]] if step in fields else []
    if members := _members(annotation):
        inner = [found for part in members for found in _inside(part, step)]
        # A step into no member is the tag of one, which pydantic adds to the location.
        return inner or [annotation]
    return list(get_args(annotation)[-1:] if get_origin(annotation) is dict else get_args(annotation)[:1])


def find_endpoint(names: Iterable[tuple[str, str]], text: str) -> tuple[str, str]:
    """Resolve `SOURCE/ENDPOINT`, or `ENDPOINT` if only one source has it, to (source, endpoint). Raises NotThere."""
    known = sorted(names)
    found = [name for name in known if text in ("/".join(name), name[1])]
    if len(found) == 1:
        return found[0]
    if found:
        either = " or ".join("/".join(name) for name in found)
        raise NotThere(f"several sources have an endpoint named {text!r}", hint=f"write {either}")
    words = ["/".join(name) if "/" in text else name[1] for name in known]
    raise NotThere(f"no endpoint is named {text!r}", hint=nearest(text, words))
