"""Import of libraries without those of their parts that nothing here uses and that take as long as all the rest.

httpx has a command line, and structlog has tracebacks in colour, which load rich and pygments. Each of them does
without where a module cannot be found.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

CRITICAL: Final = 50  # of `logging`
WITHOUT: Final = {  # a library, and the modules that it does not find while it is imported
    "httpx": ("httpx._main",),
    "structlog": ("rich", "rich.console", "rich.pretty", "rich.traceback", "colorama"),
}


class _LeanFinder:
    """Finds these libraries, each with a loader that hides what it does without.

    Other threads cannot import what is hidden meanwhile: the libraries are imported before any thread begins.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of one of the libraries; None for any other module."""
        spec = PathFinder.find_spec(name, path, target) if name in WITHOUT else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_lean(module: ModuleType) -> None:
            with _hidden(*WITHOUT[name]):
                execute(module)
            if name == "structlog":
                _silence(module)

        spec.loader.exec_module = execute_lean  # type: ignore[method-assign] # each specification has its own loader
        return spec


def begin() -> None:
    """From now on, import the libraries so, and log nothing until the log is set up."""
    # OpenBLAS, of numpy, starts a thread for each core: a fifth of its import. The planner multiplies no matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # pydantic would read the metadata of every installed package for plugins of its own. An empty variable lets it.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if "structlog" in sys.modules:
        _silence(sys.modules["structlog"])
    if not any(isinstance(finder, _LeanFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LeanFinder())


def _silence(structlog: ModuleType) -> None:
    """Log nothing yet: only the daemon and `once` log, and set it up. Other commands print."""
    if not structlog.is_configured():
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """As long as it lasts, modules that were not imported yet cannot be."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # documented as "not to be found"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
