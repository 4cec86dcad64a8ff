"""What the model API answers: a list as it is asked for, and everything that can be wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from hashlib import sha256
from typing import Any

import httpx
import orjson

Rows = Sequence[tuple[int, Mapping[str, Any]]]  # (number, object) of each


def listed(
    request: httpx.Request, rows: Rows, *, style: str, size: int, past_end: int, traits: Collection[str]
) -> httpx.Response:
    """The part of a list that a request asks for, as an API with these traits shows it."""
    params, size = request.url.params, size - ("caps-size" in traits)
    pages = _pages(len(rows), size, style, is_short="short-pages" in traits)
    begin, end = (0, len(rows)) if style == "none" else _slice(rows, params, pages, size, style, traits)
    if begin >= len(rows) and begin > 0 and past_end != 200:
        return httpx.Response(past_end, json={"detail": "there is no such page"})
    body: dict[str, Any] = {"items": [shown for _, shown in rows[begin:end]]}
    headers = {}
    match style:
        case "keyset" | "cursor" if "next-for-ever" in traits:
            last = rows[end - 1][0] if style == "keyset" and begin < end else end
            body["next"] = str(last if begin < end else int(params.get("cursor", 0)) + 1)
        case "keyset":
            body["next"] = str(rows[end - 1][0]) if end < len(rows) else None
        case "cursor":
            body["next"] = str(end) if end < len(rows) else "0" if "cursor-loops" in traits and rows else None
        case "page-more":
            body["more"] = end < len(rows) or "next-for-ever" in traits
        case "page-total" | "offset-total":
            if begin == 0 or "total-once" not in traits:
                body["total"] = _total(len(rows), begin, size, traits)
        case "link" if end < len(rows) or "next-for-ever" in traits:
            onward = request.url.copy_set_param("page", int(params.get("page", 1)) + 1)
            headers["link"] = f'<{onward}>; rel="next"'
    if "counts-more" in traits:
        body["count"] = len(rows) + 2
    if "more-at-end" in traits:
        body["has_more"] = True
    return as_json(body, headers)


def _pages(number: int, size: int, style: str, *, is_short: bool) -> list[tuple[int, int]]:
    """(begin, end) of the pages that hold so many objects."""
    if style == "none":
        return []
    found: list[tuple[int, int]] = []
    begin = 0
    while begin < number:
        wanted = size - (len(found) % 2 if is_short else 0)
        found.append((begin, min(begin + wanted, number)))
        begin += wanted
    return found


def _slice(
    rows: Rows, params: httpx.QueryParams, pages: list[tuple[int, int]], size: int, style: str, traits: Collection[str]
) -> tuple[int, int]:
    is_numbered = style.startswith("page") or style == "link"
    if is_numbered:
        number = 0 if "ignore-page" in traits or "ignores-page" in traits else int(params.get("page", 1)) - 1
        if number >= len(pages) and "repeats-last" in traits:
            number = max(0, len(pages) - 1)
        return pages[number] if number < len(pages) else (max(len(rows), number), len(rows))
    if style == "keyset":
        begin = sum(1 for number, _ in rows if number <= int(params.get("cursor", 0)))
    else:
        begin = int(params.get("offset") or params.get("cursor") or 0)
    if "ignores-page" in traits:
        begin = 0
    if begin >= len(rows) and "repeats-last" in traits and pages:
        begin = pages[-1][0]
    return begin, min(len(rows), begin + size - (begin // size % 2 if "short-pages" in traits else 0))


def _total(number: int, begin: int, size: int, traits: Collection[str]) -> int | str:
    if "total-odd" in traits:
        return "many"
    if "total-high" in traits:
        return number + 2
    if "total-low" in traits:  # but not so low that it is right of the first pages
        return next((low for low in range(number - 1, 0, -1) if low % size), number)
    return number - begin if "total-shrinks" in traits else number


_HEADERS: dict[str, dict[str, str]] = {"429": {"retry-after": "2"}, "403-wait": {"retry-after": "2"}}


def distorted(kind: str, answer: httpx.Response, *, now: float) -> httpx.Response:
    """What comes instead of an answer that was to be good."""
    if kind == "429-date":
        return httpx.Response(429, headers={"retry-after": time_text(now + 2.0)})
    if kind == "403-text":
        return as_json({"message": "You have exceeded a secondary rate limit."}, status=403)
    if kind == "200-text":
        return as_json({"error": "Too many requests, slow down"})
    status = kind.removesuffix("-wait")
    if status.isdigit() and status[0] in "45":
        return httpx.Response(int(status), headers=_HEADERS.get(kind, {}))
    if kind == "html":
        return httpx.Response(200, html="<html>Be right back.</html>")
    if kind == "204":
        return httpx.Response(204)
    return _spoiled(kind, answer) if answer.is_success else answer


def _spoiled(kind: str, answer: httpx.Response) -> httpx.Response:
    """A good answer made into a bad one."""
    body = orjson.loads(answer.content)
    headers = {k: v for k, v in answer.headers.items() if k in ("link", "etag", "last-modified", "date", "age")}
    items = body.get("items")
    if kind == "truncated":
        return httpx.Response(200, content=answer.content[:-2], headers=headers)
    if items is None:  # an object's own answer: whatever it says, it is there
        return answer
    half = items[: len(items) // 2]
    match kind:
        case "empty":
            return as_json({"items": []})
        case "null":
            return as_json({**body, "items": None}, headers)
        case "errors":
            return as_json({**body, "items": half, "errors": [{"message": "a part timed out"}]}, headers)
        case "part":
            return as_json({**body, "items": half, "incomplete_results": True}, headers)
        case "202" | "206":
            return as_json({**body, "items": half}, headers, status=int(kind))
        case "renamed":
            return as_json({"data": items}, headers)
        case "no-id" if items:
            items[0].pop("id", None)
            items[0].pop("name", None)
        case "twice" if items:
            items.append({**items[0], "name": "another"})
    return as_json(body, headers)


def etag_of(answer: httpx.Response) -> str:
    """A strong validator of what the answer says."""
    return f'"{sha256(answer.content + answer.headers.get("link", "").encode()).hexdigest()[:8]}"'


def stamp(row: Mapping[str, Any]) -> str:
    """When an object was touched last."""
    return datetime.fromtimestamp(row["at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_text(at: float) -> str:
    """A time as HTTP has it."""
    return formatdate(at, usegmt=True)


def as_json(body: Any, headers: Mapping[str, str] | None = None, *, status: int = 200) -> httpx.Response:
    """The body as JSON."""
    return httpx.Response(
        status, content=orjson.dumps(body), headers={"content-type": "application/json", **(headers or {})}
    )
