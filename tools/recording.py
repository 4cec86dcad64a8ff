"""A recording of a terminal as an animated SVG: `python -m tools.recording docs/demo.svg poller demo --for 20s`.

The command runs in a terminal of its own; each line of the picture appears when the command printed it.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

WIDTH: Final = 100
MOST_LINES: Final = 24


def main(arguments: list[str]) -> None:
    """Run the command and write the picture."""
    to, command = Path(arguments[0]), arguments[1:]
    lines = recorded(command)
    to.write_text(animated(picture(command, [line for _, line in lines]), [at for at, _ in lines]), encoding="utf-8")


def recorded(command: list[str]) -> list[tuple[float, str]]:
    """The lines that the command prints to a terminal, with the seconds after which each came."""
    ours, theirs = pty.openpty()
    began, lines, rest = time.monotonic(), [], ""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        while chunk := _read(ours):
            *whole, rest = (rest + chunk).split("\n")
            lines += [(time.monotonic() - began, line.rstrip("\r").rpartition("\r")[2]) for line in whole]
    return lines[:MOST_LINES]


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # Linux says this at the end of a pseudo-terminal
        return ""


def picture(command: list[str], lines: list[str]) -> str:
    """A terminal with the command and its lines, as an SVG."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text(f"$ {shlex.join(command)}", style="bold"))
        for line in lines:
            console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis")
        svg = console.export_svg(title="Poller", unique_id="poller")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def animated(svg: str, times: list[float]) -> str:
    """The picture, in which a line appears at its time; line 0 is the command."""

    def appearing(found: re.Match[str]) -> str:
        line = int(found[1])
        delay = times[line - 1] if 0 < line <= len(times) else 0.0
        return f'{found[0]} style="animation: appear 0.01s {delay:.2f}s both"'

    style = "<style>@keyframes appear { from { opacity: 0 } to { opacity: 1 } }</style>"
    return re.sub(r'clip-path="url\(#poller-line-(\d+)\)"', appearing, svg).replace("<style>", f"{style}<style>", 1)


if __name__ == "__main__":
    main(sys.argv[1:])
