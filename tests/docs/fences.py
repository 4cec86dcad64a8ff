"""Code blocks of the documentation, with the marks that stand before them.

A mark is an HTML comment on the lines before a block: `<!-- file: NAME -->` (the block is that file),
`<!-- background -->` (its command keeps running), `<!-- stop -->` (all that runs in the background is ended),
`<!-- wait: TEXT -->`, `<!-- folder: NAME -->`, `<!-- run by: TEST FILE -->`, `<!-- not run: REASON -->`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """One code block; `marks` are pairs of a mark's word and what follows it."""

    page: Path
    line: int
    language: str
    text: str
    marks: tuple[tuple[str, str], ...]

    def mark(self, word: str) -> str | None:
        """What follows the mark; None without it."""
        return dict(self.marks).get(word)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page of the documentation, and the texts at the root."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def fences(page: Path) -> list[Fence]:
    """The code blocks of a page; a last one without language holds marks at the end of the page."""
    found: list[Fence] = []
    marks: list[tuple[str, str]] = []
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block":
            marks += [
                (word, rest.strip())
                for word, rest in re.findall(r"<!--\s*([a-z ]+?)(?::\s*(.*?))?\s*-->", token.content)
            ]
        if token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            language = token.info.split()[0] if token.info else ""
            found.append(Fence(page=page, line=line, language=language, text=token.content, marks=tuple(marks)))
            marks = []
    if marks:
        found.append(Fence(page=page, line=0, language="text", text="", marks=tuple(marks)))
    return found
