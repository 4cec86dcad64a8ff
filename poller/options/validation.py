"""What pydantic found wrong in a table, as problems of the file: its key, what is wrong, and how to fix it."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from poller.options.problems import Problem, dotted, nearest

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
