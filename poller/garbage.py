"""How Python looks for garbage in a process of Poller: objects that refer to each other in a circle."""

from __future__ import annotations

import gc
from typing import Final

SELDOM: Final = 20_000  # new objects after which Python looks; by default after 700


def look_seldom() -> None:
    """Look for garbage seldom. Nearly all objects that imports make stay: looking through them takes a tenth of a
    start.
    """
    gc.set_threshold(SELDOM)


def keep_all() -> None:
    """Keep everything that is loaded by now: it is not looked through for garbage any more."""
    gc.freeze()
