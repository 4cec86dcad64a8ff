"""Calls of a source's methods, none of which may keep the event loop waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, ParamSpec, TypeVar

import httpx

from poller.hooks.source_adapter import SourceAdapter
from poller.polling.threads import LARGE, Apart
from poller.sources.protocol import Endpoint, Item, Position, Unparsed

P = ParamSpec("P")
T = TypeVar("T")

Ask = Callable[[httpx.Request], Awaitable[httpx.Response]]


class SourceCalls:
    """The methods of one source as coroutines, which raise as those of `SourceAdapter`.

    Those of an installed plugin run on the source's thread, so that one that blocks delays its own source alone.
    """

    def __init__(self, source: SourceAdapter, apart: Apart) -> None:
        self._source = source
        self._apart = apart
        self.takes_items = source.takes_items
        self.auth = source.auth if source.auth is None or source.is_ours else source.auth.on(apart)

    async def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
        """See `SourceAdapter.request`."""
        return await self._call(self._source.request, endpoint, at)

    async def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Unparsed:
        """See `SourceAdapter.page`."""
        if len(response.content) > LARGE:
            return await self._apart(self._source.page, endpoint, at, response)
        return await self._call(self._source.page, endpoint, at, response)

    async def item_request(self, endpoint: Endpoint, object_id: str, item: Item | None) -> httpx.Request | None:
        """See `SourceAdapter.item_request`."""
        return await self._call(self._source.item_request, endpoint, object_id, item)

    async def discover(self, ask: Ask) -> None:
        """Make the calls that the source needs before its first poll. Raises what `ask` raises, too."""
        steps = self._source.discover()
        request = await self._call(_sent, steps, None)
        while request is not None:
            request = await self._call(_sent, steps, await ask(request))

    async def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._source.is_ours:
            return method(*args, **kwargs)
        return await self._apart(method, *args, **kwargs)


def _sent(steps: Generator[httpx.Request, Any, None], answer: httpx.Response | None) -> httpx.Request | None:
    """The next request; None at the end."""
    try:
        return steps.send(answer)
    except StopIteration:
        return None
