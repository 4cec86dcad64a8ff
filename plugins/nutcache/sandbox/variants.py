"""Variants: switches for behaviour that the documentation leaves open. The first value of each is the default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Literal, get_args, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """The server's answers where nothing is documented."""

    version_header: Literal["required", "ignored"] = "required"  # `api-version` missing or another one: 400
    company_missing: Literal["400", "403"] = "400"  # company header missing or not a GUID
    company_foreign: Literal["403", "404"] = "403"  # a company that the user is not in
    company_header: Literal["profile", "CompanyGuid", "OrganizationGuid"] = "profile"
    bounds: Literal["refuse", "clamp"] = "refuse"  # `page` below 1, `limit` outside 1..100
    past_end: Literal["empty", "404"] = "empty"  # a page after the last one
    last_link: Literal["absent", "always"] = "absent"  # next link on the last page
    order: Literal["id", "unstable"] = "id"
    filters: Literal["refuse", "ignore"] = "refuse"  # unknown property, operator, direction or key
    filtered_links: Literal["present", "absent"] = "present"
    unknown_include: Literal["refuse", "ignore"] = "refuse"
    embedding: Literal["inline", "sibling", "ignored"] = "inline"
    unknown: Literal["404", "403"] = "404"  # path or id that does not exist for this user
    soft_deleted: Literal["listed", "vanished"] = "listed"
    writes: Literal["documented", "empty"] = "documented"  # 201/200/204 with the record; or 200 and nothing
    write_refusal: Literal["400", "403"] = "400"
    windows: Literal["sliding", "fixed"] = "sliding"
    day: Literal["sliding", "utc"] = "sliding"
    refused_calls: Literal["count", "free"] = "count"
    retry_after: Literal["seconds", "missing", "date"] = "seconds"
    token_calls: Literal["count", "free"] = "count"  # undocumented; strict: they carry the API key, so they count
    timestamps: Literal["profile", "mixed"] = "profile"
    errors: Literal["json", "empty", "text", "html"] = "json"
    hidden: Literal["null", "absent"] = "null"  # a field that the user may not see


def choices() -> dict[str, tuple[str, ...]]:
    """Every variant and its values, the strict one first."""
    hints = get_type_hints(Variants)
    return {field.name: get_args(hints[field.name]) for field in fields(Variants)}


def parse_variants(texts: Iterable[str]) -> Variants:
    """`["order=unstable", "errors=html"]` -> Variants. Raises ValueError naming the nearest known one."""
    known = choices()
    chosen: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            near = get_close_matches(name, known, n=1) or [", ".join(known)]
            raise ValueError(f"unknown variant {name!r}; known: {near[0]}")
        if value not in known[name]:
            raise ValueError(f"{name} is one of {', '.join(known[name])}, not {value!r}")
        chosen[name] = value
    return Variants(**chosen)  # type: ignore[arg-type]
