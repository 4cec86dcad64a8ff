"""What plugins raise while the daemon runs does not end it, whatever that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.living import CONFIG, living, until, world

PLUGIN = """
import asyncio
from poller import hookimpl

@hookimpl
async def started():
    raise {error}

@hookimpl
def stopping():
    raise {error}

@hookimpl
async def poll_finished(poll):
    raise {error}

@hookimpl
def event_recorded(event):
    raise {error}

@hookimpl
async def delivery_finished(delivery):
    raise {error}
"""
SINK = """
from pydantic import BaseModel
from poller import Receipt, hookimpl
import asyncio

class Sink:
    class Options(BaseModel):
        pass
    asked = 0
    def __init__(self, name, options):
        pass
    async def __aenter__(self):
        return self
    async def __aexit__(self, *_):
        raise {error}
    async def deliver(self, events, attempt):
        Sink.asked += 1
        raise {error}

@hookimpl
def register_sinks(register):
    register("raising", Sink)
"""
RAISED = ["SystemExit(0)", "KeyboardInterrupt()", "asyncio.CancelledError()", "GeneratorExit()", "MemoryError()"]


@pytest.mark.parametrize("error", RAISED)
async def test_an_observer_that_raises_anything_ends_nothing(tmp_path: Path, error: str) -> None:
    (tmp_path / "plugins.d").mkdir(mode=0o700)
    (tmp_path / "plugins.d" / "odd.py").write_text(PLUGIN.format(error=error))
    async with world() as upstream:
        config = tmp_path / "poller.toml"
        text = CONFIG.format(url=upstream.url, state="poller.db", listen="")
        config.write_text(text.replace("[budgets.api]", 'plugins_dir = "plugins.d"\n[budgets.api]'))
        async with living(config) as daemon:
            for size in (1, 2):
                await until("a poll", lambda: upstream.asked > 1)
                upstream.edit(1, size)
                await until("an event", lambda size=size: upstream.sizes(1)[-1:] == [size])
            told = {failed.origin for failed in daemon.app.plugins.failed}
            assert told >= {"started", "poll_finished", "event_recorded", "delivery_finished"}


@pytest.mark.parametrize("error", RAISED)
async def test_a_sink_that_raises_anything_ends_nothing(tmp_path: Path, error: str) -> None:
    (tmp_path / "plugins.d").mkdir(mode=0o700)
    (tmp_path / "plugins.d" / "odd.py").write_text(SINK.format(error=error))
    async with world() as upstream:
        config = tmp_path / "poller.toml"
        text = CONFIG.format(url=upstream.url, state="poller.db", listen="")
        text = text.replace("[budgets.api]", 'plugins_dir = "plugins.d"\n[budgets.api]')
        config.write_text(f'{text}\n[[subscriptions]]\nname = "odd"\nplugin = "raising"\nretry = ["100ms", "100ms"]\n')
        async with living(config) as daemon:
            await until("a poll", lambda: upstream.asked > 1)
            upstream.edit(1, 1)
            sink = daemon.app.plugins.sinks["raising"]
            await until("all attempts", lambda: sink.asked >= 3)
            upstream.edit(1, 2)
            await until("events of the other", lambda: upstream.sizes(1) == [1, 2])
