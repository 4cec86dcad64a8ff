"""Sink `email`: one mail per event or digest, as text and HTML, over one SMTP connection that is kept open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugins.email.options import EmailOptions
from plugins.email.sink import ACCEPTANCE, EmailSink
from poller import hookimpl

__all__ = ["ACCEPTANCE", "EmailOptions", "EmailSink", "register_sinks"]


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("email", EmailSink)
