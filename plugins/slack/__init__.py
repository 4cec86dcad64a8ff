"""Sink `slack`: one message per event or digest, by incoming webhook (also Mattermost's) or as a bot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugins.slack.options import SlackOptions
from plugins.slack.sink import SlackSink
from poller import hookimpl

__all__ = ["SlackOptions", "SlackSink", "register_sinks"]


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("slack", SlackSink)
