"""This worker's reports about itself in the state, and those of the other workers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.metadata import version
from typing import Final

import structlog

from poller.app import App
from state.leases import Worker, WorkerState

TELL_EVERY: Final = 10.0  # seconds between two reports of this worker

log = structlog.get_logger("poller")


class Enrolment:
    """The reports of one worker, and whether all workers have the same configuration."""

    def __init__(self, app: App, worker: Worker) -> None:
        self._app = app
        self._worker = worker
        self._told_at = -TELL_EVERY
        self._digest = ""  # as it was reported
        self._digests: frozenset[str] = frozenset()

    def is_due(self, steady: float) -> bool:
        """Whether this worker's next report is due."""
        return steady - self._told_at >= TELL_EVERY or self._digest != self._app.config.digest

    async def tell(self, steady: float, *, lacks: Collection[str], ttl: float) -> None:
        """Report that this worker runs, and which leases it leaves to other workers."""
        app = self._app
        state = WorkerState(
            name=self._worker,
            version=version("poller"),
            digest=app.config.digest[:12],
            listen=app.config.poller.listen,
            lacks=tuple({**dict.fromkeys(lacks), **app.config.lacks}),
            is_reloaded=self._digest not in ("", app.config.digest),
        )
        await app.write.urgent(app.store.leases.enrol, state, ttl=ttl)
        if self._digest != app.config.digest:
            self._digest = app.config.digest
            for lease, why in app.config.lacks.items():
                log.warning("worker.lacks", lease=lease, why=why, hint="another worker that has it does this")
        self._told_at = steady

    async def leave(self) -> None:
        """Withdraw the report, and give up every lease."""
        await self._app.write(self._app.store.leases.leave, self._worker)
        self._told_at = -TELL_EVERY

    def compare(self, workers: Iterable[WorkerState], newest: str) -> None:
        """Log once when workers have different configurations, and once when they agree again."""
        digests = frozenset(worker.digest for worker in workers if worker.digest)
        if len(digests) > 1 and digests != self._digests:
            told = {worker.name: worker.digest for worker in workers}
            log.warning(
                "config.differs",
                workers=told,
                newest=newest,
                hint="the newest is used: give all workers that poller.toml, and reload them",
            )
        elif len(digests) <= 1 < len(self._digests):
            log.info("config.agrees")
        self._digests = digests
