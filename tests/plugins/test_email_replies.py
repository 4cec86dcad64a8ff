"""What mail servers answer, byte by byte: whose fault it is, that it can be kept, and that nothing is sent twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from plugins.email import EmailOptions, EmailSink
from plugins.email.options import LITERAL, own_name, tls_hint
from plugins.email.replies import enhanced, is_about_setup
from poller import Attempt, Event, Receipt, Rejected, RetryLater, TooLarge
from poller.testing import Upstream, make_event, running
from tests.support.smtp import RawMailServer, serving_raw

FIRST = Attempt(number=1, delivery_id="7")
LATIN = "Grüße aus Köln".encode("latin-1")


@pytest.fixture
async def server() -> AsyncIterator[RawMailServer]:
    async with serving_raw() as raw:
        yield raw


def options(server: RawMailServer, **keys: Any) -> EmailOptions:
    given = {"host": "127.0.0.1", "port": server.port, "from": "poller@maple.example", "to": "ana@maple.example"}
    return EmailOptions.model_validate({**given, "tls": "none", **keys})


async def sent(server: RawMailServer, *events: Event, attempt: Attempt = FIRST, **keys: Any) -> Receipt:
    async with EmailSink("office", options(server, **keys)) as office:
        return await office.deliver(events or [make_event()], attempt)


@pytest.mark.parametrize(
    "replies",
    [
        {"greeting": b"220 " + LATIN + b"\r\n"},
        {"EHLO": b"250-" + LATIN + b"\r\n250 SIZE\r\n"},
        {"MAIL": b"250 " + LATIN + b"\r\n"},
        {"RCPT": b"250 " + LATIN + b"\r\n"},
        {"DATA": b"354 " + LATIN + b"\r\n"},
        {"mail": b"250 " + LATIN + b"\x00\r\n"},
    ],
    ids=lambda replies: next(iter(replies)),
)
async def test_a_mail_accepted_in_latin_1_is_delivered_once(replies: Mapping[str, bytes], tmp_path: Path) -> None:
    async with serving_raw(replies) as server:
        upstream = Upstream({"/items": [{"id": 1, "name": "A"}]})
        async with running(_config(server.port), tmp_path, upstream=upstream) as poller:
            await poller.sweep()
            upstream.lists["/items"][0]["name"] = "B"
            await poller.sweep()
            await poller.advance(3600.0)

            assert [delivery.state for delivery in poller.deliveries] == ["delivered"]
        async with running(_config(server.port), tmp_path, upstream=upstream) as poller:  # and after a restart
            await poller.sweep()

    assert len(server.mails) == 1


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "mail"])
@pytest.mark.parametrize("code", [b"451", b"550"])
async def test_a_refusal_in_latin_1_is_kept_as_what_it_says(step: str, code: bytes, server: RawMailServer) -> None:
    server.replies = {step: code + b" " + LATIN + b"\r\n"}
    if step == "EHLO":
        server.replies["HELO"] = server.replies[step]

    with pytest.raises((RetryLater, Rejected)) as failure:
        await sent(server)
    receipt: Receipt = failure.value.receipt  # type: ignore[attr-defined]
    assert receipt.text.encode()  # raises for lone surrogates
    assert "Gr\ufffd\ufffde aus K\ufffdln" in receipt.text


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("greeting", b"554 5.7.1 Client host rejected"),
        ("EHLO", b"504 5.5.2 <box>: Helo command rejected: need fully-qualified hostname"),
        ("MAIL", b"550 5.7.1 not allowed to send as poller@maple.example"),
        ("MAIL", b"530 5.7.0 Must issue a STARTTLS command first"),
        ("MAIL", b"553 5.1.8 sender domain not found"),
        ("RCPT", b"554 5.7.1 <ana@maple.example>: Relay access denied"),
        ("RCPT", b"550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"),
        ("RCPT", b"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
        ("RCPT", b"504 5.5.2 <box>: Helo command rejected: need fully-qualified hostname"),
        ("RCPT", b"530 5.7.1 Authentication required"),
        ("RCPT", b"552 5.2.2 mailbox full"),
        ("RCPT", b"552 too many recipients"),
        ("mail", b"554 5.2.252 SendAsDenied; not allowed to send as"),
        ("mail", b"550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
        ("mail", b"550-5.7.26 This mail has been blocked because the sender is unauthenticated\r\n550 bye"),
        ("mail", b"550 5.4.5 Daily user sending limit exceeded"),
        ("mail", b"552 5.2.2 mailbox full"),
        ("RCPT", b"550 5.2.2 The mailbox is over its quota"),
    ],
)
async def test_what_concerns_the_setup_is_tried_again(step: str, reply: bytes, server: RawMailServer) -> None:
    server.replies = {step: reply + b"\r\n"}
    if step == "EHLO":
        server.replies["HELO"] = reply + b"\r\n"

    with pytest.raises(RetryLater) as failure:
        await sent(server)
    assert failure.value.receipt.status == reply[:3].decode()


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("RCPT", b"550 5.1.1 no such user"),
        ("RCPT", b"550 No such user here"),
        ("RCPT", b"551 user not local"),
        ("RCPT", b"553 5.1.3 mailbox name invalid"),
        ("RCPT", b"550 5.4.1 Recipient address rejected: Access denied"),
        ("RCPT", b"550 5.2.1 this account is disabled"),
        ("mail", b"554 5.7.1 looks like spam"),
        ("mail", b"550 5.6.0 content not accepted"),
    ],
)
async def test_what_concerns_the_recipient_or_the_text_is_dead(step: str, reply: bytes, server: RawMailServer) -> None:
    server.replies = {step: reply + b"\r\n"}

    with pytest.raises(Rejected) as failure:
        await sent(server)
    assert not isinstance(failure.value, TooLarge)
    assert failure.value.receipt.status == reply[:3].decode()


async def test_a_recipient_to_whom_only_relaying_is_denied_is_refused_for_good(server: RawMailServer) -> None:
    server.replies = {"RCPT TO:<eve@far.example>": b"554 5.7.1 Relay access denied\r\n"}

    receipt = await sent(server, to=["ana@maple.example", "eve@far.example"])

    assert receipt.status == "250"
    assert "refused eve@far.example: 554" in receipt.text


async def test_a_server_that_hangs_up_after_a_refusal_has_refused_all_the_same(server: RawMailServer) -> None:
    server.replies = {"RCPT": b"550 5.1.1 no such user\r\n", "RSET": None}

    with pytest.raises(Rejected):
        await sent(server)


@pytest.mark.parametrize("says", [b"421 4.4.2 too many messages\r\n", b""], ids=["421", "nothing"])
async def test_a_server_that_ends_the_connection_between_mails_gets_the_next_one_at_once(
    says: bytes, server: RawMailServer
) -> None:
    server.most, server.says = 2, says
    async with EmailSink("office", options(server)) as office:
        for number in range(5):
            await office.deliver([make_event()], Attempt(number=1, delivery_id=str(number)))

    assert (len(server.mails), server.connections) == (5, 3)


async def test_a_server_that_ends_every_connection_is_tried_again_later(server: RawMailServer) -> None:
    server.most = 0
    async with EmailSink("office", options(server)) as office:
        with pytest.raises(RetryLater):
            await office.deliver([make_event()], FIRST)

    assert server.connections == 1


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "mail"])
async def test_any_2yz_is_an_acceptance(step: str, server: RawMailServer) -> None:
    server.replies = {step: b"252 as good as accepted\r\n"}

    assert (await sent(server)).status == "250"


@pytest.mark.parametrize(
    "replies",
    [
        {"EHLO": b"250-mail.example\r\n250 SIZE 500\r\n"},
        {"MAIL": b"552 5.3.4 Message size exceeds fixed limit\r\n"},
        {"mail": b"552 5.3.4 Message too big\r\n"},
        {"mail": b"552 exceeded storage allocation\r\n"},
    ],
)
async def test_a_mail_that_is_too_large_is_said_to_be(replies: Mapping[str, bytes], server: RawMailServer) -> None:
    server.replies = dict(replies)

    with pytest.raises(TooLarge):
        await sent(server)


async def test_a_mail_beyond_the_servers_size_is_not_sent(server: RawMailServer) -> None:
    server.replies = {"EHLO": b"250-mail.example\r\n250 SIZE 500\r\n"}

    with pytest.raises(TooLarge) as failure:
        await sent(server)
    assert "takes 500" in failure.value.receipt.text
    assert not any(command.startswith("MAIL") for command in server.commands)


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "mail"])
async def test_an_answer_without_end_is_given_up(step: str, server: RawMailServer) -> None:
    server.replies = {step: b"250-" + b"x" * 100_000}

    with pytest.raises(RetryLater) as failure:
        await sent(server)
    assert "too long" in failure.value.receipt.text


async def test_the_host_says_its_full_name_or_an_address(server: RawMailServer) -> None:
    await sent(server)
    await sent(server, helo="poller.maple.example")

    helos = [command for command in server.commands if command.startswith("EHLO")]
    assert helos == [f"EHLO {own_name()}", "EHLO poller.maple.example"]
    assert "." in own_name()


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ("poller.maple.example", "poller.maple.example"),
        ("box", LITERAL),
        ("localhost.localdomain", LITERAL),
        ("1.0.0.127.in-addr.arpa", LITERAL),
        ("10.1.2.3", LITERAL),
        ("my_box.maple.example", LITERAL),
        ("", LITERAL),
    ],
)
def test_a_host_without_a_full_name_calls_itself_by_an_address(found: str, name: str) -> None:
    assert own_name(found) == name


@pytest.mark.parametrize(
    ("tls", "port", "hint"),
    [
        ("tls", 587, 'port 587 is for tls = "starttls"'),
        ("starttls", 465, 'port 465 is for tls = "tls"'),
        (None, 465, 'port 465 is for tls = "tls"'),
        ("tls", 2465, "usually goes with port 465"),
        ("starttls", 587, "certificate"),
    ],
)
def test_a_failed_handshake_names_the_usual_port(tls: str | None, port: int, hint: str) -> None:
    assert hint in tls_hint(options(RawMailServer(port=port), tls=tls))


async def test_tls_with_a_server_that_begins_in_the_clear_names_both_ports(server: RawMailServer) -> None:
    with pytest.raises(RetryLater) as failure:
        await sent(server, tls="tls")

    assert 'tls = "tls" usually goes with port 465' in failure.value.receipt.text


def test_an_enhanced_code_is_read_where_it_stands() -> None:
    assert enhanced("5.7.1 no") == "7.1"
    assert enhanced("no 5.7.1") == ""
    assert not is_about_setup(550, "5.1.1 <relay@maple.example>: no such user")


def _config(port: int) -> str:
    return f"""
[sources.acme]
plugin = "rest"
base_url = "https://acme.example"
[sources.acme.endpoints.items]
path = "/items"
pagination = {{ type = "none" }}
[[subscriptions]]
name = "office"
plugin = "email"
host = "127.0.0.1"
port = {port}
tls = "none"
from = "poller@maple.example"
to = "ana@maple.example"
"""
