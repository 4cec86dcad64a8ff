"""Admission of calls to the sandbox: accounts, tokens, and the rate limits of each API key."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

from plugins.nutcache.sandbox.exchange import Answer, Refusal, Request, as_json
from plugins.nutcache.sandbox.limiter import Limiter
from plugins.nutcache.sandbox.variants import Variants
from poller import Limit

API_KEY = "sandboxSANDBOXsandboxSANDBOXsandbox12345"
USERNAME = "owner@maple.example"
PASSWORD = "sandbox"
ACCESS_TOKEN = "sandbox-access-token"
TOKEN_SECONDS = 1209599.0  # what the documentation shows: 14 days less a second


@dataclass(slots=True)
class _Grant:
    api_key: str
    expires: float


class Admission:
    """Tokens and limits. `ACCESS_TOKEN` is valid from the start; `clock` gives Unix seconds."""

    def __init__(
        self, limits: Sequence[Limit], variants: Variants, *, clock: Callable[[], float], token_seconds: float
    ) -> None:
        self._limits = tuple(limits)
        self._variants = variants
        self._clock = clock
        self._token_seconds = token_seconds
        self._grants = {ACCESS_TOKEN: _Grant(API_KEY, math.inf)}
        self._limiters: dict[str, Limiter] = {}
        self.logins = 0

    def admit(self, request: Request) -> None:
        """Count the call against its key. Raises Refusal with 401 or 429.

        A call with an expired token has a known key, so it counts; one without a known token counts for no key.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self._grants.get(token.strip())
        if grant is None or scheme.lower() != "bearer":
            raise Refusal(401, "Authorization is missing or wrong.")
        self._count(grant.api_key)
        if grant.expires <= self._clock():
            raise Refusal(401, "The token has expired.")

    def log_in(self, request: Request) -> Answer:
        """The password grant. Raises Refusal with 429."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        if form.get("api_key") == API_KEY and self._variants.token_calls == "count":
            self._count(API_KEY)
        if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
            return as_json({"error": "invalid_request"}, status=400)
        if form.get("grant_type") != "password":
            return as_json({"error": "unsupported_grant_type"}, status=400)
        if (form.get("username"), form.get("password"), form.get("api_key")) != (USERNAME, PASSWORD, API_KEY):
            text = "The user name, password or API key is incorrect."
            return as_json({"error": "invalid_grant", "error_description": text}, status=400)
        self.logins += 1
        token = secrets.token_urlsafe(48)
        self._grants[token] = _Grant(API_KEY, self._clock() + self._token_seconds)
        return as_json({"access_token": token, "token_type": "bearer", "expires_in": int(self._token_seconds)})

    def expire_tokens(self) -> None:
        """Expire every token that was ever issued, including the one that is valid from the start."""
        for grant in self._grants.values():
            grant.expires = -math.inf

    def tallies(self) -> dict[str, Any]:
        """The number of calls and of refused calls, and the highest use of each window (over all keys)."""
        limiters = list(self._limiters.values()) or [Limiter(self._limits)]
        return {
            "calls": sum(limiter.calls for limiter in limiters),
            "refused": sum(limiter.refused for limiter in limiters),
            "windows": [asdict(max(tallies, key=lambda tally: tally.worst)) for tallies in _by_window(limiters)],
        }

    def _count(self, api_key: str) -> None:
        limiter = self._limiters.get(api_key)
        if limiter is None:
            variants = self._variants
            limiter = Limiter(
                self._limits, windows=variants.windows, day=variants.day, refused_calls=variants.refused_calls
            )
            self._limiters[api_key] = limiter
        now = self._clock()
        wait = limiter.arrive(now)
        if wait > 0:
            raise Refusal(429, "Too many calls.", headers=self._retry_after(now, wait))

    def _retry_after(self, now: float, wait: float) -> dict[str, str]:
        match self._variants.retry_after:
            case "missing":
                return {}
            case "date":
                return {"retry-after": formatdate(math.floor(now + wait) + 1, usegmt=True)}
            case _:  # the very end of a window still counts, so a whole number of seconds is not yet enough
                return {"retry-after": str(math.floor(wait) + 1)}


def _by_window(limiters: Sequence[Limiter]) -> list[tuple[Any, ...]]:
    return list(zip(*(limiter.tallies for limiter in limiters), strict=True))
