"""Connections that are not kept for ever: a name is looked up anew, as when an API has moved to another host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx

LONGEST: Final = 300.0  # seconds; a connection that is always busy is never idle for long enough to be closed


class Dropped(httpx.RemoteProtocolError):
    """No answer, over a connection that may have been kept from an earlier one."""


class RenewedTransport(httpx.AsyncBaseTransport):
    """A transport that is made anew after `LONGEST` seconds. The one before is closed after its last answer.

    Some servers end a connection that they have said to keep, or send bytes after an answer, which are then taken for
    the beginning of the next one. After a call that failed so, no connection is kept until the transport is made anew.
    """

    def __init__(self, made: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._made = made
        self._current = _Transport(made())
        self._until: float | None = None  # the loop's time; not known before the first request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + LONGEST
        elif now >= self._until:
            before, self._current, self._until = self._current, _Transport(self._made()), now + LONGEST
            await before.retire()
        used = self._current
        may_be_kept = used.has_answered and not used.closes
        try:
            return await used.answer(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            if not may_be_kept:
                raise
            if self._current is used:
                self._current = _Transport(self._made(), closes=True)
                await used.retire()
            raise Dropped(str(error), request=request) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._current.inner.aclose()


class _Transport:
    """One transport, with the number of answers that it still reads."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *, closes: bool = False) -> None:
        self.inner = inner
        self.closes = closes  # each connection is closed after its answer
        self.has_answered = False
        self._reading = 0
        self._is_retired = False

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self._reading += 1
        if self.closes:
            request.headers["connection"] = "close"
        try:
            response = await self.inner.handle_async_request(request)
        except BaseException:
            await self.left()
            raise
        self.has_answered = True
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Stream(response.stream, self)
        return response

    async def left(self) -> None:
        """An answer is over."""
        self._reading -= 1
        await self._close_if_over()

    async def retire(self) -> None:
        """Take no more requests."""
        self._is_retired = True
        await self._close_if_over()

    async def _close_if_over(self) -> None:
        if self._is_retired and self._reading == 0:
            await self.inner.aclose()


class _Stream(httpx.AsyncByteStream):
    """The body of an answer."""

    def __init__(self, inner: httpx.AsyncByteStream, transport: _Transport) -> None:
        self._inner = inner
        self._transport: _Transport | None = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            yield chunk

    async def aclose(self) -> None:
        transport, self._transport = self._transport, None
        try:
            await self._inner.aclose()
        finally:
            if transport is not None:
                await transport.left()
