"""What plugins raise while the daemon runs does not end it, whatever that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Shop
from tests.support.daemon import running_daemon, wait_for
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


CARELESS = """
import asyncio, gc, locale, logging, os, socket, sys, time, warnings
import structlog
from pydantic import BaseModel
from poller import Receipt, hookimpl

def change_everything():
    os.chdir("/")
    os.umask(0o777)
    os.environ.clear()
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    locale.setlocale(locale.LC_ALL, "C")
    warnings.simplefilter("error")
    gc.disable()
    socket.setdefaulttimeout(0.001)
    asyncio.set_event_loop_policy(None)
    asyncio.new_event_loop = None
    logging.basicConfig(force=True, level=0, handlers=[Raising()])
    structlog.configure(processors=[])
    sys.stdout = sys.stderr = None

class Raising(logging.Handler):
    def emit(self, record):
        raise SystemExit(1)

class Careless:
    class Options(BaseModel):
        pass
    def __init__(self, name, options):
        pass
    async def __aenter__(self):
        return self
    async def __aexit__(self, *error):
        pass
    async def deliver(self, events, attempt):
        change_everything()
        return Receipt("ok")

@hookimpl
def register_sinks(register):
    register("careless", Careless)
"""


@pytest.mark.slow
def test_a_plugin_that_changes_settings_of_the_process_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "plugins.d").mkdir(mode=0o700)
    (tmp_path / "plugins.d" / "careless.py").write_text(CARELESS)
    more = '[[subscriptions]]\nname = "careless"\nplugin = "careless"\n'
    config = shop.configure(tmp_path, more=more)
    config.write_text(
        config.read_text().replace("[poller]", '[poller]\nlog_level = "debug"\nplugins_dir = "plugins.d"')
    )
    given = tmp_path / "out.jsonl"
    with running_daemon(config) as daemon:
        wait_for("the baseline", lambda: "sweep.first" in daemon.log)
        for number in range(1, 3):
            shop.items[0]["name"] = f"Quince {number}"
            wait_for("the event", lambda number=number: given.is_file() and f"Quince {number}" in given.read_text())
            wait_for("both deliveries", lambda number=number: daemon.log.count("delivery.delivered") == 2 * number)
        assert daemon.stop() == 0
    assert daemon.log.splitlines()[-1].count("poller.stopped") == 1
