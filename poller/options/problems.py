"""Configuration problems: one line each, with the key, the problem and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from poller.redaction import redacted
from state.errors import PollerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Problem in a configuration. `key` is its path in the file, empty for the file as a whole."""

    key: str
    what: str
    hint: str | None = None
    at: int | None = None  # line in the file, if known

    def line(self, file: Path | str) -> str:
        """The problem as one line: FILE:LINE: key: problem; fix."""
        where = str(file) if self.at is None else f"{file}:{self.at}"
        where = f"{where}: {self.key}" if self.key else where
        return f"{where}: {with_hint(self.what, self.hint)}"


class ConfigError(PollerError):
    """The configuration is invalid. The message has one line for each of `problems`."""

    def __init__(self, file: Path | str, problems: Sequence[Problem]) -> None:
        # A plugin's own check may quote the options that it was given.
        problems = [replace(problem, what=redacted(problem.what)) for problem in problems]
        alone = problems[0].hint if len(problems) == 1 else None
        shown = [replace(problems[0], hint=None)] if alone else problems
        super().__init__("\n".join(problem.line(file) for problem in shown), hint=alone)
        self.file = file
        self.problems = tuple(problems)


class NotThere(PollerError):
    """Something that a command names does not exist."""


class NotNow(PollerError):
    """A command does not fit the current state."""


def with_hint(text: str, hint: str | None) -> str:
    """A text and what to do, in one line: `the text; the hint`."""
    return f"{text.removesuffix('.')}; {hint}" if hint else text


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or all known words if none is close."""
    words = sorted(set(known))
    close = get_close_matches(name.lower(), words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(words)}" if words else "there is none"


def dotted(path: Iterable[str | int]) -> str:
    """Format a path: `("a", "b", 0)` as `"a.b[0]"`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def find_endpoint(names: Iterable[tuple[str, str]], text: str) -> tuple[str, str]:
    """Resolve `SOURCE/ENDPOINT`, or `ENDPOINT` if only one source has it, to (source, endpoint). Raises NotThere."""
    known = sorted(names)
    found = [name for name in known if text in ("/".join(name), name[1])]
    if len(found) == 1:
        return found[0]
    if found:
        either = " or ".join("/".join(name) for name in found)
        raise NotThere(f"several sources have an endpoint named {text!r}", hint=f"write {either}")
    words = ["/".join(name) if "/" in text else name[1] for name in known]
    raise NotThere(f"no endpoint is named {text!r}", hint=nearest(text, words))
