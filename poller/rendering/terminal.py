"""Foreign text made safe to print: it can neither control a terminal nor forge a line. Pure.

A terminal obeys escape sequences (C0, C1, OSC), reorders bidirectional text, and breaks lines where the text says so;
the journal reads a priority from `<0>` at the start of a line.
"""

from __future__ import annotations

import re
from typing import Final

# C0, DEL and C1; bidirectional marks, overrides and isolates; line and paragraph separators; the byte order mark;
# lone surrogates, which cannot be written at all.
UNSAFE: Final = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE: Final = re.compile(f"[{UNSAFE}]")
_PRIORITY: Final = re.compile(r"^<(?=[0-9])", re.MULTILINE)  # priority of syslog, as journald reads it (sd-daemon(3))
_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def printable(text: object) -> str:
    r"""The text on one line; characters that control a terminal are written as escapes: `\n`, `\x1b`, `\u202e`."""
    return _UNSAFE.sub(_escape, str(text))


def printable_lines(text: object) -> str:
    """The same for a text of several lines; none of them begins like a syslog priority."""
    lines = "\n".join(printable(line) for line in str(text).split("\n"))
    return _PRIORITY.sub(r"\\x3c", lines)


def printable_json(text: str) -> str:
    r"""JSON on one line with control characters as `\uXXXX`, which parses to the same value."""
    return _UNSAFE.sub(lambda found: " " if found[0] in _SHORT else f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"
