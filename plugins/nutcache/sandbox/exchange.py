"""Values of the sandbox's traffic: a request, an answer, and a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call, with the path below the base URL split into parts."""

    method: str
    path: str  # below the base URL, without slashes at its ends
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes = b""
    raw_query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a call."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A call that is answered with an error; the variant `errors` decides the form of its body."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


def as_json(value: Any, *, status: int = 200) -> Answer:
    return Answer(status=status, body=orjson.dumps(value))


def error_answer(refusal: Refusal, style: str) -> Answer:
    """The answer of a refusal, in one of the forms that an error body may have; the documentation names none."""
    match style:
        case "empty":
            body, content_type = b"", JSON
        case "text":
            body, content_type = refusal.message.encode(), "text/plain; charset=utf-8"
        case "html":
            body = f"<html><head><title>{refusal.status}</title></head><body>{refusal.message}</body></html>".encode()
            content_type = HTML
        case _:
            body, content_type = orjson.dumps({"message": refusal.message}), JSON
    return Answer(status=refusal.status, body=body, content_type=content_type, headers=refusal.headers)
