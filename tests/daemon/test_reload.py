"""A reload takes over what can be used, and leaves everything as it was where it cannot."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from poller.config.load import load
from poller.config.models import Config
from poller.daemon.daemon import Daemon
from poller.daemon.reloads import reload_of
from poller.hooks.loading import load_plugins
from poller.options.problems import ConfigError
from tests.support.living import CONFIG, World, living, log_of, swept, until, world

PLUGIN = """
from pydantic import BaseModel
import httpx
from poller import Endpoint, Limit, Page, hookimpl

asked = []

class Source:
    class Options(BaseModel):
        url: str
        wrong: str = ""
        path: str = "/things"
    limits = (Limit(1000, 1.0),)
    auth = None
    def __init__(self, name, options):
        self.options = options
    def endpoints(self):
        if self.options.wrong:
            asked.append(self)
        if self.options.wrong and len(asked) > 1:  # not yet while the file is read
            raise RuntimeError("out of order") if self.options.wrong == "error" else SystemExit(0)
        return [Endpoint(name="things", id="id")]
    def request(self, endpoint, at):
        return httpx.Request("GET", self.options.url + self.options.path)
    def page(self, endpoint, at, response):
        return Page(objects=response.json(), next=None)
    def item_request(self, endpoint, object_id):
        return None
    def discover(self):
        return iter(())

@hookimpl
def register_sources(register):
    register("own", Source)
"""

PAGER = """
from pydantic import BaseModel
from poller import Receipt, hookimpl

class Pager:
    class Options(BaseModel):
        pass
    def __init__(self, name, options):
        pass
    async def __aenter__(self):
        return self
    async def __aexit__(self, *error):
        pass
    async def deliver(self, events, attempt):
        return Receipt("200")

@hookimpl
def register_sinks(register):
    register("pager", Pager)
"""

OWN = """
[poller]
state = "poller.db"
listen = ""
plugins_dir = "plugins.d"
[sources.api]
plugin = "own"
url = "{url}"
wrong = "{wrong}"
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{url}/hook"
allow_private = true
{more}
"""


@asynccontextmanager
async def own(folder: Path) -> AsyncIterator[tuple[World, Daemon, Path]]:
    """The daemon on a source plugin of somebody's, after its baseline."""
    (folder / "plugins.d").mkdir(mode=0o700)
    (folder / "plugins.d" / "own.py").write_text(PLUGIN)
    async with world() as upstream:
        config = folder / "poller.toml"
        config.write_text(OWN.format(url=upstream.url, wrong="", more=""))
        async with living(config) as daemon:
            await until("the baseline", lambda: swept(daemon))
            yield upstream, daemon, config


async def assert_goes_on(upstream: World, daemon: Daemon, size: int) -> None:
    upstream.edit(1, size)
    await until("an event", lambda: upstream.sizes(1) and upstream.sizes(1)[-1] == size)
    assert daemon.app.is_polling


@pytest.mark.parametrize("wrong", ["error", "exit"])
async def test_a_plugin_that_cannot_be_set_up_any_more_leaves_everything_as_it_was(
    tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with own(tmp_path) as (upstream, daemon, config):
        engine = daemon.app.engine
        config.write_text(OWN.format(url=upstream.url, wrong=wrong, more=""))
        await daemon.reload()
        assert daemon.app.engine is engine
        assert daemon.app.refused is not None
        await assert_goes_on(upstream, daemon, 1)
    assert capsys.readouterr().out.count("config.refused") == 1


async def test_a_reload_that_raises_anything_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with own(tmp_path) as (upstream, daemon, _):

        def read() -> Config:
            raise ValueError("boom")

        monkeypatch.setattr(daemon._reloader, "_read", read)
        await daemon.reload()
        assert "ValueError: boom" in (daemon.app.refused or "")
        await assert_goes_on(upstream, daemon, 1)


async def test_a_file_that_was_replaced_outside_of_the_container_is_not_called_reloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.daemon.reloader.was_replaced", lambda path: path.name == "poller.toml")
    async with own(tmp_path) as (_, daemon, _):
        await daemon.reload()
        assert "the one outside was replaced" in (daemon.app.refused or "")


async def test_signals_are_obeyed_again_after_the_set_up_of_a_source_has_replaced_their_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.daemon.daemon.LOOK_EVERY", 0.01)
    async with own(tmp_path):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
            await until("its handler", lambda number=number: signal.getsignal(number) is not signal.SIG_IGN)


async def test_a_reload_that_fails_after_the_swap_has_begun_goes_back(tmp_path: Path) -> None:
    """The disk is full just then: the new endpoint cannot be written down."""
    async with world() as upstream:
        config, state = tmp_path / "poller.toml", tmp_path / "poller.db"
        text = CONFIG.format(url=upstream.url, state=state, listen="")
        config.write_text(text)
        async with living(config) as daemon:
            await until("the baseline", lambda: swept(daemon))
            db = daemon.app.store.db
            db.execute("PRAGMA query_only = ON")
            more = '[sources.api.endpoints.more]\npath = "/things"\n[[subscriptions]]\nname = "hook"'
            config.write_text(text.replace('[[subscriptions]]\nname = "hook"', more))
            await daemon.reload()
            assert daemon.app.refused is not None
            assert list(daemon.app.config.sources["api"].endpoints) == ["things"]
            db.execute("PRAGMA query_only = OFF")
            await until("polling", lambda: daemon.app.is_polling)
            await assert_goes_on(upstream, daemon, 1)
            await daemon.reload()
            await until("the second baseline", lambda: swept(daemon))
            assert set(daemon.app.engine.sources["api"].endpoints) == {"things", "more"}


async def test_what_a_reload_has_spent_before_counts_after_it(tmp_path: Path) -> None:
    async with world() as upstream:
        config = tmp_path / "poller.toml"
        config.write_text(CONFIG.format(url=upstream.url, state="poller.db", listen="").replace("1000/s", "5/h"))
        async with living(config) as daemon:
            await until("the baseline", lambda: swept(daemon))
            for _ in range(8):
                await daemon.reload()
        assert upstream.asked <= 5


def loaded(folder: Path, text: str) -> Any:
    (folder / "poller.toml").write_text(text)
    return load(folder / "poller.toml", load_plugins(lazily=True))


def test_a_reload_says_what_it_changes_and_what_it_leaves(tmp_path: Path) -> None:
    text = CONFIG.format(url="http://127.0.0.1:1", state="poller.db", listen="127.0.0.1:1")
    before = loaded(tmp_path, text)
    after = text.replace('"poller.db"', '"other.db"\nretention = "5d"').replace("1000/s", "9/s")
    after = after.replace('name = "hook"', 'name = "crm"').replace("concurrency = 2", "")
    reload = reload_of(before, loaded(tmp_path, after))
    assert reload.changed == (
        "poller.retention",
        "budgets.api.limits",
        "budgets.api.concurrency",
        "subscriptions.crm added",
        "subscriptions.hook removed",
    )
    assert reload.kept == ("poller.state",)
    assert reload.config.poller.state == before.poller.state
    assert reload_of(before, loaded(tmp_path, text)).changed == ()


def test_a_reload_names_the_keys_that_differ_wherever_they_are_written(tmp_path: Path) -> None:
    text = CONFIG.format(url="http://127.0.0.1:1", state="poller.db", listen="")
    before = loaded(tmp_path, text)
    after = text.replace('name = "hook"', 'name = "hook"\nheaders = { A = "b" }')
    after = after.replace('path = "/things"', 'path = "/others"\nweight = 2')
    after = after.replace("[[subscriptions]]", '[sources.api.endpoints.more]\npath = "/more"\n[[subscriptions]]', 1)
    after = after.replace("[sources.api]", '[sources.api]\ntimeout = "9s"', 1)
    changed = set(reload_of(before, loaded(tmp_path, after)).changed)
    assert changed == {
        "sources.api.timeout",
        "sources.api.endpoints.more added",
        "sources.api.endpoints.things.path",
        "sources.api.endpoints.things.weight",
        "subscriptions.hook.headers",
    }


async def test_a_plugin_file_that_was_mended_is_loaded_by_the_next_reload(tmp_path: Path) -> None:
    async with own(tmp_path) as (upstream, daemon, config):
        pager = tmp_path / "plugins.d" / "pager.py"
        pager.write_text("raise RuntimeError('boom')")
        more = '[[subscriptions]]\nname = "pager"\nplugin = "pager"\n'
        config.write_text(OWN.format(url=upstream.url, wrong="", more=more))
        await daemon.reload()
        assert "RuntimeError: boom (line 1 of pager.py)" in str(daemon.app.refused)
        pager.write_text(PAGER)
        await daemon.reload()
        assert daemon.app.refused is None
        await assert_goes_on(upstream, daemon, 1)
        assert daemon.app.plugins.failed == []


async def test_a_reload_takes_over_the_folder_of_plugins_and_leaves_what_is_loaded(tmp_path: Path) -> None:
    async with own(tmp_path) as (upstream, daemon, config):
        (tmp_path / "others.d").mkdir(mode=0o700)
        (tmp_path / "others.d" / "pager.py").write_text(PAGER)
        more = '[[subscriptions]]\nname = "pager"\nplugin = "pager"\n'
        text = OWN.format(url=upstream.url, wrong="", more=more).replace("plugins.d", "others.d")
        config.write_text(text)
        with structlog.testing.capture_logs() as logs:
            await daemon.reload()
            await daemon.reload()
        await assert_goes_on(upstream, daemon, 1)
    assert [entry["changed"] for entry in logs if entry["event"] == "config.reloaded"] == [
        "poller.plugins_dir, subscriptions.pager added",
        "nothing",
    ]
    assert [entry for entry in logs if entry["event"] == "config.not_taken_over"] == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('ignore = ["/a~b"]', "'~' must be followed by 0 or 1"),
        ('unordered = ["/~"]', "'~' must be followed by 0 or 1"),
    ],
)
def test_a_pointer_that_cannot_be_used_is_refused_at_load(tmp_path: Path, line: str, told: str) -> None:
    text = CONFIG.format(url="http://127.0.0.1:1", state="poller.db", listen="")
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, text.replace("item_path", f"{line}\nitem_path"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('ca_file = "poller.toml"', "does not contain certificates in PEM format"),
        ('proxy = "http://"', "a proxy is a URL such as"),
        ('proxy = "http://proxy:port"', "a proxy is a URL such as"),
        ('proxy = "ftp://proxy:21"', "a proxy is a URL such as"),
        ('proxy = "http://proxy.example:99999999"', "a proxy is a URL such as"),
    ],
)
def test_what_no_connection_can_be_made_with_is_refused_at_load(tmp_path: Path, line: str, told: str) -> None:
    text = CONFIG.format(url="http://127.0.0.1:1", state="poller.db", listen="")
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, text.replace("base_url", f"{line}\nbase_url"))


async def test_a_refused_file_leaves_no_trace_in_the_log_of_events(tmp_path: Path) -> None:
    async with own(tmp_path) as (upstream, daemon, config):
        config.write_text("[poller]\nnonsense = 1\n")
        await daemon.reload()
        assert daemon.app.refused is not None
        await assert_goes_on(upstream, daemon, 1)
    assert [event.source for event in log_of(tmp_path / "poller.db")] == ["/sources/api"]


async def test_a_reload_says_that_it_loads_no_code_again(tmp_path: Path) -> None:
    async with own(tmp_path) as (upstream, daemon, _):
        (plugin,) = (tmp_path / "plugins.d").glob("*.py")
        os.utime(plugin, (1.0, 1.0))
        with structlog.testing.capture_logs() as logs:
            await daemon.reload()
            plugin.unlink()
            await daemon.reload()
        await assert_goes_on(upstream, daemon, 1)
    named = [entry["files"] for entry in logs if entry["event"] == "plugins.not_reloaded"]
    assert named == [plugin.name, plugin.name]  # as long as it is so
    assert [entry["summary"] for entry in logs if entry["event"] == "config.reloaded"] == [
        "The configuration was reloaded; changed: nothing."
    ] * 2
