"""Spans of OpenTelemetry, if the program runs under it; else nothing is imported for them, and nothing is done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Final, Protocol

API: Final = "opentelemetry.trace"
SDK: Final = (
    "opentelemetry.sdk.trace"  # loaded by the program that sets tracing up: `opentelemetry-instrument`, or a plugin
)

Attribute = str | int | float | bool


class Note(Protocol):
    """Adds facts that become known within a span, as attributes `poller.NAME`; a `failure` makes it an error."""

    def __call__(self, **attributes: Attribute) -> None: ...


def span(name: str, **attributes: Attribute) -> contextlib.AbstractContextManager[Note]:
    """A span around the block, with attributes `poller.NAME`.

    Exceptions are noted by their type only, because messages may quote peers.
    """
    if SDK not in sys.modules:
        return _NOTHING
    return _span(sys.modules[API], name, attributes)


@contextlib.contextmanager
def _span(trace: Any, name: str, attributes: dict[str, Attribute]) -> Iterator[Note]:
    with trace.get_tracer("poller").start_as_current_span(
        name, attributes=_named(attributes), record_exception=False, set_status_on_exception=False
    ) as made:

        def note(**known: Attribute) -> None:
            made.set_attributes(_named(known))
            if "failure" in known:
                made.set_status(trace.StatusCode.ERROR)

        try:
            yield note
        except BaseException as error:
            note(failure=type(error).__name__)
            raise


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"poller.{name}": value for name, value in attributes.items()}


def _ignore(**attributes: Attribute) -> None:
    """Does nothing, because there is no tracing."""


_NOTHING: Final = contextlib.nullcontext(_ignore)
