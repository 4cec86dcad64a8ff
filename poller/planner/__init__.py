"""The planner: which unit of a budget is polled next, and why."""

from poller.planner.planner import Planner
from poller.planner.units import Unit

__all__ = ["Planner", "Unit"]
