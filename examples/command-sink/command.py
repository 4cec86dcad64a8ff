"""Sink `command`: runs a program for each delivery, with the events on its standard input, one CloudEvent a line.

This is a plugin in one file: put it into the folder that `plugins_dir` names. Exit statuses have the meanings of
sysexits.h: 0 is delivered, 65 (EX_DATAERR) never, 75 (EX_TEMPFAIL) later; any other gets three attempts.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from poller import Attempt, Event, Receipt, Rejected, RetryLater, hookimpl
from poller.events.cloudevents import structured
from poller.options.quantities import Duration
from poller.sinks.protocol import Refused

NEVER, LATER = 65, 75
KEPT = 4096  # bytes of the program's output that go into the log of attempts


class CommandOptions(BaseModel):
    """Keys of `[[subscriptions]]` with `plugin = "command"`. The command is a list of words, without a shell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: tuple[str, ...] = Field(min_length=1)
    timeout: Duration = Field(default=30.0, gt=0)


class CommandSink:
    """Sink that starts the program once for each delivery."""

    Options = CommandOptions

    def __init__(self, name: str, options: CommandOptions) -> None:
        self.name = name
        self._options = options

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Run the program until it ends."""
        lines = b"".join(structured(event) + b"\n" for event in events)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._options.command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=STDOUT,
                env={**os.environ, **_variables(events, attempt)},
                start_new_session=True,
            )
        except OSError as exc:
            raise RetryLater(None, Receipt(status="not started", text=str(exc))) from exc
        try:
            async with asyncio.timeout(self._options.timeout):
                output, _ = await process.communicate(lines)
        except TimeoutError as exc:
            text = f"not done within {self._options.timeout:g} s"
            raise RetryLater(None, Receipt(status="timeout", text=text)) from exc
        finally:
            await _ended(process)
        return _judged(process.returncode or 0, output[:KEPT].decode(errors="replace"))


async def _ended(process: Process) -> None:
    """Kill the program if it is still running, and every process that it started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


def _variables(events: Sequence[Event], attempt: Attempt) -> dict[str, str]:
    first = events[0]
    return {
        "POLLER_EVENT_ID": first.id,
        "POLLER_EVENT_TYPE": first.type,
        "POLLER_EVENT_SUBJECT": first.subject,
        "POLLER_ATTEMPT": str(attempt.number),
    }


def _judged(status: int, output: str) -> Receipt:
    receipt = Receipt(status=f"exit {status}", text=output)
    if status == 0:
        return receipt
    if status == LATER:
        raise RetryLater(None, receipt)
    raise (Rejected if status == NEVER else Refused)(receipt)


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("command", CommandSink)
