"""A sign of life for somebody who notices its absence."""

from __future__ import annotations

import httpx
import structlog

from poller.app import App

log = structlog.get_logger("poller")

PATIENCE = 10  # seconds


async def beat(app: App) -> None:
    """Call the heartbeat URL while all is well; whoever waits for it hears of trouble by hearing nothing."""
    url = app.config.poller.heartbeat
    if url is None or not app.engine.is_well():
        return
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            (await client.get(url.reveal())).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.warning("heartbeat.failed", error=type(error).__name__)  # the URL is a secret, and in the message
