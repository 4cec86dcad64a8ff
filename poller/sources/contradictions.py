"""What an answer itself says about the end of its list, against the configuration.

Totals, flags and next pages are written in many forms; each is read in one place. If the list has ended by the
configuration but not by the answer, that is a contradiction: a sentence for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

import httpx
import msgspec

from poller.rendering.counting import counted
from poller.sources.paths import MISSING, Answer, Path
from poller.sources.protocol import PageError

_RANGE: Final = re.compile(r"(?:[a-zA-Z]+[ =])?(?:\d+-\d+|\*)/(\d{1,18})")  # Content-Range: RFC 9110, 14.4
_DIGITS: Final = re.compile(r"([0-9]{1,18})(?:\.0+)?")
_TRUE: Final = ("true", "yes", "1")
_FALSE: Final = ("false", "no", "0", "", "null", "none")


def count_of(found: Any) -> int | None:
    """A count of objects: a number, its text, or the end of a `Content-Range`; None for anything else."""
    if isinstance(found, str):
        text = found.strip()
        digits = _RANGE.fullmatch(text) or _DIGITS.fullmatch(text)
        return int(digits[1]) if digits else None
    if isinstance(found, float) and found.is_integer():  # some languages write every number so
        found = int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def flag_of(found: Any) -> bool | None:
    """A flag in any form that APIs use; None if it is not a flag."""
    if found is None or found is MISSING:
        return None
    text = str(found).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


# Names without capitals and punctuation: `next`, `nextPageToken`, `@odata.nextLink`, `next_records_url`.
_NEXT: Final = re.compile(
    r"(?:odata)?next(?:page|records)?(?:cursor|token|link|url|uri|href|offset|start|marker)?|continuationtoken"
)
_MORE: Final = re.compile(r"has(?:more|next)(?:page|pages|items|results|records)?|more(?:records|results)|istruncated")
_LAST: Final = re.compile(r"(?:is)?last(?:page)?")
_PREVIOUS: Final = re.compile(r"prev(?:ious)?(?:page)?(?:link|url|uri|href)?")
_PUNCTUATION: Final = re.compile(r"[^a-z]+")
_MOST_NAMES: Final = 100  # members of an object that is looked at: one with more has objects under their keys
_TOTALS: Final = (
    *("total", "total_count", "totalCount", "total_results", "totalResults", "totalSize", "count", "@odata.count"),
    *("total_items", "totalItems", "total_records", "totalRecords", "total_elements", "totalElements"),
    *("total_entries", "totalEntries"),
)
_PAGES: Final = ("total_pages", "totalPages", "last_page", "lastPage", "page_count", "pageCount", "num_pages")
_AROUND: Final = (  # members that have those
    *("meta", "_meta", "metadata", "pagination", "paging", "page", "page_info", "pageInfo", "info", "result_info"),
    *("links", "_links", "response_metadata"),
)
_PLACES: Final[tuple[tuple[str, ...], ...]] = ((), *((name,) for name in _AROUND))
_PARTIAL: Final = (
    *("incomplete_results", "incompleteResults", "timed_out", "timedOut", "partial", "is_partial", "isPartial"),
    *("partial_results", "partialResults"),
)
_FAILED_PARTS: Final = ("_shards", "failed")  # Elasticsearch and OpenSearch: parts of the index that did not answer
_ERRORS: Final = ("errors", "error")
_LINK: Final = re.compile(r"""<([^<>]*)>((?:[^",]|"(?:[^"\\]|\\.)*")*)""")  # URL and parameters (RFC 8288, B.2)
_LINK_PARAMETER: Final = re.compile(r""";\s*([^\s=;]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;]*))?""")
_TOTAL_HEADERS: Final = ("x-total-count", "x-total", "x-wp-total")
_RANGE_HEADER: Final = "content-range"


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an answer that the configuration reads itself, and which are not looked for under other names."""

    has_flag: bool
    has_next: bool
    has_link: bool
    has_pages: bool
    has_total: bool = False
    page: int | None = None  # which page of a numbered list this is, counted from 1


def contradictions(answer: Answer, response: httpx.Response, count: int, configured: Configured) -> Iterator[str]:
    """What the last answer of a list says against its being the last, if it can mean nothing else.

    That is what the standards of HTTP define, and a URL that leads to the same list.
    """
    if not (configured.has_flag or configured.has_next):
        yield from _named(name for name, found in _alike(answer, _NEXT) if _leads_on(found, response))
    if not (configured.has_flag or configured.has_link) and _links_onward(response):
        yield 'the answer has a Link header with rel="next" where the list should end'
    if not configured.has_pages and _RANGE_HEADER in response.headers:
        yield from _larger([(_RANGE_HEADER, response.headers[_RANGE_HEADER])], count)


def guesses(answer: Answer, response: httpx.Response, count: int, configured: Configured) -> Iterator[str]:
    """What the answer says to the same effect under names that APIs commonly use. They are not configured, so they may
    mean something else.

    Only members on the top level of the answer are considered, and those one level below of what describes pages.
    """
    if not configured.has_flag:
        more = [f"{name} = true" for name, found in _alike(answer, _MORE) if flag_of(found)]
        more += [f"{name} = false" for name, found in _alike(answer, _LAST) if found is False]
        yield from (f"the answer says {said} where the list should end" for said in more[:1])
    if not (configured.has_flag or configured.has_next):
        nexts = _alike(answer, _NEXT)
        yield from _named(name for name, found in nexts if _names_a_page(found) and not _leads_on(found, response))
    if not configured.has_pages:
        yield from _larger(_totals(answer, response), count)
    if configured.page is not None and not configured.has_flag:
        for name, found in _found(answer, _PAGES):
            if (pages := count_of(found)) is not None and pages > configured.page:
                yield f"the answer says {name} = {pages} where the list should end with page {configured.page}"
                break


def signs_of_parts(answer: Answer) -> Iterator[str]:
    """What an answer, the last or not, says of itself if it holds only a part of what was asked for.

    Search engines give what they found until a time limit, and GraphQL what it could resolve, with status 200.
    """
    members = answer.members() or {}
    found = [name for name in _PARTIAL if name in members and flag_of(answer.value(_member(name)))]
    yield from (f"the answer says {name} = true: it may lack objects" for name in found[:1])
    failed = answer.value(Path(text=".".join(_FAILED_PARTS), names=_FAILED_PARTS)) if "_shards" in members else MISSING
    if count_of(failed):
        yield f"the answer says {'.'.join(_FAILED_PARTS)} = {count_of(failed)}: it may lack objects"
    reported = [name for name in _ERRORS if name in members and answer.value(_member(name))]
    yield from (
        f"the answer reports {name} beside its objects: it may lack some; `error` makes it a failed one"
        for name in reported[:1]
    )


def says_it_is_last(answer: Answer, response: httpx.Response, seen: int | None) -> bool:
    """Whether an answer says of itself that it is the last, by members that are not configured: `last` is true,
    `has_more` false, or `next` is null although it names a previous page or counts just the objects that were seen.

    A `next` that is null proves nothing by itself: the API may never use it.
    """
    more = [found for _, found in _alike(answer, _MORE)]
    if any(found is True for _, found in _alike(answer, _LAST)) or (more and all(found is False for found in more)):
        return True
    nexts = [found for _, found in _alike(answer, _NEXT)]
    if not nexts or any(_names_a_page(found) for found in nexts):
        return False
    if any(_names_a_page(found) for _, found in _alike(answer, _PREVIOUS)):
        return True
    total = guessed_total(answer, response)
    return total is not None and total[1] == seen


def guessed_total(answer: Answer, response: httpx.Response) -> tuple[str, int] | None:
    """How many objects the list has, and the name under which the answer says so; None if it does not seem to."""
    said = ((name, count_of(value)) for name, value in _totals(answer, response))
    return next(((name, total) for name, total in said if total is not None), None)


def _totals(answer: Answer, response: httpx.Response) -> list[tuple[str, Any]]:
    headers = [(name, response.headers[name]) for name in _TOTAL_HEADERS if name in response.headers]
    return [*_found(answer, _TOTALS), *headers]


def _found(answer: Answer, names: Iterable[str]) -> list[tuple[str, Any]]:
    """The members with these names, on the top level of the answer and in what usually describes pages."""
    found = []
    for around in _PLACES:
        members = answer.members(around) or {}
        found += [_at(answer, (*around, name)) for name in names if name in members]
    return found


def _at(answer: Answer, path: tuple[str, ...]) -> tuple[str, Any]:
    text = ".".join(path)
    return text, answer.value(Path(text=text, names=path))


def signs_of_more(response: httpx.Response) -> tuple[str, ...]:
    """What the answer says against its being the last, whatever the configuration reads of it."""
    answer = Answer(response.content)
    nothing = Configured(has_flag=False, has_next=False, has_link=False, has_pages=True)
    try:
        return (*contradictions(answer, response, 0, nothing), *guesses(answer, response, 0, nothing))
    except PageError:  # not JSON
        return ()


def counted_in(response: httpx.Response) -> tuple[str, int] | None:
    """See `guessed_total`, for an answer that was taken for one in the middle of its list."""
    try:
        return guessed_total(Answer(response.content), response)
    except PageError:  # not JSON
        return None


def _alike(answer: Answer, pattern: re.Pattern[str]) -> list[tuple[str, Any]]:
    """The members whose names match without capitals and punctuation, where `_found` looks."""
    found = []
    for around in _PLACES:
        members = answer.members(around) or {}
        if len(members) <= _MOST_NAMES:
            names = [name for name in members if pattern.fullmatch(_PUNCTUATION.sub("", name.lower()))]
            found += [_at(answer, (*around, name)) for name in names]
    return found


def _named(names: Iterator[str]) -> Iterator[str]:
    """The first of these members, as a sentence."""
    yield from (f"the answer names a next page ({name}) where the list should end" for name in islice(names, 1))


def _leads_on(found: Any, response: httpx.Response) -> bool:
    """Whether it is a URL of the same list, also as `{"href": ...}`, but not the one that was requested."""
    asked = response.request.url
    found = found.get("href") if isinstance(found, dict) else found
    if not isinstance(found, str) or "?" not in found:
        return False
    try:
        url = asked.join(found)
    except (httpx.InvalidURL, ValueError):
        return False
    return url.path == asked.path and url.query != asked.query


def _larger(said: Iterable[tuple[str, Any]], count: int) -> list[str]:
    """The first of these totals that is more than the answer shows."""
    totals = [(name, count_of(value)) for name, value in said]
    larger = [(name, total) for name, total in totals if total is not None and total > count]
    return [
        f"the answer says {name} = {total} and shows {counted(count, 'object')}, but no pagination is configured"
        for name, total in larger[:1]
    ]


def next_href(response: httpx.Response) -> str | None:
    """The target of the first link with rel="next" (RFC 8288, section 3). Raises PageError if the header cannot be
    read.

    Sentry always names a next page, and says of it with `results="false"` that it shows nothing.
    """
    text = ", ".join(response.headers.get_list("link"))
    if _LINK.sub("", text).strip(", \t"):
        raise PageError(f"the Link header cannot be read (RFC 8288): {text[:80]!r}")
    for href, parameters in _LINK.findall(text):
        given = [(name.lower(), value.strip("\"'")) for name, value in _LINK_PARAMETER.findall(parameters)]
        rels = [value.lower().split() for name, value in given if name == "rel"]  # the first one counts
        if rels and "next" in rels[0] and ("results", "false") not in given:
            return str(href)
    return None


def _member(name: str) -> Path:
    return Path(text=name, names=(name,))


def _names_a_page(found: Any) -> bool:
    if isinstance(found, dict):  # {"href": null} names none
        return any(found.values())
    return isinstance(found, str | int) and not isinstance(found, bool) and bool(found)


def _links_onward(response: httpx.Response) -> bool:
    try:
        return next_href(response) is not None
    except PageError:
        return False
