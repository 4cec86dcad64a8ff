"""Import of libraries without those of their parts that nothing here uses and that take as long as all the rest.

httpx has a command line and structlog has tracebacks in colour: both load pygments. sqlite-utils knows the types of
numpy where it is installed. Each of them does without where a module cannot be found.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import import_module


def load() -> None:
    """Import them, before anything else does."""
    with _hidden("httpx._main", "rich.traceback", "numpy"):
        for name in ("httpx", "structlog", "sqlite_utils"):
            import_module(name)


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """As long as it lasts, modules that were not imported yet cannot be."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None: documented as "not to be found"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
