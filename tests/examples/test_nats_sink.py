"""The NATS plugin of the examples: installed as a package, loaded as a plugin, against a real JetStream server."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import nats
import orjson
import pytest
from nats.js.api import StreamConfig

from poller import Attempt, Event, Receipt, Rejected, RetryLater

EXAMPLE = Path(__file__).parents[2] / "examples" / "nats-sink"
FIRST = Attempt(number=1, delivery_id="7")


def make_event(number: int = 1, **fields: Any) -> Event:
    return Event(
        **{
            "id": f"k{number}",
            "source": "/sources/acme",
            "type": "nutcache.projects.updated",
            "subject": f"projects/{number}",
            "time": 1795472732.123,
            "observed_after": None,
            "raw": orjson.dumps({"object": {"id": number}, "version": 1}),
            "seq": number,
            **fields,
        }
    )


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("poller_nats", EXAMPLE / "poller_nats.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["poller_nats"] = module
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def serving(folder: Path, *arguments: str) -> AsyncIterator[str]:
    """A JetStream server of its own on a free port; gives its URL."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("nats-server")),
        *("--jetstream", "--addr", "127.0.0.1", "--port", "-1", "--store_dir", str(folder)),
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            url = await said(process.stderr)
        yield url
    finally:
        process.terminate()
        await process.communicate()


async def said(log: asyncio.StreamReader) -> str:
    """The URL that the server says it listens on, once it is ready."""
    url = ""
    while b"Server is ready" not in (line := await log.readline()):
        if found := re.search(rb"client connections on (\S+)", line):
            url = f"nats://{found[1].decode()}"
    return url


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    async with serving(tmp_path) as url:
        yield url


async def add_stream(url: str, **keys: Any) -> None:
    client = await nats.connect(url)
    await client.jetstream().add_stream(StreamConfig(**{"name": "poller", "subjects": ["poller.>"], **keys}))
    await client.close()


async def stored(url: str) -> list[Any]:
    client = await nats.connect(url)
    stream = client.jetstream()
    count = (await stream.stream_info("poller")).state.messages
    messages = [await stream.get_msg("poller", number + 1) for number in range(count)]
    await client.close()
    return messages


def options(plugin: ModuleType, url: str, **keys: Any) -> Any:
    return plugin.NatsOptions.model_validate({"servers": [url], **keys})


async def test_an_event_is_stored_as_a_cloudevent(plugin: ModuleType, server: str) -> None:
    await add_stream(server)
    async with plugin.NatsSink("stream", options(plugin, server)) as sink:
        receipt = await sink.deliver([make_event(1), make_event(2)], FIRST)

    first, second = await stored(server)
    assert receipt == Receipt(status="stored", text="poller no. 2")
    assert first.subject == "poller.acme.nutcache.projects.updated"
    assert first.headers["Nats-Msg-Id"] == "k1"
    assert orjson.loads(second.data)["subject"] == "projects/2"


async def test_an_event_that_is_sent_twice_is_stored_once(plugin: ModuleType, server: str) -> None:
    await add_stream(server)
    for _ in range(2):
        async with plugin.NatsSink("stream", options(plugin, server)) as sink:
            receipt = await sink.deliver([make_event()], FIRST)

    assert receipt.text == "poller no. 1, known already"
    assert len(await stored(server)) == 1


async def test_no_stream_for_the_subject_is_tried_again(plugin: ModuleType, server: str) -> None:
    async with plugin.NatsSink("stream", options(plugin, server)) as sink:
        with pytest.raises(RetryLater) as failure:
            await sink.deliver([make_event()], FIRST)
        await add_stream(server)
        assert (await sink.deliver([make_event()], FIRST)).status == "stored"

    assert "stream add" in failure.value.receipt.text


async def test_the_wrong_stream_is_tried_again(plugin: ModuleType, server: str) -> None:
    await add_stream(server)
    async with plugin.NatsSink("stream", options(plugin, server, stream="other")) as sink:
        with pytest.raises(RetryLater) as failure:
            await sink.deliver([make_event()], FIRST)

    assert "stream" in failure.value.receipt.text


async def test_an_event_too_large_for_the_server_is_dead(plugin: ModuleType, tmp_path: Path) -> None:
    settings = tmp_path / "nats.conf"
    settings.write_text("max_payload: 1024\n")
    async with serving(tmp_path, "--config", str(settings)) as url:
        await add_stream(url)
        async with plugin.NatsSink("stream", options(plugin, url)) as sink:
            with pytest.raises(Rejected):
                await sink.deliver([make_event(raw=b'{"object":{"note":"' + b"x" * 2000 + b'"}}')], FIRST)


async def test_a_token_is_given(plugin: ModuleType, tmp_path: Path) -> None:
    async with serving(tmp_path, "--auth", "s3cret") as url:
        let_in = await status_of_failure(plugin, options(plugin, url, token="s3cret"))
        kept_out = await status_of_failure(plugin, options(plugin, url, token="wr0ng", timeout="300ms"))

    assert (let_in, kept_out) == ("no stream", "unreachable")


async def test_a_server_that_is_down_is_told_in_time(plugin: ModuleType) -> None:
    assert await status_of_failure(plugin, options(plugin, "nats://127.0.0.1:1", timeout="200ms")) == "unreachable"


async def status_of_failure(plugin: ModuleType, given: Any) -> str:
    async with plugin.NatsSink("stream", given) as sink:
        with pytest.raises(RetryLater) as failure:
            await sink.deliver([make_event()], FIRST)
    return failure.value.receipt.status


@pytest.mark.parametrize(
    ("template", "fields", "subject"),
    [
        ("poller.{source}.{type}", {}, "poller.acme.nutcache.projects.updated"),
        ("events.{subject}", {"subject": "projects/a b.c"}, "events.projects.a_b_c"),
        ("events.{subject}", {"subject": "projects/>"}, "events.projects._"),
        ("events.{subject}", {"subject": "projects/*"}, "events.projects._"),
        ("events.{type}", {"type": "a..b"}, "events.a._.b"),
        ("{source}.x", {"source": "/poller"}, "poller.x"),
    ],
)
def test_no_name_in_an_event_reaches_another_subject(
    plugin: ModuleType, template: str, fields: dict[str, Any], subject: str
) -> None:
    assert plugin.subject_of(template, make_event(**fields)) == subject


def test_the_package_installs_and_is_found_by_its_entry_point(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", site, source], check=True, capture_output=True)

    look = "from poller.hooks.loading import load_plugins as l; p = l(); print(p.sinks['nats'].__module__, p.failed)"
    path = os.pathsep.join([str(site), str(EXAMPLE.parent.parent)])
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", look],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert found.stdout.startswith("poller_nats"), found.stderr
