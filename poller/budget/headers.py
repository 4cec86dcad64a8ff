"""Rate limit headers of an answer. Pure.

Supported are `Retry-After` (RFC 9110, 10.2.3: seconds or a date), `RateLimit` with `RateLimit-Policy`
(draft-ietf-httpapi-ratelimit-headers: structured fields since -08, `limit=, remaining=, reset=` in -07),
`RateLimit-Limit`, `-Remaining` and `-Reset` (-06 and before), the same with `X-` and as `X-Rate-Limit-` (Okta, X), and
`-Reset-After` (Discord). Nothing here raises: headers that cannot be read are left out and listed in `notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from poller.http_dates import LONGEST, age, instant, number, retry_after

_MOST_CALLS: Final = 10**9
_LONGEST_HEADER: Final = 2048
_MOST_QUOTAS: Final = 16

_PREFIXES: Final = ("ratelimit", "x-ratelimit", "x-rate-limit")
_ABOUT_LIMITS: Final = re.compile("rate-?limit|^retry-after$", re.IGNORECASE)
_MEMBER: Final = re.compile(r'(?:[^,"]|"[^"]*")+')
_PART: Final = re.compile(r'(?:[^;"]|"[^"]*")+')


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of one of the server's windows."""

    name: str = ""
    remaining: int
    reset_in: float | None = None  # seconds until there is more, at most LONGEST
    limit: int | None = None  # calls in a whole window
    window: float | None = None  # seconds


class RateLimitHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer says about further calls."""

    status: int = 200
    is_refusal: bool = False  # the text of the answer says that there were too many calls
    retry_after: float | None = None  # seconds from now, at most LONGEST
    quotas: tuple[Quota, ...] = ()
    notes: tuple[str, ...] = ()  # headers that could not be read, for the operator


def read_headers(status: int, headers: Mapping[str, str], now: float) -> RateLimitHeaders:
    """The rate limit headers of an answer. `headers` finds lower-case names; `now` is Unix seconds of the wall clock.

    Instants are compared with the answer's own `Date` and `Age` if it has them, because the two clocks may differ.
    """
    if not any(_ABOUT_LIMITS.search(name) for name in headers):
        return RateLimitHeaders(status=status)
    reader = _Reader(headers, now)
    retry_after = reader.retry_after()
    quotas = [*reader.structured(), *(quota for prefix in _PREFIXES for quota in reader.plain(prefix))]
    return RateLimitHeaders(
        status=status,
        retry_after=retry_after,
        quotas=tuple(quotas[:_MOST_QUOTAS]),
        notes=tuple(reader.notes[:_MOST_QUOTAS]),
    )


def is_throttled(headers: RateLimitHeaders) -> bool:
    """Whether the answer refuses a call because there were too many: a 429, a 403 that says so in its headers, or an
    error that says so in its text.
    """
    says_so = headers.retry_after is not None or any(quota.remaining == 0 for quota in headers.quotas)
    return headers.status == 429 or headers.is_refusal or (headers.status == 403 and says_so)


def word_of(headers: RateLimitHeaders) -> str:
    """The part of an answer that asks for a pause, as text; empty if it asks for none."""
    if headers.retry_after is not None:
        return f"an answer {headers.status} says to come back in {headers.retry_after:.0f} s (Retry-After)"
    if used_up := [quota for quota in headers.quotas if quota.remaining == 0]:
        until = "" if any(quota.reset_in is not None for quota in used_up) else ", and not until when"
        return f"an answer {headers.status} says that no call remains{until}"
    return f"an answer {headers.status}" if is_throttled(headers) else ""


class _Reader:
    """One answer's headers, and those that could not be read."""

    def __init__(self, headers: Mapping[str, str], now: float) -> None:
        self._headers = headers
        self.notes: list[str] = []
        sent = instant(headers.get("date", ""))
        self._now = now if sent is None else sent + age(headers)

    def retry_after(self) -> float | None:
        text = self._header("retry-after")
        if text is None:
            return None
        seconds = retry_after(text, self._now)
        if seconds is None:
            self._unreadable("retry-after", text)
        return seconds

    def structured(self) -> Iterable[Quota]:
        """Quotas of `RateLimit`, joined with the policies of the same name."""
        text = self._header("ratelimit")
        if text is None:
            return ()
        members = _members(text)
        old = {key.lower(): value for key, _, value in (name.partition("=") for name, _ in members) if value}
        if "remaining" in old:
            found = self._quota("ratelimit", old.get("remaining"), old.get("reset"), old.get("limit"), self._window())
            return () if found is None else (found,)
        policies = self._policies()
        quotas = [self._member(name, parameters, policies) for name, parameters in members]
        return [quota for quota in quotas if quota is not None]

    def plain(self, prefix: str) -> Iterable[Quota]:
        """The quota given in separate headers."""
        remaining = self._header(f"{prefix}-remaining")
        if remaining is None:
            return ()
        limit, window = (self._header(f"{prefix}-limit") or "").partition(",")[0].partition(";")[0], None
        if prefix == "ratelimit":
            window = self._window()
        reset = self._header(f"{prefix}-reset-after") or self._header(f"{prefix}-reset")
        quota = self._quota(f"{prefix}-", remaining, reset, limit, window)
        return () if quota is None else (quota,)

    def _member(
        self, name: str, parameters: Mapping[str, str], policies: Mapping[str, Mapping[str, str]]
    ) -> Quota | None:
        policy = policies.get(name, {})
        if "r" not in parameters:
            self._unreadable("ratelimit", name)
            return None
        window = _seconds(policy.get("w"))
        return self._quota(name, parameters["r"], parameters.get("t"), policy.get("q"), window)

    def _quota(
        self, name: str, remaining: str | None, reset: str | None, limit: str | None, window: float | None
    ) -> Quota | None:
        left = number(remaining or "")
        if left is None:
            self._unreadable(f"{name} remaining", remaining or "")
            return None
        calls = number(limit or "")
        if calls == 0:  # some servers mean that there is no limit: a window without calls would never allow one
            return None
        return Quota(
            name=name,
            remaining=int(min(left, _MOST_CALLS)),
            reset_in=self._reset(name, reset),
            limit=None if calls is None else int(min(calls, _MOST_CALLS)),
            window=window,
        )

    def _reset(self, name: str, text: str | None) -> float | None:
        if not text:
            return None
        seconds = retry_after(text, self._now)
        if seconds is None:
            self._unreadable(f"{name} reset", text)
        return seconds

    def _policies(self) -> dict[str, Mapping[str, str]]:
        return dict(_members(self._header("ratelimit-policy") or ""))

    def _window(self) -> float | None:
        """The only window of a policy that names none (`100;w=60`, to -07); None if there are several."""
        policies = list(self._policies().values())
        return _seconds(policies[0].get("w")) if len(policies) == 1 else None

    def _header(self, name: str) -> str | None:
        text = self._headers.get(name)
        return None if text is None else text[:_LONGEST_HEADER].strip()

    def _unreadable(self, what: str, text: str) -> None:
        self.notes.append(f"{what} cannot be read: {text[:40]!r}")


def _members(text: str) -> list[tuple[str, dict[str, str]]]:
    """The members of a structured list (RFC 9651, 3.1), names without quotes, parameters as text."""
    members = []
    for member in _MEMBER.findall(text)[:_MOST_QUOTAS]:
        name, *rest = [part.strip() for part in _PART.findall(member)] or [""]
        pairs = (part.partition("=") for part in rest)
        members.append((name.strip('"'), {key.strip().lower(): value.strip(' "') for key, _, value in pairs}))
    return members


def _seconds(text: str | None) -> float | None:
    seconds = number(text or "")
    return seconds if seconds and seconds <= 366 * LONGEST else None
