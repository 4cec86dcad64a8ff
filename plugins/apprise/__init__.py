"""Sink `apprise`: any of the services of the apprise library, one notification per event or digest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugins.apprise.options import AppriseOptions
from plugins.apprise.sink import AppriseSink
from poller import hookimpl

__all__ = ["AppriseOptions", "AppriseSink", "register_sinks"]


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("apprise", AppriseSink)
