"""Which unit is polled next, and why. What others import."""

from poller.planner.planner import Planner
from poller.planner.units import Unit

__all__ = ["Planner", "Unit"]
