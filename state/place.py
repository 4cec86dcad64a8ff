"""The place of a state: a file, or a PostgreSQL database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Up to the last @, because a password may have been written as it is, with a : or / in it.
_PASSWORD: Final = re.compile(r"(?<=:).*(?=@)|(?<=password=)[^&]*", re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """A PostgreSQL database, which many workers share. Shown without its password."""

    url: str

    def __str__(self) -> str:
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{_PASSWORD.sub('***', rest)}"

    def __repr__(self) -> str:
        return f"DatabaseUrl({self})"


Place = Path | DatabaseUrl
