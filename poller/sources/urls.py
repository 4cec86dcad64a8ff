"""URLs with further parameters, and URLs for display. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

import httpx

from poller.redaction import SECRETS

_SHOWN: Final = frozenset(
    {"page", "limit", "per_page", "offset", "cursor", "since", "size", "starting_after"}
)  # parameters whose values are shown, unless one is a secret


def with_parameters(url: httpx.URL, params: Mapping[str, Any]) -> httpx.URL:
    """The URL with these parameters, instead of others of the same names. The rest of its query is kept to the byte:
    in a next URL it may be signed, or not UTF-8.
    """
    given = url.query.decode("ascii").split("&")
    kept = [part for part in given if part and unquote_plus(part.partition("=")[0]) not in params]
    return url.copy_with(query="&".join([*kept, str(httpx.QueryParams(params))]).encode())


def shown_url(url: httpx.URL | str) -> str:
    """A URL for display: without credentials, and without the values of its query."""
    url = httpx.URL(url)
    items = url.params.multi_items()
    names = "&".join(f"{name}=…" if _is_hidden(name, value) else f"{name}={value}" for name, value in items)
    return f"{url.scheme}://{url.netloc.decode()}{url.path}" + (f"?{names}" if names else "")


def _is_hidden(name: str, value: str) -> bool:
    return SECRETS.holds(value) or name.lower() not in _SHOWN
