"""URLs for display. Pure."""

from __future__ import annotations

from typing import Final

import httpx

from poller.redaction import SECRETS

_SHOWN: Final = frozenset(
    {"page", "limit", "per_page", "offset", "cursor", "since", "size", "starting_after"}
)  # parameters whose values are shown, unless one is a secret


def shown_url(url: httpx.URL | str) -> str:
    """A URL for display: without credentials, and without the values of its query."""
    url = httpx.URL(url)
    items = url.params.multi_items()
    names = "&".join(f"{name}=…" if _is_hidden(name, value) else f"{name}={value}" for name, value in items)
    return f"{url.scheme}://{url.netloc.decode()}{url.path}" + (f"?{names}" if names else "")


def _is_hidden(name: str, value: str) -> bool:
    return SECRETS.holds(value) or name.lower() not in _SHOWN
