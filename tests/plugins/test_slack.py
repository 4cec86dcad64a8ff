"""The slack sink against a local server that answers as Slack does, its errors and limits included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from slack_sdk.models.blocks import Block

from plugins.slack import SlackOptions, SlackSink
from plugins.slack.blocks import BLOCKS, SECTION, TEXT, TOTAL, digest, digest_text, fitted, message, templated
from plugins.slack.pace import Pace
from plugins.slack.sink import TIMEOUT
from poller import Attempt, Event, Gone, Receipt, Refused, Rejected, RetryLater, TooLarge
from poller.clock import VirtualClock
from poller.rendering.event_view import EventView
from poller.rendering.mrkdwn import escaped

FIRST = Attempt(number=1, delivery_id="7")


def make_event(data: dict[str, Any] | None = None, **fields: Any) -> Event:
    told = data or {
        "object": {"id": 7, "name": "Website", "updated_by": {"name": "Ana Roy"}},
        "version": 2,
        "changes": [{"path": "/status", "before": "planned", "after": "won"}],
    }
    return Event(
        **{
            "id": "k4x",
            "source": "/sources/acme",
            "type": "nutcache.projects.updated",
            "subject": "projects/7",
            "time": 1795472732.123,
            "observed_after": None,
            "raw": orjson.dumps(told),
            "seq": 1234,
            **fields,
        }
    )


@dataclass
class Slack:
    """A server that answers as Slack does: incoming webhooks in plain text, the Web API in JSON."""

    url: str = ""
    webhook_answer: tuple[int, str] = (200, "ok")
    api_answer: tuple[int, dict[str, Any] | str] = (200, {"ok": True})
    reply_error: str = ""  # of the Web API for a reply in a thread
    headers: dict[str, str] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    async def webhook(self, request: web.Request) -> web.Response:
        self.messages.append(orjson.loads(await request.read()))
        status, text = self.webhook_answer
        return web.Response(status=status, text=text, headers=self.headers)

    async def post_message(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers["Authorization"])
        self.messages.append(orjson.loads(await request.read()))
        status, body = self.api_answer
        if self.reply_error and "thread_ts" in self.messages[-1]:
            body = {"ok": False, "error": self.reply_error}
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html", headers=self.headers)
        stamp = {"ts": f"1795472732.{len(self.messages):06}", "channel": "C1"} if body["ok"] else {}
        return web.json_response({**body, **stamp}, status=status, headers=self.headers)


@pytest.fixture
async def slack() -> AsyncIterator[Slack]:
    server = Slack()
    app = web.Application()
    app.router.add_post("/services/T0/B0/s3cret", server.webhook)
    app.router.add_post("/api/chat.postMessage", server.post_message)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


class Clock:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


async def passing(clock: VirtualClock, seconds: int) -> None:
    """Let time pass in steps of a second, and everybody do what is due."""
    for _ in range(seconds):
        clock.advance(1.0)
        for _ in range(5):
            await asyncio.sleep(0)


def by_webhook(slack: Slack, clock: Clock | None = None, **keys: Any) -> SlackSink:
    return sink({"webhook_url": f"{slack.url}/services/T0/B0/s3cret", **keys}, clock or Clock())


def as_bot(slack: Slack, **keys: Any) -> SlackSink:
    return sink({"token": "xoxb-s3cret", "channel": "C1", "api_url": f"{slack.url}/api/", **keys}, Clock())


def sink(keys: dict[str, Any], clock: Clock) -> SlackSink:
    return SlackSink(
        "team", SlackOptions.model_validate({"allow_private": True, **keys}), clock=clock, pause=clock.pause
    )


def texts(blocks: list[Block]) -> list[str]:
    bodies = [block.to_dict() for block in blocks]  # slack-sdk's models check lengths and shapes here
    return [body["text"]["text"] if "text" in body else body["elements"][0]["text"] for body in bodies]


async def test_a_webhook_message_says_what_who_and_before_and_after(slack: Slack) -> None:
    async with by_webhook(slack) as team:
        receipt = await team.deliver([make_event()], FIRST)

    [sent] = slack.messages
    shown = orjson.dumps(sent).decode()
    assert receipt == Receipt(status="200", text="ok")
    assert sent["text"].splitlines() == [
        "Project “Website” (7) updated",
        "updated by: Ana Roy",
        "• status: planned → won",
        "nutcache.projects.updated · projects/7 · acme · 2026-11-23 22:25:32 UTC",
    ]
    assert "updated by: Ana Roy" in shown
    assert "status: planned → won" in shown


async def test_data_can_neither_mention_nor_link(slack: Slack) -> None:
    data = {
        "object": {"id": 7, "name": "<!channel> & <https://evil.example|pay>", "updated_by": "<@U1>"},
        "changes": [{"path": "/<!here>", "before": "<#C1>", "after": "<@U2>"}],
    }
    async with by_webhook(slack) as team:
        await team.deliver([make_event(data)], FIRST)
        await team.deliver([make_event(data), make_event(data)], FIRST)

    for sent in slack.messages:
        shown = orjson.dumps(sent).decode()
        assert "<" not in shown
        assert "&lt;!channel&gt; &amp; &lt;https" in shown
        assert "&lt;!channel&gt; &amp; &lt;https" in sent["text"]
        assert all(block["text"].get("verbatim") for block in sent["blocks"] if block["type"] == "section")


async def test_a_template_is_escaped_for_mrkdwn(slack: Slack) -> None:
    template = "<https://crm.example/{{ event.key }}|open> {{ event.data.object.name }}"
    data = {"object": {"name": "\"A\" & 'B' <@U1>"}}
    async with by_webhook(slack, template=template) as team:
        await team.deliver([make_event(data)], FIRST)

    [block] = slack.messages[0]["blocks"]
    assert block["text"]["text"] == "<https://crm.example/7|open> \"A\" &amp; 'B' &lt;@\u200bU1&gt;"


async def test_a_bot_posts_with_its_token_into_its_channel(slack: Slack) -> None:
    async with as_bot(slack) as team:
        receipt = await team.deliver([make_event()], FIRST)

    assert slack.tokens == ["Bearer xoxb-s3cret"]
    assert slack.messages[0]["channel"] == "C1"
    assert "thread_ts" not in slack.messages[0]
    assert receipt.reference == "1795472732.000001"


async def test_events_of_an_object_reply_to_its_first_message(slack: Slack) -> None:
    reference = None
    async with as_bot(slack, thread="object") as team:
        for number in range(3):
            attempt = Attempt(number=1, delivery_id=str(number), last_reference=reference)
            reference = (await team.deliver([make_event()], attempt)).reference

    first = "1795472732.000001"
    assert [sent.get("thread_ts") for sent in slack.messages] == [None, first, first]


@pytest.mark.parametrize("error", ["cannot_reply_to_message", "restricted_action_thread_locked", "invalid_thread_ts"])
async def test_what_a_thread_does_not_accept_begins_another_one(slack: Slack, error: str) -> None:
    slack.reply_error = error
    async with as_bot(slack, thread="object") as team:
        receipt = await team.deliver([make_event()], Attempt(number=1, delivery_id="1", last_reference="1.000009"))

    assert [sent.get("thread_ts") for sent in slack.messages] == ["1.000009", None]
    assert receipt.reference == "1795472732.000002"


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_2xx_of_a_webhook_is_delivered(slack: Slack, status: int) -> None:
    slack.webhook_answer = (status, "")
    async with by_webhook(slack) as team:
        assert (await team.deliver([make_event()], FIRST)).status == str(status)


async def test_a_digest_is_one_message(slack: Slack) -> None:
    async with by_webhook(slack) as team:
        await team.deliver([make_event(subject=f"projects/{number}") for number in range(5)], FIRST)

    [sent] = slack.messages
    assert sent["blocks"][0]["text"]["text"] == "5 events"
    assert len(sent["blocks"]) == 6


async def test_messages_leave_a_second_apart(slack: Slack) -> None:
    clock = Clock()
    async with by_webhook(slack, clock) as team, by_webhook(slack, clock) as other:
        for one in (team, other, team):
            await one.deliver([make_event()], FIRST)

    assert clock.pauses == [1.0, 1.0]


async def test_a_channel_of_its_own_has_a_pace_of_its_own(slack: Slack) -> None:
    clock = Clock()
    async with by_webhook(slack, clock) as team, as_bot(slack) as bot:
        await team.deliver([make_event()], FIRST)
        await bot.deliver([make_event()], FIRST)

    assert clock.pauses == []


def test_a_pace_counts_from_the_last_message() -> None:
    pace = Pace()

    assert [pace.reserve(now) for now in (10.0, 10.25, 10.5, 20.0)] == [0, 0.75, 1.5, 0]
    assert pace.reserve(20.0) == 1.0


def test_many_subscriptions_wait_for_one_channel_without_being_given_up() -> None:
    pace = Pace()
    waits = [pace.reserve(0.0) for _ in range(20 * 8)]  # 20 subscriptions, each with 8 attempts side by side
    assert waits[-1] + TIMEOUT < SlackSink.attempt_limit


async def test_a_hold_holds_also_those_who_have_reserved_a_turn() -> None:
    clock, pace = VirtualClock(0.0), Pace()
    turns: list[float] = []

    async def one() -> None:
        assert await pace.turn(clock.steady, clock.sleep, until=600.0) is None
        turns.append(clock.steady())

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(one())
        await asyncio.sleep(0)
        pace.hold(clock.steady(), 30.0)
        await passing(clock, 60)

    assert turns == [0.0, *map(float, range(30, 37))]


async def test_a_429_is_one_failed_attempt_however_many_wait(slack: Slack) -> None:
    slack.webhook_answer, slack.headers = (429, "rate_limited"), {"Retry-After": "30"}
    clock = VirtualClock(0.0)
    options = {"webhook_url": f"{slack.url}/services/T0/B0/s3cret", "allow_private": True}
    async with SlackSink("team", SlackOptions.model_validate(options), clock=clock.steady, pause=clock.sleep) as team:
        attempts = [asyncio.create_task(team.deliver([make_event()], FIRST)) for _ in range(8)]
        await asyncio.wait(attempts[:1])
        slack.webhook_answer = (200, "ok")
        await passing(clock, 60)
        results = await asyncio.gather(*attempts, return_exceptions=True)

    assert [type(result) for result in results] == [RetryLater, *[Receipt] * 7]
    assert len(slack.messages) == 8


async def test_a_channel_that_is_held_for_hours_says_so_without_a_post(slack: Slack) -> None:
    slack.webhook_answer, slack.headers = (429, "rate_limited"), {"Retry-After": "7200"}
    clock = Clock()
    async with by_webhook(slack, clock) as team:
        for _ in range(2):
            with pytest.raises(RetryLater) as failure:
                await team.deliver([make_event()], FIRST)

    assert failure.value.receipt.status == "held"
    assert failure.value.after == 7200.0
    assert len(slack.messages) == 1


async def test_a_429_is_obeyed_by_every_message_to_the_channel(slack: Slack) -> None:
    slack.webhook_answer, slack.headers = (429, "rate_limited"), {"Retry-After": "30"}
    clock = Clock()
    async with by_webhook(slack, clock) as team:
        with pytest.raises(RetryLater) as failure:
            await team.deliver([make_event()], FIRST)
        slack.webhook_answer = (200, "ok")
        await team.deliver([make_event()], FIRST)

    assert failure.value.after == 30.0
    assert clock.pauses == [30.0]


@pytest.mark.parametrize(
    ("status", "text", "raised"),
    [
        (400, "invalid_payload", Rejected),
        (400, "invalid_blocks", Rejected),
        (400, "user_not_found", Refused),
        (403, "action_prohibited", Refused),
        (404, "channel_not_found", Refused),
        (404, "no_service", Gone),
        (404, "no_active_hooks", Gone),
        (403, "invalid_token", Gone),
        (410, "channel_is_archived", Gone),
        (429, "", RetryLater),
        (500, "rollup_error", RetryLater),
        (503, "<html>", RetryLater),
        (413, "", TooLarge),
        (400, "msg_too_long", TooLarge),
        (301, "", RetryLater),
    ],
)
async def test_each_error_of_a_webhook_says_what_happens_next(
    slack: Slack, status: int, text: str, raised: type[Exception]
) -> None:
    slack.webhook_answer = (status, text)
    async with by_webhook(slack) as team:
        with pytest.raises(raised) as failure:
            await team.deliver([make_event()], FIRST)

    assert failure.value.receipt.status == str(status)  # type: ignore[attr-defined]
    assert "s3cret" not in str(failure.value)


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (200, {"ok": False, "error": "ratelimited"}, RetryLater),
        (429, {"ok": False, "error": "ratelimited"}, RetryLater),
        (200, {"ok": False, "error": "is_archived"}, Gone),
        (200, {"ok": False, "error": "invalid_blocks"}, Rejected),
        (200, {"ok": False, "error": "msg_blocks_too_long"}, TooLarge),
        (200, {"ok": False, "error": "\ud800"}, RetryLater),
        (301, {"ok": True}, RetryLater),
        (200, {"ok": False, "error": "invalid_auth"}, RetryLater),
        (200, {"ok": False, "error": "channel_not_found"}, RetryLater),
        (500, {"ok": False, "error": "internal_error"}, RetryLater),
        (502, "<html>bad gateway</html>", RetryLater),
        (200, "<html>a captive portal</html>", RetryLater),
    ],
)
async def test_each_error_of_the_web_api_says_what_happens_next(
    slack: Slack, status: int, body: dict[str, Any] | str, raised: type[Exception]
) -> None:
    slack.api_answer = (status, body)
    async with as_bot(slack) as team:
        with pytest.raises(raised) as failure:
            await team.deliver([make_event()], FIRST)

    assert "xoxb" not in str(failure.value)


async def test_nobody_there_is_told_without_the_secret_url() -> None:
    async with sink({"webhook_url": "http://127.0.0.1:1/services/T0/B0/s3cret"}, Clock()) as team:
        with pytest.raises(RetryLater) as failure:
            await team.deliver([make_event()], FIRST)

    assert failure.value.receipt.status == "unreachable"
    assert "s3cret" not in str(failure.value)


async def test_a_template_that_fails_is_a_dead_letter(slack: Slack) -> None:
    async with by_webhook(slack, template="{{ 1 / 0 }}") as team:
        with pytest.raises(Rejected):
            await team.deliver([make_event()], FIRST)

    assert slack.messages == []


ANY = st.text(max_size=60) | st.sampled_from(["&" * 5000, "x" * 5000, "<!channel>" * 300, "\n" * 4000])
CHANGES = st.lists(st.fixed_dictionaries({"path": ANY.map(lambda t: f"/{t}"), "before": ANY, "after": ANY}))
DATA = st.fixed_dictionaries(
    {"object": st.fixed_dictionaries({"id": st.integers(0, 9), "name": ANY, "user": ANY}), "changes": CHANGES}
)


@given(data=DATA, times=st.sampled_from([1, 2, 20, 60, 400]))
@settings(max_examples=40, deadline=None)
def test_no_message_exceeds_slacks_limits(data: dict[str, Any], times: int) -> None:
    told = EventView(make_event(data))
    shown = texts(message(told) if times == 1 else digest([told] * times))

    assert len(shown) <= BLOCKS
    assert all(0 < len(text) <= SECTION for text in shown)
    assert sum(map(len, shown)) <= TOTAL
    assert len(digest_text([told] * times)) <= TEXT


def test_the_text_names_every_event_of_a_digest() -> None:
    told = [EventView(make_event(subject=f"projects/{number}")) for number in range(300)]
    text = digest_text(told)

    assert all(f"({number}) updated" in text for number in range(300))
    assert "• status: planned → won" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("@channel @all @here", "@\u200bchannel @\u200ball @\u200bhere"),
        ("(@here) _@all", "(@\u200bhere) \u02cd@\u200ball"),
        ("ana@maple.example", "ana@maple.example"),
        ("*bold* `code` ~gone~", "∗bold∗ ˋcodeˋ ∼gone∼"),
        ("_it_ unit_price __x__", "ˍitˍ unit_price ˍˍxˍˍ"),
        (":tada: 10:30:45 :+1:", ":\u200btada: 10:30:45 :\u200b+1:"),
        ("[pay](https://evil.example)", "[pay]\u200b(https://evil.example)"),
        ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@\u200bU1&gt;"),
        ("# big\n> said\n- one", "\u200b# big\n\u200b&gt; said\n\u200b- one"),
        ("#tag", "\u200b#\u200btag"),
        ("2 < 3, 50 %, “B” – ü", "2 &lt; 3, 50 %, “B” – ü"),
    ],
)
def test_data_is_no_markup_in_slack_or_mattermost(text: str, shown: str) -> None:
    assert escaped(text) == shown


async def test_a_template_is_the_text_too(slack: Slack) -> None:
    async with by_webhook(slack, template="*{{ event.kind }}*: {{ event.data.object.name }}") as team:
        await team.deliver([make_event({"object": {"name": "*A* @all"}})], FIRST)

    assert slack.messages[0]["text"] == "*updated*: ∗A∗ @\u200ball"


async def test_an_object_with_an_endless_id_still_makes_a_message(slack: Slack) -> None:
    async with by_webhook(slack) as team:
        await team.deliver([make_event(subject=f"projects/{'7' * 1_000_000}")], FIRST)

    assert len(orjson.dumps(slack.messages[0])) < 10_000


async def test_private_addresses_are_refused_unless_allowed(slack: Slack) -> None:
    async with by_webhook(slack, allow_private=False) as team:
        with pytest.raises(RetryLater) as failure:
            await team.deliver([make_event()], FIRST)

    assert failure.value.receipt.status == "refused address"
    assert slack.messages == []


async def test_an_answer_without_end_is_cut_off() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n")
        try:
            while True:
                writer.write(b"+2AA-" * 10_000)  # a lone surrogate in UTF-7
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with sink({"webhook_url": f"{url}/x"}, Clock()) as team:
            receipt = await team.deliver([make_event()], FIRST)
        async with sink({"token": "t", "channel": "c", "api_url": url}, Clock()) as team:
            with pytest.raises(RetryLater):
                await team.deliver([make_event()], FIRST)

    assert receipt.text.startswith("+2AA-+2AA-")
    assert len(receipt.text) <= 4096


def test_what_is_left_out_of_a_digest_is_counted() -> None:
    shown = texts(digest([EventView(make_event())] * 200))

    kept = len(shown) - 2
    assert shown[-1] == f"… and {200 - kept} more events"


@given(st.lists(st.text(max_size=200), min_size=1, max_size=60), st.integers(300, 1000))
@settings(max_examples=50)
def test_lines_are_kept_whole_or_counted(lines: list[str], limit: int) -> None:
    text = fitted(lines, limit)

    assert len(text) <= limit
    if text != "\n".join(lines):
        kept = int(text.rpartition("… and ")[2].removesuffix(" more"))
        assert text.startswith("\n".join(lines[: len(lines) - kept]))


@given(st.text(max_size=100).map(lambda text: text * 300))
@settings(max_examples=30)
def test_a_templates_text_is_cut_into_sections(text: str) -> None:
    shown = texts(templated(text))

    assert len(shown) <= BLOCKS
    assert all(0 < len(part) <= SECTION for part in shown)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({}, "webhook_url, or token and channel"),
        ({"webhook_url": "https://x", "token": "y", "channel": "z"}, "webhook_url, or token and channel"),
        ({"token": "y"}, "belong together"),
        ({"webhook_url": "https://x", "channel": "z"}, "belong together"),
        ({"webhook_url": "https://x", "thread": "object"}, "needs token"),
        ({"webhook_url": "hooks.slack.com/s3cret"}, "https://"),
        ({"token": "y", "channel": "z", "api_url": "slack"}, "https://"),
        ({"webhok_url": "https://x"}, "webhok_url"),
    ],
)
def test_wrong_options_are_explained(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as failure:
        SlackOptions.model_validate(keys)

    assert complaint in str(failure.value)


def test_a_preview_is_the_text_of_the_message(slack: Slack) -> None:
    assert by_webhook(slack).render([make_event()]).startswith("*Project “Website” (7) updated*")
