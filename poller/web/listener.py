"""One socket and what answers on it: uvicorn, and the guarded app of the API and the dashboard."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from poller.web.access import Access, Guard
from poller.web.connections import LIMITS, BoundedProtocol, BoundedServer, Limits
from poller.web.requests import Bounds

GRACE: Final = 3  # seconds that running requests have to end
STARTED: Final = 0.005  # seconds between two checks whether a server has started


class Listener:
    """One socket and the guarded app behind it, serving until closed."""

    def __init__(self, listening: socket.socket, api: ASGIApp, access: Access | None, limits: Limits = LIMITS) -> None:
        self.listening = listening
        self.access = access
        self.closing = False
        config = uvicorn.Config(
            Bounds(Guard(api, access)),
            http=BoundedProtocol,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=GRACE,
        )
        self._server = BoundedServer(config, state={"listener": self}, limits=limits)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to accept connections."""
        self._serving = asyncio.create_task(self._server.serve([self.listening]), name="http")
        while not (self._server.started or self._serving.done()):
            await asyncio.sleep(STARTED)

    def stop_accepting(self) -> None:
        """Accept no more connections, and end streams."""
        self.closing = True
        self._server.should_exit = True
        self._server.stop_accepting()

    async def close(self) -> None:
        """Let requests end within the grace period, and close the socket."""
        self.stop_accepting()
        if self._serving is not None:
            await self._serving
        self.listening.close()
