"""The page of troubleshooting: every message of the program, found in its source, with what to do about it.

A message is the text of an exception that an operator sees, of a finding of `doctor` or `check`, or of a command.
What is filled in at run time is written `…`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.log_lines import LOG_LINES

ROOT: Final = Path(__file__).parents[1]

HEAD: Final = """\
# Troubleshooting by message

Search this page for a few words of the message that you see. `…` stands for what differs: a name, a number, a URL; the
bold text is the advice that comes with a message. Written from the program's source by `make docs`; not by hand.

Three commands answer most questions: `poller doctor` looks at everything and says what to do, `poller status` shows
what fails and since when, and `poller try SOURCE/ENDPOINT` shows what a list really answers.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A section: its heading, where it is met, and which calls in which folders make its messages."""

    title: str
    text: str
    calls: frozenset[str]
    folders: tuple[str, ...] = ("poller/", "plugins/", "state/")


AREAS: Final = (
    Area(
        title="The configuration",
        text="`poller check` reports them with file, line and key. A daemon that reloads keeps the old configuration.",
        calls=frozenset(
            (
                "ValueError",
                "PydanticCustomError",
                "PathError",
                "PointerError",
                "ExpressionError",
                "SecretError",
                "AuthError",
            )
        ),
        folders=(
            "poller/options",
            "poller/config",
            "poller/sinks",
            "poller/sources",
            "poller/events",
            "poller/rendering",
            "poller/documents",
            "plugins/",
        ),
    ),
    Area(
        title="A source's answers",
        text="`poller status` shows them after the name of the unit, and the log as `poll.failed`. Nothing is concluded"
        " from such an answer; the unit is polled again after 5 s, then after twice as long each time, up to 30 min.",
        calls=frozenset(
            ("PageError", "NoList", "FetchError", "TooLarge", "TooSlow", "CodingError", "WrongCharset", "ParseError")
        ),
    ),
    Area(
        title="Deliveries and templates",
        text="`poller deliveries show NUMBER` shows them at each attempt.",
        calls=frozenset(("AddressRefused", "RenderError", "TooMuch", "FilterError", "OSError", "self._refused")),
        folders=("poller/sinks", "poller/rendering", "poller/events", "plugins/"),
    ),
    Area(
        title="Plugins",
        text="`poller plugins` lists them; `poller check` and the log report them as well. All other plugins are used.",
        calls=frozenset(("PluginError", "TypeError")),
        folders=("poller/hooks", "poller/delivery"),
    ),
    Area(
        title="The state",
        text="The SQLite file that `state` names, its lock and its copies.",
        calls=frozenset(("StateError", "Unavailable", "Held", "Outdated", "OtherLog")),
    ),
    Area(
        title="What poller doctor and poller check warn of",
        text="Warnings: everything continues.",
        calls=frozenset(("warn", "bad")),
    ),
    Area(
        title="Commands",
        text="Exit status 1 if something does not exist or failed, 2 if a command or the configuration is wrong.",
        calls=frozenset(
            (
                "PollerError",
                "NotThere",
                "Unanswered",
                "NotNow",
                "BadPlace",
                "Busy",
                "click.UsageError",
                "click.ClickException",
                "self.fail",
            )
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is said, and what the program itself advises."""

    text: str
    hint: str | None


def page() -> str:
    """The whole page."""
    return HEAD + "".join(section(area) for area in AREAS) + log_section()


def section(area: Area) -> str:
    """One area as a heading and a list, each message with the advice that comes with it."""
    entries = sorted({(message.text, message.hint or "") for message in messages(area)})
    lines = "".join(f"- {plain(text)}\n{f'  **{plain(hint)}**' + chr(10) if hint else ''}" for text, hint in entries)
    return f"\n## {area.title}\n\n{area.text}\n\n{lines}"


def log_section() -> str:
    """The lines of the log by name."""
    rows = "".join(f"| `{name}` | {what} |\n" for name, what in sorted(LOG_LINES.items()))
    return f"\n## The log\n\nA line of the log has one of these names.\n\n| line | meaning |\n| --- | --- |\n{rows}"


def plain(text: str) -> str:
    """Text on one line in which nothing is markup."""
    escaped = re.sub(r"([\\*_\[\]<>])", r"\\\1", " ".join(text.split()))
    return " ".join(text.split()) if "`" in text else escaped


def messages(area: Area) -> Iterator[Message]:
    """Every message of the area's calls, in the order of the files."""
    for call in calls(area.folders):
        if ast.unparse(call.func) in area.calls:
            yield from message_of(call)


def message_of(call: ast.Call) -> Iterator[Message]:
    """The message of a call: its last text that is a sentence, and its hint."""
    texts = [text for argument in call.args if (text := written(argument)) is not None]
    hints = [text for given in call.keywords if given.arg == "hint" and (text := written(given.value)) is not None]
    sentences = [text for text in texts if " " in text.replace("…", "")]
    if ast.unparse(call.func) in ("warn", "bad"):
        sentences, hints = sentences[:1], hints or sentences[1:2]
    for text in sentences[:1]:
        yield Message(text=text, hint=hints[0] if hints else None)


def log_names() -> set[str]:
    """The names of all lines of the log."""
    names = set()
    for call in calls(("poller/", "plugins/", "state/")):
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("debug", "info", "warning", "error"):
            names |= {
                text for argument in call.args[:1] if (text := written(argument)) and "." in text and " " not in text
            }
    return names


def calls(folders: tuple[str, ...]) -> Iterator[ast.Call]:
    """Every call in the program's own files below the folders."""
    for file in sorted(path for folder in folders for path in ROOT.glob(f"{folder.rstrip('/')}/**/*.py")):
        if "sandbox" not in file.parts and "simulation" not in file.parts:
            yield from (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))


def written(node: ast.expr) -> str | None:
    """A text as it stands in the source, `…` for what is filled in; None where it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(written(value) or "…" for value in values)
        case ast.FormattedValue():
            return "…"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = written(left), written(right)
            return None if first is None and second is None else (first or "…") + (second or "…")
        case ast.IfExp(body=body, orelse=orelse):
            return written(body) or written(orelse)
    return None
