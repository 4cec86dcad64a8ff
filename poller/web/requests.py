"""Limits of every request: a known length, a small body, and not too many at once."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poller.web.answers import send_problem

LARGEST: Final = 65536  # bytes of a request's body
AT_ONCE: Final = 16  # concurrent requests besides streams: each may hold a large answer
WITHOUT_TURN: Final = ("/healthz", "/readyz", "/api/v1/events/stream")


class Bounds:
    """ASGI middleware that reads a request's body before the app is called, and refuses bodies that are too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # other protocols are not served
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        try:
            body = await _body(receive, int(lengths[0])) if lengths else b""
        except ClientDisconnect:
            return
        if body is None:
            what = f"the body of a request may have {LARGEST} bytes at most"
            await send_problem(send, 413, what, close=True)
        elif scope["path"] in WITHOUT_TURN:
            await self._app(scope, _replayed(body, receive), send)
        else:
            async with self._turns:
                await self._app(scope, _replayed(body, receive), send)


async def _body(receive: Receive, announced: int) -> bytes | None:
    """The whole body, or None where it is too large. Raises ClientDisconnect."""
    if announced > LARGEST:
        return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > LARGEST:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body at once, and then what follows."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
