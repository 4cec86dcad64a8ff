"""Sink `slack`: one Block Kit message per event or digest, by incoming webhook or as a bot with a token.

Limits by Slack's documentation (docs.slack.dev: rate limits, Block Kit reference): one message per second and
channel, 50 blocks, 3,000 characters a section; near 13,200 characters over all blocks it answers
`msg_blocks_too_long` (slackapi/bolt-js#2509). What does not fit is left out and counted.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate, takewhile
from types import TracebackType
from typing import Any, Final, Literal, Self
from weakref import WeakValueDictionary

import aiohttp
from pydantic import model_validator
from pydantic_core import PydanticCustomError
from slack_sdk.errors import SlackApiError
from slack_sdk.models.blocks import Block, ContextBlock, HeaderBlock, MarkdownTextObject, SectionBlock
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from poller import Attempt, Event, Gone, Receipt, Rejected, RetryLater, hookimpl
from poller.http_dates import retry_after
from poller.options.secrets import Secret
from poller.rendering.templates import Escape, RenderError, Templated, Told, escaped, render
from poller.sinks.protocol import DeliveryError, Refused

SECTION: Final = 3000  # characters
BLOCKS: Final = 50
TOTAL: Final = 12_000  # characters over all blocks
INTERVAL: Final = 1.0  # seconds between two messages to one channel
TIMEOUT: Final = 15  # seconds for the whole call
PATIENCE: Final = 600.0  # seconds of one attempt: the call, and before it the wait for the channel's turn
_IN_DIGEST: Final = 700  # characters of one event
_THROTTLED: Final = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_ARCHIVED: Final = frozenset({"channel_is_archived", "is_archived", "no_service", "no_team"})
_MALFORMED: Final = frozenset({"msg_too_long", "msg_blocks_too_long", "no_text", "too_many_attachments"})


class SlackOptions(Templated):
    """`[[subscriptions]]` with `plugin = "slack"`: `webhook_url`, or `token` and `channel`."""

    webhook_url: Secret | None = None
    token: Secret | None = None
    channel: str | None = None
    thread: Literal["none", "object"] = "none"
    api_url: str = "https://slack.com/api/"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook_url is None) == (self.token is None):
            raise PydanticCustomError("slack", "give webhook_url, or token and channel")
        if (self.token is None) != (self.channel is None):
            raise PydanticCustomError("slack", "token and channel belong together; a webhook has its own channel")
        if self.thread == "object" and self.token is None:
            raise PydanticCustomError("slack", 'thread = "object" needs token and channel: a webhook cannot reply')
        return self


class Pace:
    """The second between two messages to one channel, whichever subscription they come from."""

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next free moment; the seconds until then."""
        at = max(now, self._free_at)
        self._free_at = at + INTERVAL
        return at - now

    def hold(self, now: float, seconds: float) -> None:
        """No message for so long: Slack said so."""
        self._free_at = max(self._free_at, now + seconds)


_paces: WeakValueDictionary[tuple[str, str], Pace] = WeakValueDictionary()


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
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        place = (_revealed(self._options.webhook_url or self._options.token), self._options.channel or "")
        self._pace = _paces.setdefault(place, self._pace)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Post one message. Slack has no idempotency key: an answer that is lost may post it twice."""
        if self._session is None:
            raise RuntimeError("deliver was called outside of `async with`")
        try:
            text, blocks = self._message(events)
        except RenderError as exc:
            raise Rejected(Receipt(status="template", text=str(exc))) from exc
        wait = self._pace.reserve(self._clock())
        if wait > 0:
            await self._pause(wait)
        try:
            if self._options.token is None:
                return await self._to_webhook(self._session, text, blocks)
            root = attempt.last_reference if self._options.thread == "object" and len(events) == 1 else None
            return await self._as_bot(self._session, text, blocks, root)
        except RetryLater as exc:
            self._pace.hold(self._clock(), exc.after or 0.0)
            raise
        except TimeoutError as exc:
            raise RetryLater(None, Receipt(status="timeout", text=f"no answer within {TIMEOUT} s")) from exc
        except (aiohttp.ClientError, OSError) as exc:
            # Not str(exc): it may hold the webhook's URL, which is a secret.
            reason = getattr(exc, "os_error", None) or type(exc).__name__
            raise RetryLater(None, Receipt(status="unreachable", text=f"Slack cannot be reached: {reason}")) from exc

    def render(self, events: Sequence[Event]) -> str:
        """The message's text, block by block."""
        _, blocks = self._message(events)
        return "\n\n".join(_text_of(block) for block in blocks)

    def _message(self, events: Sequence[Event]) -> tuple[str, list[Block]]:
        """The text for notifications, and the blocks."""
        told = [Told(event) for event in events]
        text = told[0].headline if len(told) == 1 else f"{len(told)} events: {told[0].headline}, …"
        if self._options.template is not None:
            return escaped(text), templated(render(self._options.template, events, escape=Escape.SLACK))
        return escaped(text), message(told[0]) if len(told) == 1 else digest(told)

    async def _to_webhook(self, session: aiohttp.ClientSession, text: str, blocks: Sequence[Block]) -> Receipt:
        url = _revealed(self._options.webhook_url)
        client = AsyncWebhookClient(url, timeout=TIMEOUT, session=session, retry_handlers=[])
        answer = await client.send(text=text, blocks=blocks, unfurl_links=False, unfurl_media=False)
        receipt = Receipt(status=str(answer.status_code), text=answer.body[:4096])
        if answer.status_code == 200:
            return receipt
        raise failure(
            answer.status_code,
            answer.body.strip(),
            retry_after(answer.headers.get("Retry-After"), time.time()),
            receipt,
        )

    async def _as_bot(
        self, session: aiohttp.ClientSession, text: str, blocks: Sequence[Block], root: str | None
    ) -> Receipt:
        client = AsyncWebClient(
            _revealed(self._options.token),
            base_url=self._options.api_url,
            timeout=TIMEOUT,
            session=session,
            retry_handlers=[],
        )
        try:
            answer = await client.chat_postMessage(
                channel=self._options.channel or "",
                text=text,
                blocks=blocks,
                thread_ts=root,
                parse="none",
                unfurl_links=False,
                unfurl_media=False,
            )
        except SlackApiError as exc:
            raise _api_failure(exc) from exc
        # A reply names the thread by its first message, so that one is what later events of the object need.
        return Receipt(status="200", text=f"ts {answer['ts']}", reference=root or answer["ts"])


def message(told: Told) -> list[Block]:
    """What happened, who it concerns, each field before and after, and where it came from."""
    head = [f"*{escaped(told.headline)}*", *([escaped(told.who)] if told.who else [])]
    blocks: list[Block] = [_section("\n".join(head))]
    if lines := _lines(told):
        blocks.append(_section(fitted(lines, SECTION)))
    return [*blocks, ContextBlock(elements=[_mrkdwn(escaped(_origin(told)))])]


def digest(told: Sequence[Told]) -> list[Block]:
    """Several events in one message: as many as fit, then how many were left out."""
    blocks: list[Block] = [HeaderBlock(text=f"{len(told)} events")]
    left = TOTAL - 200
    for number, event in enumerate(told):
        head = f"*{escaped(event.headline)}*"
        text = fitted([head, *_lines(event), f"_{escaped(_origin(event))}_"], max(_IN_DIGEST, len(head) + 40))
        left -= len(text)
        if left < 0 or len(blocks) == BLOCKS - 1:
            blocks.append(ContextBlock(elements=[_mrkdwn(f"… and {len(told) - number} more events")]))
            break
        blocks.append(_section(text))
    return blocks


def templated(text: str) -> list[Block]:
    """A template's text in sections, cut between lines."""
    blocks: list[Block] = []
    rest = [line[:SECTION] for line in text.strip().split("\n")] or [""]
    while rest and len(blocks) < TOTAL // SECTION:
        part = [rest.pop(0)]
        while rest and sum(len(line) + 1 for line in part) + len(rest[0]) <= SECTION:
            part.append(rest.pop(0))
        blocks.append(_section(_whole_entities("\n".join(part)) or " "))
    if rest:
        blocks.append(ContextBlock(elements=[_mrkdwn(f"… and {len(rest)} more lines")]))
    return blocks


def fitted(lines: Sequence[str], limit: int) -> str:
    """As many whole lines as fit into that many characters, and how many were left out."""
    if sum(len(line) + 1 for line in lines) - 1 <= limit:
        return "\n".join(lines)
    room = limit - len(f"… and {len(lines)} more")
    sizes = accumulate(len(line) + 1 for line in lines)
    kept = sum(1 for _ in takewhile(lambda size: size <= room, sizes))
    return "\n".join([*lines[:kept], f"… and {len(lines) - kept} more"])


def failure(status: int, error: str, wait: float | None, receipt: Receipt) -> DeliveryError:
    """What an answer of Slack means for the delivery."""
    if status == 429 or error in _THROTTLED:
        return RetryLater(INTERVAL if wait is None else wait, receipt)
    if status == 410 or error in _ARCHIVED:
        return Gone(receipt)
    if error in _MALFORMED or (error.startswith("invalid_") and error not in ("invalid_auth", "invalid_token")):
        return Rejected(receipt)
    return Refused(receipt) if 400 <= status < 500 else RetryLater(None, receipt)


def _api_failure(exc: SlackApiError) -> DeliveryError:
    """The Web API answers 200 with `ok: false`; errors of that form are retried unless they are known to stay."""
    response: Any = exc.response
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0))
    data = getattr(response, "data", None)
    error = str(data.get("error", "")) if isinstance(data, dict) else ""
    after = retry_after((getattr(response, "headers", None) or {}).get("Retry-After"), time.time())
    return failure(status, error, after, Receipt(status=f"{status} {error}".strip(), text=str(data or "")[:4096]))


def _lines(told: Told) -> list[str]:
    if told.fields:
        lines = [f"• {escaped(str(field))}" for field in told.fields]
        return [*lines, "• … and more fields"] if told.truncated else lines
    return [f"• {escaped(f'{label}: {value}')}" for label, value in told.facts[:10]]


def _origin(told: Told) -> str:
    return f"{told.type} · {told.subject} · {told.account} · {told.time:%Y-%m-%d %H:%M:%S} UTC"


def _section(text: str) -> SectionBlock:
    return SectionBlock(text=_mrkdwn(text))


def _mrkdwn(text: str) -> MarkdownTextObject:
    # verbatim: or Slack itself makes links of names of channels and addresses, and mentions of names.
    return MarkdownTextObject(text=text, verbatim=True)


def _whole_entities(text: str) -> str:
    """Without an entity that was cut through at the end."""
    return re.sub(r"&[a-z]{0,3}$", "", text)


def _text_of(block: Block) -> str:
    body = block.to_dict()
    return str(body["text"]["text"] if "text" in body else body["elements"][0]["text"])


def _revealed(secret: Secret | None) -> str:
    return "" if secret is None else secret.reveal()


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("slack", SlackSink)
