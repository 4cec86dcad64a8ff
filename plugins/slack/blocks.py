"""Messages made from events: Block Kit for Slack, and the same as text for clients without blocks.

Limits by Slack's documentation (docs.slack.dev: Block Kit reference): 50 blocks, 3,000 characters a section. Near
13,200 characters over all blocks Slack answers `msg_blocks_too_long` (slackapi/bolt-js#2509). Whatever does not fit is
left out and counted. Mattermost, which accepts Slack's webhooks, shows only `text`, up to 16,383 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import accumulate, takewhile
from typing import Final

from slack_sdk.models.blocks import Block, ContextBlock, HeaderBlock, MarkdownTextObject, SectionBlock

from poller import Event
from poller.rendering.counting import counted
from poller.rendering.event_view import EventView, one_line
from poller.rendering.mrkdwn import escaped
from poller.rendering.templates import Escape, render

SECTION: Final = 3000  # characters
BLOCKS: Final = 50
TOTAL: Final = 12_000  # characters over all blocks
TEXT: Final = 16_000  # characters of the text
_IN_DIGEST: Final = 700  # characters of one event


@dataclass(frozen=True, slots=True)
class Message:
    """What is posted: Slack shows the blocks, and the text in notifications."""

    text: str
    blocks: Sequence[Block]


def message_of(events: Sequence[Event], template: str | None, zone: tzinfo) -> Message:
    """The message for one event or a digest. Raises RenderError."""
    if template is not None:
        rendered = render(template, events, escape=Escape.SLACK, zone=zone)
        return Message(text=fitted(rendered.strip().split("\n"), TEXT) or " ", blocks=templated(rendered))
    views = [EventView(event, zone) for event in events]
    if len(views) == 1:
        return Message(text=fitted(_text_lines(views[0]), TEXT), blocks=message(views[0]))
    return Message(text=digest_text(views), blocks=digest(views))


def message(view: EventView) -> list[Block]:
    """What happened, whom it concerns, each field before and after, and its origin."""
    head = [f"*{escaped(view.headline)}*", *([escaped(view.who)] if view.who else [])]
    blocks: list[Block] = [_section("\n".join(head))]
    if lines := _lines(view):
        blocks.append(_section(fitted(lines, SECTION)))
    return [*blocks, ContextBlock(elements=[_mrkdwn(escaped(_origin(view)))])]


def digest(views: Sequence[EventView]) -> list[Block]:
    """Several events in one message: as many as fit, then the number of those left out."""
    blocks: list[Block] = [HeaderBlock(text=counted(len(views), "event"))]
    left = TOTAL - 200
    for number, event in enumerate(views):
        head = f"*{escaped(event.headline)}*"
        text = fitted([head, *_lines(event), f"_{escaped(_origin(event))}_"], max(_IN_DIGEST, len(head) + 40))
        left -= len(text)
        if left < 0 or len(blocks) == BLOCKS - 1:
            blocks.append(ContextBlock(elements=[_mrkdwn(f"… and {counted(len(views) - number, 'more event')}")]))
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
        blocks.append(ContextBlock(elements=[_mrkdwn(f"… and {counted(len(rest), 'more line')}")]))
    return blocks


def fitted(lines: Sequence[str], limit: int) -> str:
    """As many whole lines as fit into that many characters, and the number of those left out."""
    if sum(len(line) + 1 for line in lines) - 1 <= limit:
        return "\n".join(lines)
    room = limit - len(f"… and {len(lines)} more")
    sizes = accumulate(len(line) + 1 for line in lines)
    kept = sum(1 for _ in takewhile(lambda size: size <= room, sizes))
    return "\n".join([*lines[:kept], f"… and {len(lines) - kept} more"])


def digest_text(views: Sequence[EventView]) -> str:
    """Every event of a digest as text, with details as long as there is room for all headlines."""
    heads = [escaped(event.headline) for event in views]
    spare = TEXT - 40 - sum(len(head) + 1 for head in heads)
    lines = [counted(len(views), "event")]
    for head, event in zip(heads, views, strict=True):
        details = "\n".join(_text_lines(event)[1:])
        spare -= len(details) + 2
        lines.append(f"\n{head}\n{details}" if spare >= 0 else head)
    return fitted(lines, TEXT)


def _text_lines(view: EventView) -> list[str]:
    who = [escaped(view.who)] if view.who else []
    return [escaped(view.headline), *who, *_lines(view), escaped(_origin(view))]


def _lines(view: EventView) -> list[str]:
    if view.fields:
        lines = [f"• {escaped(str(field))}" for field in view.fields]
        return [*lines, "• … and more fields"] if view.truncated else lines
    return [f"• {escaped(f'{label}: {value}')}" for label, value in view.facts[:10]]


def _origin(view: EventView) -> str:
    return f"{view.type} · {one_line(view.subject)} · {view.account} · {view.time:%Y-%m-%d %H:%M:%S %Z}"


def _section(text: str) -> SectionBlock:
    return SectionBlock(text=_mrkdwn(text))


def _mrkdwn(text: str) -> MarkdownTextObject:
    # verbatim: else Slack makes links of channel names and addresses, and mentions of names.
    return MarkdownTextObject(text=text, verbatim=True)


def _whole_entities(text: str) -> str:
    """The text without an entity that was cut at the end."""
    return re.sub(r"&[a-z]{0,3}$", "", text)


def text_of(block: Block) -> str:
    """The text of a block, for a preview."""
    body = block.to_dict()
    return str(body["text"]["text"] if "text" in body else body["elements"][0]["text"])
