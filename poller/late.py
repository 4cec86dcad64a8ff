"""Modules of libraries that are dear to import and rarely needed: imported when one of their names is first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def late(name: str) -> Any:
    """Stands for the module `name`. Beside it, under `TYPE_CHECKING`, the module is imported by its own name."""
    return _Late(name)
