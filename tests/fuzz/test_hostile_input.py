"""Random input at every place that takes words of others: refused with an error of ours, quickly, and nothing else.

Each example may take a quarter of a second of this thread's processor time, which the load of the machine does not
change. `POLLER_EXAMPLES` says how many are tried; `make prove-fuzz` tries many.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller.budget.headers import read_headers
from poller.config.load import ConfigError, load
from poller.events.filters import ExpressionError, FilterError, event_rule, object_rule
from poller.hooks.loading import load_plugins
from poller.options.secrets import Secret
from poller.redaction import Redactor
from poller.rendering.event_view import EventView
from poller.rendering.lines import plain_line
from poller.rendering.templates import Escape, RenderError, render
from poller.rendering.terminal import UNSAFE, printable, printable_lines
from poller.sinks.protocol import Receipt
from poller.sinks.ssrf import literal_address, why_refused
from poller.sources.charsets import WrongCharset, as_utf8, charset_of, opening
from poller.sources.content_coding import CodingError, TooMuch, Unpacker, codings_of
from poller.sources.urls import shown_url
from poller.testing import make_event
from tests.support.command_line import open_shop
from tests.support.daemon import running_daemon, wait_for

MOST = 0.25  # seconds of processor time
fuzzed = settings(
    max_examples=int(os.environ.get("POLLER_EXAMPLES", "50")), deadline=None, suppress_health_check=list(HealthCheck)
)


@contextlib.contextmanager
def briefly() -> Iterator[None]:
    """Fails where the block takes longer than the loop may stand still."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < MOST


TEXTS = st.text(max_size=60) | st.sampled_from(["", "\x00", "\ud800", "9" * 5000, "{{", "*" * 300, "\u202e", "\r\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
BYTES = st.binary(max_size=80).filter(lambda found: not set(found) & set(b"\r\n\x00"))
NAMES = st.sampled_from(
    [
        *("Retry-After", "RateLimit", "RateLimit-Policy", "RateLimit-Reset", "RateLimit-Remaining", "RateLimit-Limit"),
        *("X-RateLimit-Reset", "X-RateLimit-Remaining", "Content-Type", "Content-Encoding", "Date", "Location", "Link"),
    ]
)
WORDS = st.sampled_from(
    [
        *("1", "0", "-1", "9" * 400, "1e400", "nan", "inf", ";", ",", "=", '"', "r", "t", "w", "q", "default", "\xff"),
        *(
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:60 GMT",
            "text/html; charset=",
            "hex",
            "utf-7",
            "gzip",
        ),
    ]
)
VALUES_OF_HEADERS = BYTES | st.lists(WORDS, max_size=6).map(lambda words: "".join(words).encode("latin-1"))


@fuzzed
@given(
    status=st.sampled_from([200, 206, 301, 429, 503]),
    headers=st.lists(st.tuples(NAMES, VALUES_OF_HEADERS), max_size=6),
    body=st.binary(max_size=200),
)
def test_any_headers_are_read(status: int, headers: list[tuple[str, bytes]], body: bytes) -> None:
    response = httpx.Response(status, headers=[(name.encode(), value) for name, value in headers])
    response._content = body
    with briefly():
        read_headers(status, response.headers, now=1e9)
        charset = charset_of(response)
        opening(response)
        with contextlib.suppress(WrongCharset):
            as_utf8(body, charset)
        with contextlib.suppress(CodingError, TooMuch):
            unpacker = Unpacker(codings_of(response.headers.get("content-encoding", "")), most=10_000)
            list(unpacker.feed(body))
            unpacker.finish()


# Configuration: keys that there are, with values that they may not have.

KEYS = st.sampled_from(
    [
        *(
            "state",
            "listen",
            "token",
            "heartbeat",
            "retention",
            "timezone",
            "log_level",
            "plugins_dir",
            "allowed_hosts",
        ),
        *(
            "plugin",
            "base_url",
            "auth",
            "headers",
            "timeout",
            "max_answer",
            "proxy",
            "ca_file",
            "endpoints",
            "path",
            "id",
        ),
        *(
            "items",
            "pagination",
            "where",
            "deleted_when",
            "types",
            "start",
            "retry",
            "digest",
            "template",
            "url",
            "name",
        ),
        *("secret", "limits", "share", "concurrency", "budget", "ignore", "item_path", "parent", "updated_since", "to"),
    ]
)
PLAIN = st.sampled_from(
    [
        *(
            "rest",
            "http",
            "slack",
            "email",
            "console",
            "jsonl",
            "apprise",
            "nutcache",
            "1/s",
            "5m",
            "32MB",
            "http://x.y",
        ),
        *(
            "$.a[?",
            "{{ x",
            "{% for",
            "object.a ==",
            "/a~b",
            "* * * * *",
            "now",
            "whsec_",
            "../..",
            "a@b",
            "\x7f",
            "\u2028",
        ),
    ]
)
SCALARS = PLAIN | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
TABLES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value.encode(errors="replace").decode()).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture(scope="module")
def plugins() -> Any:
    return load_plugins()


@fuzzed
@given(
    settings_=st.dictionaries(KEYS, TABLES, max_size=4),
    budgets=TABLES,
    source=st.dictionaries(KEYS, TABLES, max_size=6),
    subscription=st.dictionaries(KEYS, TABLES, max_size=6),
    tail=st.text(max_size=10),
)
def test_any_configuration_is_taken_or_refused_with_its_problems(
    plugins: Any, tmp_path_factory: pytest.TempPathFactory, settings_, budgets, source, subscription, tail
) -> None:
    file = tmp_path_factory.getbasetemp() / "poller.toml"
    source, subscription = {"plugin": "rest", **source}, {"plugin": "http", **subscription}
    tables = {"poller": settings_, "budgets": budgets, "sources": {"s": source}, "subscriptions": [subscription]}
    text = "\n".join(f"{name} = {as_toml(table)}" for name, table in tables.items())
    file.write_text(text + ("\n# " + tail if tail.isprintable() else tail), encoding="utf-8", errors="replace")

    with contextlib.suppress(ConfigError):
        load(file, plugins)


# Expressions and templates.

PIECES = st.sampled_from(
    [
        *(
            "data",
            "data.object",
            "object",
            "type",
            "subject",
            ".a",
            "['a']",
            "[0]",
            "[99999999999]",
            "==",
            "!=",
            "<",
            "+",
        ),
        *("&&", "||", "!", "-", "?", ":", "(", ")", "1", "1.0", "-9223372036854775808", "1u", "'a'", "b'a'", "true"),
        *("null", "in", ".all(x, x)", ".exists(y, y == 1)", ".map(z, z)", ".matches('(a+)+$')", "size(data)", "{", "}"),
        *("has(data.a)", ".filter(x, x.filter(y, y))", "timestamp('x')", "duration('1e99s')", "string(data)", "\x00"),
    ]
)
EXPRESSIONS = st.lists(PIECES, max_size=14).map("".join) | TEXTS
DATA = st.dictionaries(st.sampled_from(["a", "object", "changes"]), VALUES | st.just([[1] * 50] * 50), max_size=3)


@fuzzed
@given(text=EXPRESSIONS, data=DATA)
def test_any_expression_is_true_false_or_refused(text: str, data: dict[str, Any]) -> None:
    event = {"data": data, "type": "t", "source": "s", "subject": "x"}
    for rule, context in ((event_rule, event), (object_rule, {"object": data})):
        with contextlib.suppress(ExpressionError, FilterError), briefly():
            rule(text).holds(context)


def storable(data: Any) -> bytes:
    """JSON without what no answer can have: half of a surrogate pair."""
    return json.dumps(data, ensure_ascii=False, default=str).encode(errors="replace")


def sendable(value: bytes) -> bytes:
    """What httpx takes for the value of a header."""
    return bytes(byte for byte in value if 0x20 < byte != 0x7F)


TAGS = st.sampled_from(
    [
        *("{{ ", " }}", "{% ", " %}", "event", "events", ".data", ".object", "|tojson", "|length", "|join", "|list"),
        *("for x in events", "endfor", "if event", "endif", "range(10**9)", "* 10**9", "'a' * 10**9", "__class__"),
        *(
            "|attr('__init__')",
            "set a = a ~ a",
            "macro m()",
            "endmacro",
            "m()",
            "loop",
            "|format(10**9)",
            "'%999999999d'",
        ),
        *("| center(999999999)", "|replace('', 'aaaa')", "include 'x'", "import os", "10**10**8", "|batch(1)", "\n"),
    ]
)
TEMPLATES = st.lists(TAGS, max_size=12).map(" ".join) | TEXTS


@fuzzed
@given(text=TEMPLATES, data=DATA, escape=st.sampled_from(list(Escape)))
def test_any_template_is_rendered_or_refused(text: str, data: dict[str, Any], escape: Escape) -> None:
    with contextlib.suppress(RenderError):
        assert len(render(text, [make_event({"a": 1, **json.loads(storable(data))})], escape=escape)) <= 2_000_000


# What others say, shown and kept.


@fuzzed
@given(text=TEXTS | st.text(), secret=st.text(min_size=1, max_size=40))
def test_any_text_is_printable_storable_and_without_secrets(text: str, secret: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    with briefly():
        shown = printable(redactor.redacted(text))
        assert not set(shown) & set("\x00\x1b\n\r\x9b\u202e\u2028")
        assert not printable_lines(text).startswith("<0")
        Receipt(status=text, text=text, reference=text).text.encode()
        if len(secret) >= 12 and not secret.isalpha():
            assert secret not in redactor.redacted(f"x {secret} y")
    assert UNSAFE


@fuzzed
@given(data=VALUES, object_=st.dictionaries(TEXTS, VALUES, max_size=4), endpoint=TEXTS)
def test_any_event_is_one_line_for_a_terminal(data: Any, object_: dict[str, Any], endpoint: str) -> None:
    with contextlib.suppress(UnicodeEncodeError, TypeError), briefly():  # what cannot be encoded is never stored
        line = plain_line(EventView(make_event(object_, changes={"/a": (data, None)}, endpoint=endpoint)), "1")
        assert "\n" not in line
        assert "\x1b" not in line


@fuzzed
@given(host=TEXTS | st.from_regex(r"[0-9a-fx.:\[\]%]{0,30}"), url=st.text(max_size=60))
def test_any_address_is_judged(host: str, url: str) -> None:
    with briefly():
        why_refused(host)
        literal_address(host)
        with contextlib.suppress(httpx.InvalidURL):
            shown_url(url)
    assert Secret("text", url).kind == "text"


# The API of a real daemon.


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Any]]:
    with open_shop() as shop:
        config = shop.configure(tmp_path_factory.mktemp("api"), listen="127.0.0.1:0")
        with running_daemon(config) as daemon:
            url = wait_for("the URL", daemon.url)
            with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as client:
                yield client, daemon


PARTS = st.sampled_from(
    [
        *("api", "v1", "events", "deliveries", "subscriptions", "endpoints", "budgets", "status", "plan", "metrics"),
        *(
            "shop",
            "items",
            "file",
            "1",
            "-1",
            "9" * 30,
            "..",
            "%2e%2e",
            "%00",
            "%ff",
            "",
            "object",
            "replay",
            "redeliver",
        ),
        *("hold", "release", "resume", "pause", "ping", "rebaseline", "inspect", "probe", "ledger", "types", "healthz"),
    ]
)
PATHS = st.lists(PARTS, max_size=6).map(lambda parts: "/" + "/".join(parts)).filter(lambda path: "stream" not in path)
QUERIES = st.dictionaries(
    st.sampled_from(
        ["after", "before", "limit", "type", "subject", "source", "state", "id", "weight", "share", "limits"]
    ),
    st.sampled_from(
        ["", "1", "-1", "9" * 40, "nan", "1e400", "*", "*a" * 80, "2026-11-26T00:00:00Z", "x-1", "\x00", "é"]
    ),
    max_size=3,
)
BODIES = VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60) | st.just(b"[" * 1000)


@fuzzed
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "X"]),
    path=PATHS,
    query=QUERIES,
    body=BODIES,
    headers=st.lists(
        st.tuples(st.sampled_from(["Range", "Accept", "Last-Event-ID", "If-None-Match"]), BYTES), max_size=2
    ),
)
def test_any_request_is_answered_as_a_client_deserves(daemon, method, path, query, body, headers) -> None:
    client, process = daemon
    sent = {"content-type": b"application/json", **{name: sendable(value) for name, value in headers}}

    answer = client.request(method, path, params=query, content=body, headers=sent)

    assert answer.status_code < 500 or answer.status_code == 503
    assert "Traceback" not in process.log
