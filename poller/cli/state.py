"""The state, opened by commands that only read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from poller.cli.output import NOTHING_YET, say
from poller.config.models import Config
from state.open import is_there, open_reader
from state.store import Reader


@contextlib.contextmanager
def reading(config: Config) -> Iterator[Reader | None]:
    """The state, read-only; None, after printing a line, if nothing has run yet. Raises StateError."""
    path = config.poller.state
    if not is_there(path):
        say_nothing_yet()
        yield None
        return
    with open_reader(path) as reader:
        yield reader


def say_nothing_yet() -> None:
    """Print on standard error that there is no state."""
    say(NOTHING_YET, err=True)
