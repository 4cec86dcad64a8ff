"""The keys of built-in plugins: a switch is true or false, and a count is a number, as in the tables of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from poller.hooks.loading import load_plugins


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def _fields(model: type[BaseModel], seen: set[type]) -> Iterator[tuple[str, FieldInfo]]:
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield f"{model.__name__}.{name}", field
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _fields(part, seen)


def _switches_and_counts() -> dict[str, tuple[FieldInfo, Any]]:
    plugins, seen = load_plugins(), set[type]()
    classes = [*plugins.sources.values(), *plugins.sinks.values()]
    fields = {name: field for cls in classes for name, field in _fields(cls.Options, seen)}
    similar = {bool: 1, int: "25"}
    return {
        name: (field, similar[kind])
        for name, field in fields.items()
        for kind in (bool, int)
        if {part for part in _parts(field.annotation) if isinstance(part, type)} - {NoneType} == {kind}
    }


FOUND = _switches_and_counts()


def test_the_fields_are_found() -> None:
    assert {"HttpOptions.allow_private", "EmailOptions.port", "Pages.size"} <= FOUND.keys()


@pytest.mark.parametrize("name", FOUND)
def test_a_switch_takes_no_number_and_a_count_no_text(name: str) -> None:
    field, similar = FOUND[name]
    adapter = TypeAdapter[Any](field.rebuild_annotation())
    with pytest.raises(ValidationError):
        adapter.validate_python(similar)
