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
    """Name the source classes that this plugin brings: `register("rest", RestSource)`.

    Called once at start, before the configuration is read against the plugins' `Options`.
    """


@hookspec
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Name the sink classes that this plugin brings: `register("http", HttpSink)`. Called once at start."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands with `cli.command()`. Entry-point plugins only: called before the TOML is read.

    Called for `poller --help`, too. A command with a method `load`, which returns the command itself, is listed by its
    name and short help and loaded when it is called.
    """


@hookspec
def transform_event(event: NewEvent) -> NewEvent | bool | None:
    """Change an event's `data` before it is recorded, or drop it.

    Synchronous, called on a thread of the event's source (so for several sources at once), before the transaction,
    once per event. Return a
    `dataclasses.replace(event, raw=...)` to change the data, False to drop the event (a drop uses up no
    version), None to leave it. Must be pure: a redo after a crash calls it again.
    """


@hookspec
def event_recorded(event: Event) -> Any:
    """An event is in the log: its number is `event.seq`. An observer, see `poll_finished`."""


@hookspec
def poll_finished(poll: Polled) -> Any:
    """A unit was polled, or could not be (`poll.error` says why).

    Observers run after the fact, one call after the other in the order of what they tell; they may be async. What
    they raise is noted beside the plugin's name and changes nothing. One that is 10,000 calls behind misses some.
    """


@hookspec
def delivery_finished(delivery: AttemptFinished) -> Any:
    """An attempt is over: `delivery.state` is delivered, dead, or pending where it is retried. An observer."""


@hookspec
def template_environment(env: jinja2.Environment) -> None:
    """Add filters or globals to the sandboxed Jinja2 environment of templates.

    Called for each environment (plain text, HTML, Slack) each time a configuration is read, before its templates are.
    """


@hookspec
def started() -> Any:
    """The daemon is ready. May be async."""


@hookspec
def stopping() -> Any:
    """The daemon is about to stop; sinks are still open. May be async."""
