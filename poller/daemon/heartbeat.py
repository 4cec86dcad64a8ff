"""Signs of life: a URL that is called while the daemon works, and one line for the service manager."""

from __future__ import annotations

import asyncio

import httpx
import structlog

from poller.app import App
from poller.rendering.counting import counted

log = structlog.get_logger("poller")

PATIENCE = 10  # seconds for the whole call


async def beat(app: App) -> None:
    """Call the heartbeat URL while the daemon works, so that another system notices when the calls stop."""
    url = app.config.poller.heartbeat
    if url is not None and app.engine.watch.is_well():
        await call(url.reveal())


async def call(url: str, *, patience: float = PATIENCE) -> None:
    """Call the URL once; a failure is logged. Only the answer's status is read, because its body may be endless."""
    try:
        async with (
            asyncio.timeout(patience),
            httpx.AsyncClient(trust_env=False, timeout=patience) as client,
            client.stream("GET", url) as response,
        ):
            if response.is_error:
                log.warning("heartbeat.failed", status=response.status_code)
    except Exception as error:  # noqa: BLE001 - a peer may answer anything; the URL in the message is a secret
        log.warning("heartbeat.failed", error=type(error).__name__)


def status_line(app: App) -> str:
    """One line that `systemctl status` shows."""
    if (outage := app.write.outage) is not None:
        return f"paused: {outage}"
    endpoints = sum(len(run.endpoints) for run in app.engine.sources.values())
    calls = sum(poll_loop.tasks.begun for poll_loop in app.engine.loops.values())
    return f"watching {counted(endpoints, 'endpoint')}, {counted(calls, 'call')} since the start"
