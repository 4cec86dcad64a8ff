"""Receivers that take only so much at once get digests in parts: everything, in order, no dead letters."""

from __future__ import annotations

import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from aiohttp import web

from poller.testing import Poller, Upstream, running
from tests.support.smtp import serving_raw

SOURCE = """
[sources.acme]
plugin = "rest"
base_url = "https://acme.example"
[sources.acme.endpoints.items]
path = "/items"
pagination = { type = "none" }
baseline = "emit"
[[subscriptions]]
name = "crm"
digest = "1m"
start = "beginning"
"""


async def digested(poller: Poller) -> list[str]:
    """Forty events in one digest; the states of their deliveries."""
    await poller.sweep()
    await poller.advance(120.0)
    return [delivery.state for delivery in poller.deliveries]


def items(count: int) -> Upstream:
    return Upstream({"/items": [{"id": number, "name": f"item {number:02}"} for number in range(count)]})


@asynccontextmanager
async def limited(most: int) -> AsyncIterator[tuple[str, list[list[int]]]]:
    """A receiver of batches that answers 413 above so many bytes; the ids of each batch that it took."""
    batches: list[list[int]] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if len(body) > most:
            return web.Response(status=413)
        batches.append([event["data"]["object"]["id"] for event in orjson.loads(body)])
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", batches
    finally:
        await runner.cleanup()


async def test_a_callback_that_answers_413_gets_halves(tmp_path: Path) -> None:
    async with limited(4000) as (url, batches):
        config = f'{SOURCE}plugin = "http"\nurl = "{url}"\nmode = "batched"\nallow_private = true\n'
        async with running(config, tmp_path, upstream=items(40)) as poller:
            states = await digested(poller)

    assert states == ["delivered"] * 40
    assert [id for batch in batches for id in batch] == list(range(40))
    assert len(batches) > 1


async def test_a_mail_server_with_a_size_gets_several_mails(tmp_path: Path) -> None:
    async with serving_raw({"EHLO": b"250-mail.example\r\n250 SIZE 20000\r\n"}) as server:
        mail = f'plugin = "email"\nhost = "127.0.0.1"\nport = {server.port}\ntls = "none"\n'
        config = f'{SOURCE}{mail}from = "poller@maple.example"\nto = "ana@maple.example"\n'
        async with running(config, tmp_path, upstream=items(40)) as poller:
            states = await digested(poller)

    mails = [email.message_from_bytes(raw, policy=email.policy.default) for raw in server.mails]
    texts = [str(mail.get_body(("plain",)).get_content()) for mail in mails]  # type: ignore[union-attr]
    assert states == ["delivered"] * 40
    assert all(sum(f"“item {number:02}”" in text for text in texts) == 1 for number in range(40))
    assert 1 < len(mails) < 40
    assert all(len(raw) <= 20_100 for raw in server.mails)


async def test_one_event_that_a_template_fails_on_is_the_only_dead_letter(tmp_path: Path) -> None:
    template = (
        '[{% for e in events %}{"data": {"object": {"id": {{ e.object.id }}, "x": {{ 1 // (e.object.id - 3) }}}}}'
    )
    template += "{% if not loop.last %},{% endif %}{% endfor %}]"
    async with limited(40_000) as (url, batches):
        config = f'{SOURCE}plugin = "http"\nurl = "{url}"\nallow_private = true\n'
        async with running(f"{config}template = '''{template}'''\n", tmp_path, upstream=items(8)) as poller:
            states = await digested(poller)

    assert sorted(states) == ["dead", *["delivered"] * 7]
    assert [id for batch in batches for id in batch] == [0, 1, 2, 4, 5, 6, 7]


async def test_a_digest_whose_text_is_too_long_is_sent_in_parts(tmp_path: Path) -> None:
    upstream = items(30)
    for item in upstream.lists["/items"]:
        item |= {f"field {number:03}": "<" * 190 for number in range(60)}
    async with serving_raw() as server:
        mail = f'plugin = "email"\nhost = "127.0.0.1"\nport = {server.port}\ntls = "none"\n'
        template = "<p>{% for e in events %}{% for l, v in e.facts %}{{ v }}{{ v }}{{ v }}{% endfor %}{% endfor %}</p>"
        config = f'{SOURCE}{mail}from = "poller@maple.example"\nto = "ana@maple.example"\ntemplate = "{template}"\n'
        async with running(config, tmp_path, upstream=upstream) as poller:
            states = await digested(poller)

    assert states == ["delivered"] * 30
    assert len(server.mails) > 1


async def test_one_event_that_is_too_large_is_the_only_dead_letter(tmp_path: Path) -> None:
    upstream = items(8)
    upstream.lists["/items"][3]["note"] = "x" * 5000
    async with limited(4000) as (url, batches):
        config = f'{SOURCE}plugin = "http"\nurl = "{url}"\nmode = "batched"\nallow_private = true\n'
        async with running(config, tmp_path, upstream=upstream) as poller:
            states = await digested(poller)

    assert sorted(states) == ["dead", *["delivered"] * 7]
    assert [id for batch in batches for id in batch] == [0, 1, 2, 4, 5, 6, 7]
