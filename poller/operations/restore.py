"""Restores a backup as the state, and keeps the old state next to it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from poller.options.problems import NotThere
from state.lock import StateLock
from state.open import copy_state, is_there
from state.private import sync

BESIDE = ("", "-wal", "-shm")  # the files of one state


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """What was restored, and where the old state is kept."""

    events: int
    objects: int
    kept: Path | None


def restore(backup: Path, state: Path, *, now: float) -> Restoration:
    """Replace the state by a backup. Raises StateError with the state unchanged, or Held if a daemon runs."""
    if not is_there(backup):
        raise NotThere(f"{backup}: this backup does not exist", hint="poller backup makes one")
    stamp = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    with StateLock(state).held():
        made = state.with_name(f"{state.name}.restoring-{stamp}")
        copied = copy_state(backup, made, now=now)  # checked, and on disk, before anything is moved
        kept = _set_aside(state, stamp)
        made.replace(state)
        with contextlib.suppress(PermissionError):  # a folder may be writable, but not readable
            sync(state.parent)
    return Restoration(events=copied.events, objects=copied.objects, kept=kept)


def _set_aside(state: Path, stamp: str) -> Path | None:
    if not is_there(state):
        return None
    kept = state.with_name(f"{state.name}.before-{stamp}")
    for suffix in BESIDE:
        if (file := state.with_name(state.name + suffix)).exists():
            file.rename(kept.with_name(kept.name + suffix))
    return kept
