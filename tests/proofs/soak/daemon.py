"""`poller` as always, but that old events are purged every minute: an hour is to see many purges, and not two."""

from __future__ import annotations

import sys

import poller.daemon.upkeep
from poller.cli import invoke

EVERY = 60.0  # seconds

if __name__ == "__main__":
    poller.daemon.upkeep.PURGE_EVERY = EVERY  # type: ignore[misc]
    sys.exit(invoke(sys.argv[1:]))
