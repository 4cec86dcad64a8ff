"""Where the state is, also where the file that says so is broken: commands find the daemon there."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from poller.config.load import find
from poller.options.problems import ConfigError

VARIABLE: Final = "POLLER_STATE"
DEFAULT: Final = "poller.db"
_TABLE: Final = re.compile(r"\s*\[+\s*([^\[\]]*?)\s*\]")
_STATE: Final = re.compile(r"""\s*state\s*=\s*(["'])(.+?)\1""")


def state_place(path: Path | None = None) -> Path | None:
    """The state: `$POLLER_STATE`, else what the file says, as far as it can be read; None where nothing says it."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    try:
        file = find(path)
        text = file.read_text(encoding="utf-8", errors="replace")
    except (ConfigError, OSError):
        return None
    said = _said(text)
    return file.parent / Path(said).expanduser() if "://" not in said else None


def _said(text: str) -> str:
    try:
        table: Any = tomllib.loads(text).get("poller")
    except (tomllib.TOMLDecodeError, RecursionError):
        return _searched(text)
    said = table.get("state", DEFAULT) if isinstance(table, dict) else DEFAULT
    return said if isinstance(said, str) and said else DEFAULT


def _searched(text: str) -> str:
    """`state` below `[poller]` in a file that is not TOML as a whole."""
    table = ""
    for line in text.splitlines():
        if found := _TABLE.match(line):
            table = found[1]
        elif table == "poller" and (found := _STATE.match(line)):
            return found[2]
    return DEFAULT
