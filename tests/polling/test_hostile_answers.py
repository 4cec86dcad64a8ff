"""An answer of any kind concerns its own source: the poll fails with a note and backs off, or is read as ever."""

import codecs
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import structlog

from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.polling import fetch
from poller.polling.episodes import FIRST_WAIT
from poller.polling.poll import poll
from tests.support.raw_server import Answers, answer, answering

CONFIG = """
[poller]
state = "poller.db"
listen = ""
"""
SOURCE = """
[sources.{name}]
plugin = "rest"
base_url = "{url}"
timeout = "2s"
[budgets.{name}]
limits = ["1000/s"]
[sources.{name}.endpoints.things]
path = "/things"
{more}
"""
GOOD = answer(b'[{"id": 1, "name": "J\xc3\xbcrgen"}]')


@asynccontextmanager
async def sources(folder: Path, *, more: str = "", **answers: Answers) -> AsyncIterator[App]:
    """The program with one source for each server."""
    async with AsyncExitStack() as stack:
        text = CONFIG
        for name, given in answers.items():
            url = await stack.enter_async_context(answering(given))
            text += SOURCE.format(name=name, url=url, more=more if name == "bad" else "")
        (folder / "poller.toml").write_text(text)
        plugins = load_plugins(lazily=True)
        yield await stack.enter_async_context(open_app(load(folder / "poller.toml", plugins), plugins))


async def look(app: App, name: str = "bad") -> str | None:
    """Poll the only unit of a source once. Gives its error."""
    run = app.engine.sources[name]
    w = run.endpoints["things"]
    (key,) = w.units
    async with await run.poll_loop.limiter.permit():
        await poll(app.engine.polling, run, w, key)
    return w.units[key].error if w.units[key].failures else None


FAILS = {
    "error page in a charset that is none": answer(
        b"oops", b"Content-Type: text/html; charset=hex", status=b"503 Busy"
    ),
    "status line that is not ASCII": answer(b"oops", status=b"503 B\xfcsy"),
    "redirect to a host that is none": answer(b"", b"Location: http://xn--/", status=b"302 Found"),
    "redirect to a script": answer(b"", b"Location: javascript:alert(1)", status=b"302 Found"),
    "redirect to data": answer(b"", b"Location: data:text/plain,hi", status=b"301 Moved"),
    "redirect to a mailbox": answer(b"", b"Location: mailto:a@b.example", status=b"307 Moved"),
    "redirect to a host that is not ASCII": answer(b"", b"Location: http://j\xfcrgen.example/", status=b"302 Found"),
    "redirect to a path that is not ASCII": answer(b"", b"Location: /\xff\xfe\x80", status=b"302 Found"),
    "redirect to nowhere": answer(b"", b"Location: ", status=b"302 Found"),
    "redirect to a port that is none": answer(b"", b"Location: http://127.0.0.1:99999999/", status=b"302 Found"),
    "redirect to brackets": answer(b"", b"Location: http://[::1/", status=b"302 Found"),
    "a Link to nothing that can be asked": answer(b'[{"id": 1}]', b'Link: <http://[::1/>; rel="next"'),
    "a Link to another host": answer(b'[{"id": 1}]', b'Link: <http://j\xfcrgen.example/>; rel="next"'),
    "JSON that is not what its charset says": answer(
        b'[{"id": 1, "name": "\xff"}]', b"Content-Type: application/json; charset=shift_jis"
    ),
    "objects that are not UTF-8": answer(b'[{"id": 1, "name": "J\xfcrgen"}]'),
    "a list that is still being prepared": answer(b"[]", status=b"202 Accepted"),
    "a part of the list": answer(b'[{"id": 1}]', status=b"206 Partial Content"),
    "no HTTP at all": b"\x00\xff\xfe" * 50,
    "a status that is no number": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "an answer that ends in its middle": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[] ",
    "headers without end": [b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 60_000 + b"\r\n"] * 5],
}


@pytest.mark.parametrize(("name", "given"), FAILS.items(), ids=FAILS.keys())
async def test_an_answer_that_cannot_be_used_fails_its_own_poll_and_backs_off(name, given, tmp_path):
    more = 'pagination = { type = "link" }'
    async with sources(tmp_path, more=more, bad=lambda request: given, good=lambda request: GOOD) as app:
        error = await look(app)

        assert error is not None
        assert "redirected" in error or not name.startswith("redirect")
        unit = next(iter(app.engine.sources["bad"].endpoints["things"].units.values()))
        assert unit.retry_at is not None
        assert unit.retry_at >= app.clock.now() + FIRST_WAIT - 1
        assert await sweep_once(app, [("good", "things")]) == []


@pytest.mark.parametrize(
    "charset",
    [
        *("hex", "base64", "zlib", "rot13", "undefined", "idna", "punycode", "uu", "bz2", "quopri", "utf-16", "utf-7"),
        *("unicode_escape", "raw_unicode_escape", "mbcs", "oem", "no such", "\xe9\xe8", "x" * 5000, '"', ";", "=?="),
    ],
)
@pytest.mark.parametrize(("status", "error"), [(b"503 Busy", "503 Busy: "), (b"200 OK", "the answer is not JSON")])
async def test_a_charset_of_any_name_ends_nothing(charset, status, error, tmp_path):
    body = codecs.BOM_UTF8 + b"\xff\xfe h\xc3\xa9 " * 50
    given = answer(body, f"Content-Type: text/html; charset={charset}".encode("latin-1"), status=status)
    async with sources(tmp_path, bad=lambda request: given) as app:
        assert error in str(await look(app))


@pytest.mark.parametrize(
    "name", [b"X-User", b"ETag", b"Last-Modified", b"Content-Type", b"Date", b"Retry-After", b"Link"]
)
@pytest.mark.parametrize("value", [b'"J\xfcrgen"', b"\xc3\xbc\xff", b"\x80" * 200])
async def test_header_bytes_beyond_ascii_are_read_and_sent_back_as_they_came(name, value, tmp_path):
    asked = []

    def answers(request: bytes) -> bytes:
        asked.append(request)
        return answer(GOOD.partition(b"\r\n\r\n")[2], name + b": " + value)

    async with sources(tmp_path, bad=answers) as app:
        assert await look(app) is None
        assert await look(app) is None

    sent = {b"ETag": b"If-None-Match"}.get(name)  # a Last-Modified that is no date is not sent back
    assert sent is None or sent + b": " + value in asked[1].replace(sent.lower(), sent)
    assert b"if-modified-since" not in asked[1].lower()


@pytest.mark.parametrize(
    "charset", ["utf-16", "utf-16-le", "utf-32", "iso-8859-1", "windows-1252", "koi8-r", "shift_jis", "UTF8"]
)
async def test_a_json_body_is_decoded_by_the_charset_that_it_declares(charset, tmp_path):
    text = {"koi8-r": "Юрий", "shift_jis": "太郎"}.get(charset, "Jürgen")
    body = f'[{{"id": 1, "name": "{text}"}}]'.encode(charset)
    given = answer(body, f"Content-Type: application/json; charset={charset}".encode())
    async with sources(tmp_path, bad=lambda request: given) as app:
        assert await sweep_once(app) == []
        kept = await app.write(app.store.poll_reader.object, "bad", "things", "1")

    assert text in kept.body.decode()


@pytest.mark.parametrize("status", [b"204 No Content", b"404 Not Found"])
async def test_a_status_that_stands_for_an_empty_list_is_one(status, tmp_path):
    async with sources(tmp_path, more="empty_status = [404]", bad=lambda _: answer(b"", status=status)) as app:
        assert await sweep_once(app) == []


async def test_utf_8_under_a_charset_that_servers_declare_by_default_stays_utf_8(tmp_path):
    given = answer('[{"id": 1, "name": "Jürgen"}]'.encode(), b"Content-Type: application/json; charset=ISO-8859-1")
    async with sources(tmp_path, bad=lambda request: given) as app:
        assert await sweep_once(app) == []
        kept = await app.write(app.store.poll_reader.object, "bad", "things", "1")

    assert "Jürgen" in kept.body.decode()


@pytest.mark.parametrize(
    "body", [b'{"error": "down until noon"}', b"down until noon", b'{"error": ["down until noon"]}']
)
async def test_a_short_answer_without_the_list_is_shown_because_it_may_say_why(body, tmp_path):
    async with sources(tmp_path, more='items = "$.things"', bad=lambda request: answer(body)) as app:
        assert "down until noon" in (await look(app) or "")


async def test_what_is_not_utf_8_is_called_that(tmp_path):
    given = answer(b'[{"id": 1, "name": "J\xfcrgen"}]')
    async with sources(tmp_path, bad=lambda request: given) as app:
        error = await look(app)

    assert error == "none of its objects can be used: 1 object with text that is not UTF-8"


ODD_ONES = {
    "half of a surrogate pair": (
        rb'{"id": 2, "name": "\ud800"}',
        "with half of a surrogate pair set aside (index 1: 2)",
    ),
    "NaN": (b'{"id": 2, "price": NaN}', "with NaN or Infinity set aside (index 1: 2)"),
    "a line feed in a text": (b'{"id": 2, "name": "a\nb"}', "a control character in a text set aside (index 1: 2)"),
    "null": (b"null", "given as null set aside (index 1)"),
    "a text": (b'"two"', "given as text set aside (index 1)"),
    "a number": (b"2", "given as a number set aside (index 1)"),
}


@pytest.mark.parametrize(("odd", "note"), ODD_ONES.values(), ids=ODD_ONES.keys())
async def test_one_object_that_cannot_be_used_is_named_once_and_the_others_are_read(tmp_path, odd, note):
    bodies = [b'[{"id": 1}, {"id": 2}, {"id": 3}]']
    async with sources(tmp_path, more='absent_for = "0s"', bad=lambda _: answer(bodies[-1])) as app:
        assert await sweep_once(app) == []
        with structlog.testing.capture_logs() as said:
            for size in (1, 2, 3):
                bodies.append(b'[{"id": 1}, %b, {"id": 3, "size": %d}]' % (odd, size))
                assert await sweep_once(app) == []
        told = [(one.type, one.subject) for one in app.store.log.read(limit=100)]
        assert told == [("bad.things.updated", "things/3")] * 3
        assert note in app.engine.sources["bad"].endpoints["things"].oddities.notes["list"]
        assert len([one for one in said if one["event"] == "page.odd"]) == 1

        bodies.append(b'[{"id": 1}, {"id": 2}]')
        for _ in range(4):
            assert await sweep_once(app) == []
        assert app.engine.sources["bad"].endpoints["things"].oddities.notes == {}


async def test_a_chain_of_too_many_answers_fails_its_poll(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MOST_PAGES", 5)
    numbers = count(1)

    def answers(_: bytes) -> bytes:
        number = next(numbers)
        return answer(json.dumps({"items": [{"id": number}], "next": f"c{number}" if number < 9 else None}).encode())

    async with sources(tmp_path, more='items = "$.items"\npagination = { type = "cursor" }', bad=answers) as app:
        assert "has not ended after 5 pages" in str(await look(app))
