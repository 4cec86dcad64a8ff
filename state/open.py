"""Opens a state by its path: the only module outside of `state.sqlite` that knows which stores there are."""

from __future__ import annotations

from state.sqlite.backup import copy_state, restored
from state.sqlite.commands import Commands
from state.sqlite.read_status import StatusReader
from state.sqlite.store import Reader, Store, open_commands, open_reader
from state.sqlite.writer import Inline, Runner, Session, Writer

__all__ = [
    "Commands",
    "Inline",
    "Reader",
    "Runner",
    "Session",
    "StatusReader",
    "Store",
    "Writer",
    "copy_state",
    "open_commands",
    "open_reader",
    "restored",
]
