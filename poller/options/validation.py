"""What pydantic found wrong in a table, as problems of the file: its key, what is wrong, and how to fix it."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from poller.options.problems import Problem, dotted, nearest

# What pydantic calls it: in words of the file, with what pydantic knows of it in braces, and how to fix it.
_BOOL: Final = ("this is neither true nor false", "write true or false, without quotes")
_WHOLE: Final = ("this is not a whole number", "write a whole number, without quotes")
_NUMBER: Final = ("this is not a number", "write a number, without quotes")
_LIST: Final = ("this is not a list", 'write a list: ["...", "..."]')
_TABLE: Final = ("this is not a table", "write a table: { key = value }")
_WORDS: Final[Mapping[str, tuple[str, str | None]]] = {
    "missing": ("required, but missing", "add it"),
    "bool_type": _BOOL,
    "bool_parsing": _BOOL,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": ("this is not a number that can be counted with", None),
    "string_type": ("this is not a text", "write a string in quotes"),
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _TABLE,
    "model_type": _TABLE,
    "model_attributes_type": _TABLE,
    "literal_error": ("this must be {expected}", None),
    "greater_than": ("this must be more than {gt}", None),
    "greater_than_equal": ("this must be at least {ge}", None),
    "less_than": ("this must be less than {lt}", None),
    "less_than_equal": ("this must be at most {le}", None),
    "too_short": ("this needs at least {min_length} of them", None),
    "too_long": ("these are more than {max_length}", None),
    "string_too_short": ("this must have at least {min_length} characters", None),
    "string_too_long": ("this must have at most {max_length} characters", None),
    "union_tag_invalid": ("{discriminator} must be one of {expected_tags}, not '{tag}'", None),
    "string_pattern_mismatch": ("this text does not have the form {pattern}", None),
    "union_tag_not_found": ("the key {discriminator} is missing", "add it"),
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
    # Of the members of a union, the one whose type fits describes the problem best; if none fits, the first.
    told = {one.key for one, detail in zip(problems, details, strict=True) if not detail["type"].endswith("_type")}
    kept: list[Problem] = []
    for one, detail in zip(problems, details, strict=True):
        if detail["type"] == "too_short" and any(other.startswith(f"{one.key}[") for other in told):
            continue  # too few only because some of them are wrong
        if not detail["type"].endswith("_type"):
            kept.append(one)
        elif one.key not in told:
            told.add(one.key)
            kept.append(one)
    return kept


def _problem(detail: Any, at: Sequence[str], model: type[BaseModel], also: Also) -> Problem:
    loc = tuple(detail["loc"])
    key = dotted((*at, *_written(model, loc)))
    if detail["type"] == "extra_forbidden":
        # the key is in no model, so `_written` would drop it as a tag
        key = dotted((*at, *_written(model, loc[:-1]), loc[-1]))
        known = known_keys(model, loc[:-1]) | set(also(loc))
        return Problem(key=key, what="unknown key", hint=nearest(str(loc[-1]), known))
    what, hint = words_of(detail)
    named, colon, rest = what.partition(": ")
    if colon and named in known_keys(model, loc):  # a rule of a whole table that names the key it concerns
        key, what = f"{key}.{named}", rest
    return Problem(key=key, what=f"{what[:1].lower()}{what[1:]}", hint=hint)


def words_of(detail: Any) -> tuple[str, str | None]:
    """What is wrong and what to do; in pydantic's own words where ours do not have it."""
    words, hint = _WORDS.get(detail["type"], (None, None))
    if words is None:
        return detail["msg"].removeprefix("Value error, "), None
    known = {name: _shown(value) for name, value in detail.get("ctx", {}).items()}
    return words.format_map(known), hint


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("'type'", "`type`")


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
    inside = _tagged(model, loc[0]) or _inside(model, loc[0])
    return {key for inner in inside for key in known_keys(inner, loc[1:])}


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


def _tagged(annotation: Any, tag: str | int) -> list[type[BaseModel]]:
    """The members of a union with this tag, which pydantic adds to the location."""
    return [
        model
        for model in _models(annotation)
        if _members(annotation)
        and any(
            get_origin(f.annotation) is Literal and tag in get_args(f.annotation) for f in model.model_fields.values()
        )
    ]


def _inside(annotation: Any, step: str | int) -> list[Any]:
    """The possible types of the value at `step` in a value of this type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
        return [fields[str(step)]] if step in fields else []
    if members := _members(annotation):
        inner = [found for part in members for found in _inside(part, step)]
        # A step into no member is the tag of one, which pydantic adds to the location.
        return inner or [annotation]
    if get_origin(annotation) in (dict, Mapping):
        return list(get_args(annotation)[-1:])
    return list(get_args(annotation)[:1]) if isinstance(step, int) else []
