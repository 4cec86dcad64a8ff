"""Executes one command: by the worker that runs on the state, or in this process if none runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from poller.config.models import Config
from poller.hooks.loading import Plugins
from poller.operations.alone import opened_alone
from poller.operations.commands import LOOK_EVERY, execute
from poller.operations.program import Answer
from state.errors import PollerError
from state.open import holder, open_commands


async def run_command(
    config: Config, plugins: Plugins, name: str, args: Mapping[str, Any], *, timeout: float = 10.0
) -> Answer:
    """Have a command executed by the daemon that runs on this state, else in this process. Raises PollerError.

    Without a daemon, deliveries that it queued are attempted within `timeout` seconds.
    """
    who = holder(config.poller.state)
    if who is not None:
        return await _post(config, who, name, args, timeout)
    async with opened_alone(config, plugins) as alone:
        answer = await execute(alone.app, name, args)
        if name in ("redeliver", "ping"):
            await alone.drain(alone.app.clock.now() + timeout)
        return answer


async def _post(config: Config, who: str, name: str, args: Mapping[str, Any], timeout: float) -> Answer:
    """Post the command to the daemon and wait for its result."""
    with open_commands(config.poller.state) as posted:
        number = posted.post(name, args, now=time.time())
        until = time.monotonic() + timeout
        while (outcome := posted.result(number)) is None:
            if time.monotonic() >= until and posted.withdraw(number):
                raise PollerError(
                    f"the daemon ({who}) did not take `{name}` within {timeout:g} s: nothing was done",
                    hint="is it starting or stopping? its log says; then try again",
                )
            if time.monotonic() >= until + timeout:
                raise PollerError(
                    f"the daemon ({who}) began `{name}` and has not finished it yet",
                    hint="its log shows the result",
                )
            await asyncio.sleep(LOOK_EVERY)
    if outcome.error is not None:
        raise PollerError(outcome.error, hint=outcome.hint)
    return outcome.result or {}
