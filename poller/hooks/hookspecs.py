"""Every hook that a plugin may implement. Mark implementations with `poller.hookimpl`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click
    import jinja2

    from poller.hooks.payloads import AttemptFinished, Polled
    from poller.sinks.protocol import Sink
    from poller.sources.protocol import Source
    from state.records import Event, NewEvent

hookspec = pluggy.HookspecMarker("poller")


@hookspec
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Register the source classes of this plugin: `register("rest", RestSource)`.

    Called once at start, before the configuration is read against the plugins' `Options`.
    """


@hookspec
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Register the sink classes of this plugin: `register("http", HttpSink)`. Called once at start."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands with `cli.command()`. Only for entry-point plugins: called before the TOML file is read.

    Also called for `poller --help`. A command with a method `load`, which returns the command itself, is listed by its
    name and short help and loaded only when it is called.
    """


@hookspec
def transform_event(event: NewEvent) -> NewEvent | bool | None:
    """Change an event's `data` before it is recorded, or drop the event.

    Synchronous. Called once per event before the transaction, on a thread of the event's source, so calls for several
    sources may run at once. Change `event.data` in place, or return `dataclasses.replace(event, raw=...)`. Return False
    to drop the event, which uses up no version; None or the event keeps it. Must be pure, because a repetition after a
    crash calls it again.
    """


@hookspec
def event_recorded(event: Event) -> Any:
    """Observe an event that was recorded in the log; `event.seq` is its number. See `poll_finished` for observers."""


@hookspec
def poll_finished(poll: Polled) -> Any:
    """Observe a poll of a unit that has ended; `poll.error` is set if it failed.

    Observers are called after the fact, one call after the other in the order of events, on the event loop of their
    plugin. They may be async, and one that blocks delays only its plugin and later calls of observers. Their exceptions
    are listed in `poller plugins` and change nothing. An observer that is 10,000 calls behind misses some.
    """


@hookspec
def delivery_finished(delivery: AttemptFinished) -> Any:
    """Observe an attempt that has ended: `delivery.state` is delivered, dead, or pending if it will be retried."""


@hookspec
def template_environment(env: jinja2.Environment) -> None:
    """Add filters or globals to the sandboxed Jinja2 environment of templates.

    Called for each environment (plain text, HTML, Slack) each time a configuration is read, before its templates are.
    """


@hookspec
def started() -> Any:
    """Called when the daemon is ready. May be async."""


@hookspec
def stopping() -> Any:
    """Called when the daemon is about to stop, while sinks are still open. May be async."""
