"""URLs as they may be shown. Pure."""

from __future__ import annotations

import httpx


def shown_url(url: httpx.URL | str) -> str:
    """A URL as it may be shown: without credentials, and without the values of its query."""
    url = httpx.URL(url)
    names = "&".join(f"{name}=…" if _is_hidden(name) else f"{name}={value}" for name, value in url.params.multi_items())
    return f"{url.scheme}://{url.netloc.decode()}{url.path}" + (f"?{names}" if names else "")


def _is_hidden(name: str) -> bool:
    return name.lower() not in {"page", "limit", "per_page", "offset", "cursor", "since", "size", "starting_after"}
