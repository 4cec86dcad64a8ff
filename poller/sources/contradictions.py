"""What an answer itself says about the end of its list, whatever the configuration expects.

Totals, flags and next pages are written in many forms; each is read in one place. Where the configuration says that a
list has ended and the answer says otherwise, that is a contradiction: a sentence for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import httpx
from httplink import parse_link_header

from poller.sources.paths import MISSING, Answer, Path
from poller.sources.protocol import PageError

_RANGE: Final = re.compile(r"(?:[a-zA-Z]+[ =])?(?:\d+-\d+|\*)/(\d{1,18})")  # Content-Range: RFC 9110, 14.4
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_TRUE: Final = ("true", "yes", "1")
_FALSE: Final = ("false", "no", "0", "", "null", "none")


def count_of(found: Any) -> int | None:
    """A count of objects: a number, its text, or the end of a `Content-Range`. None: it is none of these."""
    if isinstance(found, str):
        text = found.strip()
        ranged = _RANGE.fullmatch(text)
        text = ranged[1] if ranged else text
        return int(text) if _DIGITS.fullmatch(text) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def flag_of(found: Any) -> bool | None:
    """A flag in any form that APIs give it. None: it is no flag."""
    if found is None or found is MISSING:
        return None
    text = str(found).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


_NEXT_TOKENS: Final = ("next_page", "nextPage", "next_cursor", "nextCursor", "next_page_token", "nextPageToken")
_NEXT_URLS: Final = ("next", "next_url", "nextLink", "@odata.nextLink", "nextRecordsUrl")
_MORE: Final = ("has_more", "hasMore", "has_next", "hasNext", "hasNextPage")
_TOTALS: Final = ("total", "total_count", "totalCount", "total_results", "totalResults", "totalSize")
_TOTAL_HEADERS: Final = ("x-total-count", "x-total", "x-wp-total", "content-range")


def contradictions(
    answer: Answer,
    response: httpx.Response,
    *,
    count: int,
    has_flag: bool,
    has_next: bool,
    has_link: bool,
    has_pages: bool,
) -> Iterator[str]:
    """What the last answer of a list says against its being the last. `has_...`: what the configuration reads itself.

    Only the members of the answer's highest level are looked at, under the names that APIs commonly give them.
    """
    members = answer.members() or {}
    values = {name: answer.value(_member(name)) for name in (*_MORE, *_NEXT_TOKENS, *_NEXT_URLS) if name in members}
    if not has_flag:
        yield from (
            f"the answer says {name} = true where the list should end" for name in _MORE if flag_of(values.get(name))
        )
    if not (has_flag or has_next):
        named = [name for name in (*_NEXT_URLS, *_NEXT_TOKENS) if _names_a_page(values.get(name))]
        yield from (f"the answer names a next page ({name}) where the list should end" for name in named[:1])
    if not (has_flag or has_link) and _links_onward(response):
        yield 'the answer has a Link header with rel="next" where the list should end'
    if not has_pages:
        yield from _larger_totals(answer, members, count, response)


def _larger_totals(answer: Answer, members: dict[str, Any], count: int, response: httpx.Response) -> Iterator[str]:
    said: list[tuple[str, int | None]] = [
        (name, count_of(answer.value(_member(name)))) for name in _TOTALS if name in members
    ]
    said += [(name, count_of(response.headers[name])) for name in _TOTAL_HEADERS if name in response.headers]
    larger = [(name, total) for name, total in said if total is not None and total > count]
    yield from (
        f"the answer says {name} = {total} and shows {count} objects, but no pagination is configured"
        for name, total in larger[:1]
    )


def next_href(response: httpx.Response) -> str | None:
    """The target of the first link with rel="next" (RFC 8288, section 3). Raises PageError where none can be read."""
    text = ", ".join(response.headers.get_list("link"))
    try:
        links = parse_link_header(text).links
    except ValueError as exc:
        raise PageError(f"the Link header cannot be read (RFC 8288): {text[:80]!r}") from exc
    return next((link.target for link in links if "next" in link.rel), None)


def _member(name: str) -> Path:
    return Path(text=name, names=(name,))


def _names_a_page(found: Any) -> bool:
    if isinstance(found, dict):
        return bool(found)
    return isinstance(found, str | int) and not isinstance(found, bool) and bool(found)


def _links_onward(response: httpx.Response) -> bool:
    try:
        return next_href(response) is not None
    except PageError:
        return False
