"""Late imports of libraries that are slow to import and rarely needed: imported when one of their names is
first used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def late(name: str) -> Any:
    """A stand-in for the module `name`. Under `TYPE_CHECKING`, import the module by its own name as well."""
    return _Late(name)
