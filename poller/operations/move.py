"""A state moved from a file into a database, or from a database into a file."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from poller.clock import SystemClock
from poller.options.problems import NotThere
from poller.redaction import SECRETS
from state.errors import StateError
from state.move import BATCH, Result, Side, move
from state.open import is_there, open_side
from state.place import DatabaseUrl, Place


def move_state(
    source: Place, target: Place, *, batch: int = BATCH, progress: Callable[[str, int], None] = lambda *_: None
) -> Result:
    """Move a state, or continue a move that was interrupted. Raises StateError; Held where either side is in use."""
    if isinstance(source, Path) == isinstance(target, Path):
        raise StateError(
            "one side is a file and the other one a database (postgresql://...)",
            hint="poller backup copies a file; pg_dump and pg_restore copy a database",
        )
    if not is_there(source):
        raise NotThere(f"{source}: there is no state to move")
    with open_side(source) as one, open_side(target) as other:
        return move(
            one,
            other,
            id_=secrets.token_hex(8),
            to=str(target.absolute() if isinstance(target, Path) else target),
            steady=_steady(source, one),
            batch=batch,
            progress=progress,
        )


def place_of(text: str) -> Place:
    """A place as it is written on a command line: a URL, or the path of a file."""
    if not text.startswith(("postgresql://", "postgres://")):
        return Path(text).absolute()
    if password := urlsplit(text).password:
        SECRETS.add(password)
    return DatabaseUrl(text)


def _steady(place: Place, side: Side) -> float:
    """The steady time of a state now: a database's is its clock's, a file's continues from its anchor."""
    if isinstance(place, DatabaseUrl):
        return side.now()
    return SystemClock.resume(side.meta().get("clock")).steady()
