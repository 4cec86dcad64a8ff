"""Line numbers of keys in a TOML file, for error messages. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_NAME: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_PATH: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_HEADER: Final = re.compile(rf"\s*(\[\[?)\s*({_PATH})\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(rf"\s*({_PATH})\s*=\s*(.*)")
_STEP: Final = re.compile(_NAME)


class Places:
    """Line numbers of a TOML file's tables and keys, as far as a line-by-line scan finds them."""

    def __init__(self, text: str) -> None:
        self._lines = _lines(text)

    def line_of(self, key: str) -> int | None:
        """The line of a key such as `sources.a.endpoints.x.ignore[0]`, or of the nearest table that contains it."""
        while key:
            if key in self._lines:
                return self._lines[key]
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return None


def _lines(text: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    implied: dict[str, int] = {}  # tables without a header of their own: where the first table or key in them is
    tables: dict[str, int] = {}  # for an array of tables, the latest one
    at, alias = "", ""
    for number, written in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(written):
            at, alias = _dotted(header[2]), ""
            if header[1] == "[[":
                tables[at] = tables.get(at, -1) + 1
                implied.setdefault(at, number)
                at = f"{at}[{tables[at]}]"
            found.setdefault(at, number)
            for above in _tables_above(at):
                implied.setdefault(above, number)
        elif key := _KEY.match(written):
            name = _dotted(key[1])
            if at.endswith("]") and name == "name" and (value := _STEP.match(key[2])):
                alias = f"{at.rpartition('[')[0]}.{_bare(value[0])}"
                below = {known: line for known, line in found.items() if known == at or known.startswith(f"{at}.")}
                found.update({alias + known.removeprefix(at): line for known, line in below.items()})
            for prefix in filter(None, (at, alias)) if at else ("",):
                found.setdefault(f"{prefix}.{name}" if prefix else name, number)
    return {**implied, **found}


def _tables_above(key: str) -> list[str]:
    steps = key.split(".")
    return [".".join(steps[:length]) for length in range(1, len(steps))]


def _dotted(path: str) -> str:
    return ".".join(_bare(step) for step in _STEP.findall(path))


def _bare(step: str) -> str:
    return step[1:-1] if step[0] in "\"'" else step
