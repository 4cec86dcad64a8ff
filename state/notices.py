"""Notices: what the program reports about itself, before the log has given them a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A message for operators. The store counts its version per subject and makes the event."""

    kind: str  # "source.failing": the event's type without "poller."
    subject: str  # "sources/acme", "endpoints/acme/projects", "subscriptions/crm"
    summary: str  # one sentence
    detail: Mapping[str, Any]
    time: float
