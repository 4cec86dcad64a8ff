"""Deletion of what is older than the retention, and of calls that no window counts any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from poller.delivery.retention import LogAge

if TYPE_CHECKING:
    from poller.app import App

KEY: Final = "log age"  # under which the age of the log is stored

log = structlog.get_logger("poller")


async def purge(app: App) -> None:
    """Delete what is old. Raises StateError."""
    retention, steady = app.config.poller.retention, app.clock.steady()
    saved = await app.write(app.store.learned.load, KEY)
    age = LogAge.parse(saved).at(steady, await app.write(app.store.log.last_seq), retention)
    await app.write(app.store.learned.save, {KEY: age.dump()})
    gone = await app.deliverer.purge(age.outlived(retention), before=min(app.clock.now(), steady) - retention)
    if gone:
        log.info("events.purged", events=gone)
    await app.engine.keeper.forget_calls()
