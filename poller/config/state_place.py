"""The path of the state, readable even from a broken configuration file: commands find the daemon there."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from poller.config.files import find, tables_of
from poller.options.problems import ConfigError

VARIABLE: Final = "POLLER_STATE"
DEFAULT: Final = "poller.db"
_TABLE: Final = re.compile(r"\s*\[+\s*([^\[\]]*?)\s*\]")
_STATE: Final = re.compile(r"""\s*state\s*=\s*(["'])(.+?)\1""")


def state_place(path: Path | None = None) -> Path | None:
    """The path of the state: `$POLLER_STATE`, else `state` of the file; None if neither gives one."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    try:
        file = find(path)
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except (ConfigError, OSError):
        return None
    said = _said(text)
    return file.parent / Path(said).expanduser() if "://" not in said else None


def _said(text: str) -> str:
    try:
        table: Any = tables_of(text).get("poller")
    except (tomllib.TOMLDecodeError, RecursionError):
        return _searched(text)
    said = table.get("state", DEFAULT) if isinstance(table, dict) else DEFAULT
    return said if isinstance(said, str) and said else DEFAULT


def _searched(text: str) -> str:
    """The value of `state` below `[poller]` in a file that is not valid TOML."""
    table = ""
    for line in text.splitlines():
        if found := _TABLE.match(line):
            table = found[1]
        elif table == "poller" and (found := _STATE.match(line)):
            return found[2]
    return DEFAULT
