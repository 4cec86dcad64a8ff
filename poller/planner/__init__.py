"""The planner: which unit of a budget is polled next, and why."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from poller.planner.unit import Unit

if TYPE_CHECKING:
    from poller.planner.planner import Planner

__all__ = ["Planner", "Unit"]


def __getattr__(name: str) -> Any:
    """The planner, imported at its first use, because it computes with numpy."""
    if name == "Planner":
        return import_module("poller.planner.planner").Planner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
