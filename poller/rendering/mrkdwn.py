"""Data in chat messages: shown literally, without mentions, links or markup. Pure.

Slack's mrkdwn and Mattermost's Markdown share no escape besides three entities (api.slack.com: formatting). Characters
that would act as markup therefore get a zero-width space, if that breaks the markup, or are replaced by one that looks
the same.
"""

from __future__ import annotations

import re
from typing import Final

_GAP: Final = "\u200b"  # zero-width space
_ALIKE: Final = str.maketrans({"*": "\u2217", "`": "\u02cb", "~": "\u223c"})
_EDGE: Final = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # not within a word, where neither treats it as markup
_MENTION: Final = re.compile(r"(?<![^\W_])([@#])(?=[^\W_])")  # not ana@maple.example
_EMOJI: Final = re.compile(r"(?<![^\W_]):(?=[\w+-]+:)")  # not 10:30:45
_LINK: Final = re.compile(r"\](?=[(\[:])")
_BLOCK: Final = re.compile(r"^(\s*)(?=[#>|+-]|[0-9]+[.)]\s)", re.MULTILINE)  # a heading, quote, table or list


def inert(text: str) -> str:
    """The text without anything that chat programs treat as markup, mention or emoji."""
    text = _MENTION.sub(rf"\1{_GAP}", text)
    text = _EMOJI.sub(f":{_GAP}", text)
    text = _BLOCK.sub(rf"\1{_GAP}", _LINK.sub(f"]{_GAP}", text))
    return _EDGE.sub("\u02cd", text.translate(_ALIKE))


def escaped(text: str) -> str:
    """Text as data of a chat message: inert, and with the three entities of mrkdwn."""
    return inert(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
