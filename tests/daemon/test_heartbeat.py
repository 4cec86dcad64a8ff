"""The heartbeat's peer can do no harm: only its status is read, and the whole call has a time limit."""

from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import structlog

from poller.daemon import upkeep
from poller.daemon.heartbeat import call
from tests.support.raw_server import answer, answering

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("given", "failed"),
    [
        (answer(b"ok"), None),
        (chain([HEAD], repeat(b"x" * 65536)), None),  # without end, and nothing of it is read
        (answer(b"", b"X-User: J\xfcrgen"), None),
        (answer(b"", status=b"503 Busy"), 503),
        (answer(b"", b"Location: http://xn--/", status=b"302 Found"), "any"),
        (answer(b"", b"Location: javascript:alert(1)", status=b"302 Found"), "any"),
        (repeat(0.05), "TimeoutError"),
        ([HEAD[:17], *repeat(b"X: y\r\n", 100_000)], "any"),
        (b"\xff\x00", "RemoteProtocolError"),
    ],
)
async def test_whatever_the_heartbeat_is_answered_ends_nothing(given, failed):
    async with answering(lambda request: given) as url:
        with structlog.testing.capture_logs() as logs:
            await call(f"{url}/?key=s3cret", patience=0.5)

    said = [line.get("error", line.get("status")) for line in logs]
    assert len(said) == (failed is not None)
    assert failed in (None, "any", *said)
    assert "s3cret" not in str(logs)


@pytest.mark.parametrize(("is_well", "refused", "beats"), [(True, None, 1), (False, None, 0), (True, "a key", 0)])
async def test_the_heart_stands_still_in_an_outage_and_under_a_refused_configuration(
    monkeypatch, is_well, refused, beats
):
    heard = []

    async def beat(app):
        heard.append(app)

    monkeypatch.setattr(upkeep, "beat", beat)
    await upkeep.Upkeep(SimpleNamespace(is_well=is_well, refused=refused))._beat()

    assert len(heard) == beats
