"""Pages of the documentation that are written from the code: `python -m tools.docs`.

`docs/recipes.md` from `examples/`, `docs/hooks.md` from the hooks' own docstrings, `docs/poller.schema.json` from the
models of the configuration, `docs/cli.md` from the commands' help, `docs/troubleshooting.md` from the messages in the
source, `docs/notices.md` from the calls that make notices.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson

from poller.cli import reference
from poller.config.schema import schema_of
from poller.hooks import hookspecs
from poller.hooks.loading import load_plugins
from tools import messages, notices

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"

RECIPES: Final = """\
# Recipes

Configurations for well-known APIs, ready to copy. Each is run in the tests against a server that answers as the API is
documented. Written from `examples/` by `make docs`; not by hand.
"""
HOOKS: Final = """\
# Hooks

The contract of every hook that a plugin may implement, from the docstrings of `poller.hooks.hookspecs`. How to write
a plugin: [writing plugins](writing-plugins.md). Written by `make docs`; not by hand.
"""


def recipes() -> str:
    """Every `examples/*/poller.toml` that is a recipe for an API; its first comment is its title."""
    page = RECIPES
    for file in sorted(ROOT.glob("examples/*/poller.toml")):
        text = file.read_text(encoding="utf-8")
        if "[sources." in text:
            page += f"\n## {file.parent.name}\n\n```toml\n{text.rstrip()}\n```\n"
    return page


def hooks() -> str:
    """Every hook with its arguments and its docstring."""
    page = HOOKS
    for name, found in vars(hookspecs).items():
        if hasattr(found, "poller_spec"):
            page += f"\n## {name}\n\n```text\n{name}{inspect.signature(found)}\n```\n\n{inspect.getdoc(found)}\n"
    return page


def configuration_schema() -> str:
    """The JSON schema of `poller.toml` with the built-in plugins' keys."""
    return orjson.dumps(schema_of(load_plugins()), option=orjson.OPT_INDENT_2).decode() + "\n"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "cli.md": reference.page,
    "hooks.md": hooks,
    "notices.md": notices.page,
    "poller.schema.json": configuration_schema,
    "recipes.md": recipes,
    "troubleshooting.md": messages.page,
}


if __name__ == "__main__":
    for file_name, page in PAGES.items():
        (DOCS / file_name).write_text(page(), encoding="utf-8")
        sys.stderr.write(f"wrote docs/{file_name}\n")
