"""Where the configuration file is."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from poller.hooks.ownership import distrust
from poller.options.problems import ConfigError, Problem

PLACES: Final = (Path("poller.toml"), Path("/etc/poller/poller.toml"))


def find(path: Path | None = None) -> Path:
    """The path of the configuration: `path`, `$POLLER_CONFIG`, ./poller.toml or /etc/poller/poller.toml.

    Raises ConfigError without a file, and for a file that was found by default but could have been written by another
    user.
    """
    if path is None and (named := os.environ.get("POLLER_CONFIG")):
        path = Path(named)
    for place in (path,) if path is not None else PLACES:
        if place.is_file():
            if path is None and (why := distrust(place)) is not None:
                hint = f"{why[1]}; or --config {place}, if you mean it"
                raise ConfigError(place, [Problem(key="", what=f"not taken: {why[0]}", hint=hint)])
            return place.absolute()
    missing = "this is a folder, not a file" if path is not None and path.is_dir() else "this file does not exist"
    what = missing if path is not None else "no configuration found (nor /etc/poller/poller.toml)"
    named = f"name a file in it: --config {path / 'poller.toml'}" if path is not None and path.is_dir() else ""
    hint = named or (f"poller init --config {path}" if path is not None else "poller init, or --config FILE")
    raise ConfigError(path or PLACES[0], [Problem(key="", what=what, hint=hint)])


def digest_of(file: Path) -> str:
    """The SHA-256 of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def tables_of(text: str) -> Mapping[str, Any]:
    """The tables of a file, parsed once by a command that looks for a daemon and then loads it. Raises what tomllib
    raises.
    """
    return tomllib.loads(text)
