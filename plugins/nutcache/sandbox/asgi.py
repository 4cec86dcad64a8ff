"""The sandbox as an ASGI application: the API below `/webapi`, the control interface below `/_sandbox`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

from plugins.nutcache.sandbox import control
from plugins.nutcache.sandbox.exchange import Answer, Refusal, Request, error_answer
from plugins.nutcache.sandbox.sandbox import Sandbox

ROOT = "/webapi"
_OWN = "/_sandbox/"
Message = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Message], Any]


class Application:
    """Reads requests, sends answers, and breaks connections where a fault demands it.

    `drop` closes the connection of a client (host and port).
    """

    def __init__(self, sandbox: Sandbox, *, drop: Callable[[Any], None]) -> None:
        self._sandbox = sandbox
        self._drop = drop

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        request = await _read(scope, receive)
        if scope["path"].startswith(_OWN):
            await _send(send, control.answer(self._sandbox, request), request)
        elif scope["path"].startswith(ROOT + "/"):
            await self._serve(request, scope["client"], send)
        else:
            missing = Refusal(404, f"The API is below {ROOT}.")
            await _send(send, error_answer(missing, self._sandbox.variants.errors), request)

    async def _serve(self, request: Request, client: Any, send: Send) -> None:
        fault, answer = self._sandbox.answer(request)
        kind = fault.kind if fault else None
        if fault is not None and kind == "delay":
            await asyncio.sleep(fault.seconds)
        self._sandbox.note(request, 0 if kind == "drop" else answer.status)
        if kind == "drop":
            self._drop(client)
            await asyncio.sleep(0)  # until the server has noticed that the client is gone
        else:
            await _send(send, answer, request, cut=kind == "cut")


async def _read(scope: Message, receive: Receive) -> Request:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    raw_query = scope["query_string"].decode("latin-1")
    return Request(
        method=scope["method"],
        path=scope["path"].removeprefix(ROOT).strip("/"),
        query=dict(parse_qsl(raw_query, keep_blank_values=True)),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
        raw_query=raw_query,
    )


async def _send(send: Send, answer: Answer, request: Request, *, cut: bool = False) -> None:
    headers = [(b"date", formatdate(usegmt=True).encode())]
    if answer.status != 204:
        headers.append((b"content-type", answer.content_type.encode()))
        headers.append((b"content-length", str(len(answer.body)).encode()))
    headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = b"" if request.method == "HEAD" else answer.body
    if cut:  # less than the announced length, then the end
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    else:
        await send({"type": "http.response.body", "body": body})
