"""Errors of the API: problem details after RFC 9457."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
from pydantic import BaseModel, Field

MEDIA_TYPE: Final = "application/problem+json"


class Problem(BaseModel):
    """What is wrong with a request, or with the program that answers it."""

    type: str = Field(default="about:blank", description="Always about:blank: the status says what kind of problem.")
    title: str = Field(description="The name of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, in one sentence.")
    hint: str | None = Field(default=None, description="What to do about it.")


def problem(status: int, detail: str, *, hint: str | None = None) -> bytes:
    """A problem as JSON."""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": storable(detail),
    }
    return orjson.dumps(found if hint is None else {**found, "hint": storable(hint)})


def storable(text: str) -> str:
    """Text without lone surrogates, which a request may name and no answer can carry."""
    return text.encode("utf-8", "replace").decode()
