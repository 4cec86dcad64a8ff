"""The `slack` sink: waits for the channel's turn, posts the message, and judges the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self

import orjson
from yarl import URL

from plugins.slack.answers import ThreadClosed, api_receipt, webhook_receipt
from plugins.slack.blocks import Message, message_of, text_of
from plugins.slack.options import SlackOptions
from plugins.slack.pace import Pace, pace_of
from poller import Attempt, Event, Receipt, RetryLater
from poller.options.secrets import Secret
from poller.rendering.rendered import rendered
from poller.rendering.templates import RenderError
from poller.sinks.calls import Answer, Calls, parsed_url
from poller.sinks.unrendered import unrendered

TIMEOUT: Final = 15.0  # seconds for the whole call
PATIENCE: Final = 600.0  # seconds of one attempt: the wait for the channel's turn, and the call
_MARGIN: Final = 5.0  # seconds of PATIENCE reserved for everything else
_ANSWER: Final = 1024 * 1024  # bytes of an answer that are read: the Web API repeats the message


class SlackSink:
    """One channel."""

    Options = SlackOptions
    attempt_limit = PATIENCE

    def __init__(
        self,
        name: str,
        options: SlackOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._options = options
        self._clock, self._pause = clock, pause
        self._pace = Pace()
        self._calls = Calls(timeout=TIMEOUT, allow_private=options.allow_private)

    async def __aenter__(self) -> Self:
        self._pace = pace_of((_revealed(self._options.webhook_url or self._options.token), self._options.channel or ""))
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Post one message. Slack has no idempotency key, so a lost answer may post it twice."""
        try:
            message = await rendered(lambda: self._message(events), events, self._options.template)
        except RenderError as exc:
            raise unrendered(events, exc) from exc
        left = await self._pace.turn(self._clock, self._pause, until=self._clock() + PATIENCE - TIMEOUT - _MARGIN)
        if left is not None:
            text = f"the channel accepts no message for another {left:.0f} s, as it asked"
            raise RetryLater(left, Receipt(status="held", text=text))
        try:
            if self._options.token is None:
                return await self._to_webhook(message)
            root = attempt.last_reference if self._options.thread == "object" and len(events) == 1 else None
            try:
                return await self._as_bot(message, root)
            except ThreadClosed:
                return await self._as_bot(message, None)
        except RetryLater as exc:
            self._pace.hold(self._clock(), exc.after or 0.0)
            raise

    def render(self, events: Sequence[Event]) -> str:
        """The message's text, block by block."""
        return "\n\n".join(text_of(block) for block in self._message(events).blocks)

    def _message(self, events: Sequence[Event]) -> Message:
        return message_of(events, self._options.template, self._options.zone)

    async def _to_webhook(self, message: Message) -> Receipt:
        answer = await self._post(parsed_url(_revealed(self._options.webhook_url)), _body(message), {})
        return webhook_receipt(answer, now=time.time())

    async def _as_bot(self, message: Message, root: str | None) -> Receipt:
        given = self._options
        body = {"channel": given.channel or "", "parse": "none", **_body(message)}
        if root is not None:
            body["thread_ts"] = root
        headers = {"Authorization": f"Bearer {_revealed(given.token)}"}
        answer = await self._post(parsed_url(given.api_url) / "chat.postMessage", body, headers)
        return api_receipt(answer, root=root, now=time.time())

    async def _post(self, url: URL, body: dict[str, object], headers: dict[str, str]) -> Answer:
        headers = {"Content-Type": "application/json; charset=utf-8", **headers}
        # Not the whole URL, because the path of a webhook is its secret.
        name = url.host or ""
        return await self._calls.send("POST", url, body=orjson.dumps(body), headers=headers, name=name, most=_ANSWER)


def _body(message: Message) -> dict[str, object]:
    return {
        "text": message.text,
        "blocks": [block.to_dict() for block in message.blocks],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _revealed(secret: Secret | None) -> str:
    return "" if secret is None else secret.reveal()
