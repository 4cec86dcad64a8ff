"""MkDocs' hook: links to files outside `docs/`, which the site does not have, become their text."""

from __future__ import annotations

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page with the links out of `docs/` taken away (MkDocs' hook)."""
    folder = posixpath.dirname(page.file.src_uri)

    def plain(found: re.Match[str]) -> str:
        text, target = found[1], found[2].partition("#")[0]
        outside = target.startswith(".") and posixpath.normpath(posixpath.join(folder, target)).startswith("..")
        return text if outside else found[0]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", plain, markdown)
