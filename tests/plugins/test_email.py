"""The email sink against a real SMTP server: threads, recipients told apart, TLS, logins, nothing injected."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plugins.email import ACCEPTANCE, EmailOptions, EmailSink
from poller import Attempt, Event, Receipt, Rejected, RetryLater

FIRST = Attempt(number=1, delivery_id="7")


def make_event(data: dict[str, Any] | None = None, **fields: Any) -> Event:
    told = data or {
        "object": {"id": 7, "name": "Website", "updated_by": "Ana Roy"},
        "version": 2,
        "changes": [{"path": "/status", "before": "planned", "after": "won <b>"}],
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
class Mailbox:
    """What a mail server was given, and what it answers."""

    port: int = 0
    replies: dict[str, str] = field(default_factory=dict)  # recipient -> reply to RCPT
    sender_reply: str = "250 OK"
    data_reply: str = "250 2.0.0 queued as 4711"
    envelopes: list[Envelope] = field(default_factory=list)
    connections: int = 0
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.sender_reply

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = self.replies.get(address, "250 OK")
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.data_reply.startswith("250"):
            self.envelopes.append(envelope)
            self.encrypted.append(session.ssl is not None)
        return self.data_reply

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"s3cret", handled=False)

    @property
    def mails(self) -> list[EmailMessage]:
        return [strictly(bytes(envelope.original_content or b"")) for envelope in self.envelopes]


def strictly(raw: bytes) -> EmailMessage:
    """Parsed by the standard library, where every defect is an error."""
    parsed = email.message_from_bytes(raw, policy=email.policy.strict)
    assert isinstance(parsed, EmailMessage)
    for part in parsed.walk():
        assert not part.defects
        for value in part.values():
            assert not value.defects
    return parsed


@asynccontextmanager
async def serving(*, tls: ssl.SSLContext | None = None, implicit: bool = False, **keys: Any) -> AsyncIterator[Mailbox]:
    mailbox = Mailbox()
    sessions: list[asyncio.BaseProtocol] = []

    def accept() -> SMTP:
        mailbox.connections += 1
        tls_of_starttls = None if implicit else tls
        protocol = SMTP(mailbox, hostname="mail.example", tls_context=tls_of_starttls, **keys)
        if keys.get("auth_required"):
            protocol._authenticator = mailbox.authenticate
        sessions.append(protocol)
        return protocol

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0, ssl=tls if implicit else None)
    mailbox.port = server.sockets[0].getsockname()[1]
    try:
        yield mailbox
    finally:
        server.close()
        for session in sessions:
            if (transport := getattr(session, "transport", None)) is not None:
                transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0)


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with serving() as box:
        yield box


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made certificate for localhost, with its key in the same file."""
    folder = tmp_path_factory.mktemp("certificate")
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def sink(mailbox: Mailbox, *, clock: Callable[[], float] = lambda: 1795472740.0, **keys: Any) -> EmailSink:
    given = {
        "host": "localhost",
        "port": mailbox.port,
        "from": "Poller <poller@maple.example>",
        "to": "ana@maple.example",
    }
    return EmailSink("office", EmailOptions.model_validate({**given, **keys}), clock=clock)


async def sent(mailbox: Mailbox, *events: Event, attempt: Attempt = FIRST, **keys: Any) -> Receipt:
    async with sink(mailbox, **keys) as office:
        return await office.deliver(events or [make_event()], attempt)


async def test_a_mail_tells_what_who_and_before_and_after_as_text_and_html(mailbox: Mailbox) -> None:
    receipt = await sent(mailbox)

    [mail] = mailbox.mails
    text, html = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))  # type: ignore[union-attr]
    assert receipt.status == "250"
    assert "queued as 4711" in receipt.text
    assert mail["Subject"] == "[acme] Project “Website” (7)"
    assert mail.get_content_type() == "multipart/alternative"
    assert "Project “Website” (7) updated" in text
    assert "updated by: Ana Roy" in text
    assert "status: planned → won <b>" in text
    assert "won &lt;b&gt;" in html
    assert "<b>" not in html


async def test_a_notification_asks_for_no_answers(mailbox: Mailbox) -> None:
    await sent(mailbox)

    assert mailbox.mails[0]["Auto-Submitted"] == "auto-generated"
    assert "List-Unsubscribe" not in mailbox.mails[0]


async def test_list_unsubscribe_is_there_on_demand(mailbox: Mailbox) -> None:
    await sent(mailbox, list_unsubscribe="https://maple.example/off?u=1")

    assert mailbox.mails[0]["List-Unsubscribe"] == "<https://maple.example/off?u=1>"
    assert mailbox.mails[0]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


async def test_an_event_keeps_its_message_id_over_attempts_and_restarts(mailbox: Mailbox) -> None:
    receipts = [await sent(mailbox, attempt=Attempt(number=number, delivery_id="7")) for number in (1, 2)]

    first, second = mailbox.mails
    assert first["Message-ID"] == second["Message-ID"] == receipts[0].reference
    assert first["Message-ID"].endswith("@maple.example>")


async def test_mails_of_an_object_are_one_thread(mailbox: Mailbox) -> None:
    receipt = await sent(mailbox, make_event())
    again = Attempt(number=1, delivery_id="8", last_reference=receipt.reference)
    await sent(mailbox, make_event(id="k4y"), attempt=again)
    await sent(mailbox, make_event(id="k4z", subject="projects/8"))

    first, second, other = mailbox.mails
    assert second["In-Reply-To"] == first["Message-ID"]
    assert second["References"].split() == [first["References"], first["Message-ID"]]
    assert other["References"] != first["References"]
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 3


async def test_a_digest_is_one_mail(mailbox: Mailbox) -> None:
    await sent(mailbox, make_event(), make_event(id="k4y", subject="projects/8"))

    [mail] = mailbox.mails
    assert mail["Subject"] == "[acme] 2 events"
    assert mail.get_body(("plain",)).get_content().count("Project “Website”") == 2  # type: ignore[union-attr]
    assert mail["References"] is None


async def test_every_recipient_of_to_and_cc_is_served_once(mailbox: Mailbox) -> None:
    keys = {"to": ["Ana Roy <ana@maple.example>", "bo@maple.example"], "cc": "ana@maple.example"}
    await sent(mailbox, **keys)

    assert mailbox.envelopes[0].rcpt_tos == ["ana@maple.example", "bo@maple.example"]
    assert mailbox.mails[0]["To"] == "Ana Roy <ana@maple.example>, bo@maple.example"


async def test_only_recipients_refused_for_now_are_tried_again(mailbox: Mailbox) -> None:
    mailbox.replies = {"bo@maple.example": "451 4.7.1 greylisted", "cy@maple.example": "550 5.1.1 no such user"}
    to = ["ana@maple.example", "bo@maple.example", "cy@maple.example"]
    async with sink(mailbox, to=to) as office:
        with pytest.raises(RetryLater) as failure:
            await office.deliver([make_event()], FIRST)
        mailbox.replies["bo@maple.example"] = "250 OK"
        receipt = await office.deliver([make_event()], Attempt(number=2, delivery_id="7"))

    assert [envelope.rcpt_tos for envelope in mailbox.envelopes] == [["ana@maple.example"], ["bo@maple.example"]]
    assert "later bo@maple.example: 451" in failure.value.receipt.text
    assert "refused cy@maple.example: 550" in receipt.text


async def test_a_mail_that_all_refuse_for_good_is_dead(mailbox: Mailbox) -> None:
    mailbox.replies = {"ana@maple.example": "550 5.1.1 no such user"}

    with pytest.raises(Rejected) as failure:
        await sent(mailbox)
    assert failure.value.receipt.status == "550"
    assert mailbox.envelopes == []


@pytest.mark.parametrize(
    ("reply", "raised"), [("554 5.7.1 looks like spam", Rejected), ("452 4.3.1 disk full", RetryLater)]
)
async def test_a_refused_text_is_dead_or_tried_again(mailbox: Mailbox, reply: str, raised: type[Exception]) -> None:
    mailbox.data_reply = reply
    async with sink(mailbox) as office:
        with pytest.raises(raised) as failure:
            await office.deliver([make_event()], FIRST)
        mailbox.data_reply = "250 OK"
        await office.deliver([make_event(id="k4y")], Attempt(number=1, delivery_id="8"))

    assert failure.value.receipt.status == reply[:3]  # type: ignore[attr-defined]
    assert len(mailbox.envelopes) == 1


async def test_the_connection_is_kept(mailbox: Mailbox) -> None:
    async with sink(mailbox) as office:
        await asyncio.gather(
            *(office.deliver([make_event(id=f"k{n}")], Attempt(number=1, delivery_id=str(n))) for n in range(5))
        )

    assert (len(mailbox.envelopes), mailbox.connections) == (5, 1)


async def test_a_connection_that_the_server_dropped_meanwhile_is_made_again() -> None:
    now = 0.0
    async with serving() as first:
        office = sink(first, clock=lambda: now)
        await office.__aenter__()
        await office.deliver([make_event()], FIRST)
        assert office._connection.current is not None
        office._connection.current.transport.abort()  # type: ignore[union-attr]
        now = 3600.0
        await office.deliver([make_event(id="k4y")], Attempt(number=1, delivery_id="8"))
        await office.__aexit__(None, None, None)

    assert (len(first.envelopes), first.connections) == (2, 2)


async def test_nobody_there_is_tried_again() -> None:
    with pytest.raises(RetryLater) as failure:
        await sent(Mailbox(port=1))

    assert failure.value.receipt.status == "unreachable"


async def test_starttls_is_used_where_it_is_offered(tls: ssl.SSLContext) -> None:
    async with serving(tls=tls) as mailbox:
        await sent(mailbox)

    assert mailbox.encrypted == [True]


async def test_starttls_on_demand_checks_the_certificate(tls: ssl.SSLContext, certificate: Path) -> None:
    async with serving(tls=tls) as mailbox:
        with pytest.raises(RetryLater) as failure:
            await sent(mailbox, tls="starttls")
        await sent(mailbox, tls="starttls", ca_file=str(certificate))

    assert "certificate" in failure.value.receipt.text.lower()
    assert mailbox.encrypted == [True]


async def test_starttls_on_demand_never_falls_back_to_plain_text(mailbox: Mailbox) -> None:
    with pytest.raises(RetryLater):
        await sent(mailbox, tls="starttls")

    assert mailbox.envelopes == []


async def test_tls_from_the_first_byte(tls: ssl.SSLContext, certificate: Path) -> None:
    async with serving(tls=tls, implicit=True) as mailbox:
        await sent(mailbox, tls="tls", ca_file=str(certificate))

    assert len(mailbox.envelopes) == 1


async def test_a_login_goes_over_tls(tls: ssl.SSLContext, certificate: Path) -> None:
    async with serving(tls=tls, auth_required=True) as mailbox:
        await sent(mailbox, username="poller", password="s3cret", ca_file=str(certificate))

    assert mailbox.logins == [(b"poller", b"s3cret")]
    assert mailbox.encrypted == [True]


async def test_a_wrong_password_is_told_and_tried_again_later(tls: ssl.SSLContext, certificate: Path) -> None:
    async with serving(tls=tls, auth_required=True) as mailbox:
        with pytest.raises(RetryLater) as failure:
            await sent(mailbox, username="poller", password="wr0ng", ca_file=str(certificate))

    assert failure.value.receipt.status == "535"
    assert "wr0ng" not in str(failure.value)


async def test_a_password_is_not_sent_without_tls(mailbox: Mailbox) -> None:
    with pytest.raises(RetryLater):
        await sent(mailbox, username="poller", password="s3cret")

    assert mailbox.logins == []


async def test_templates_make_subject_and_text(mailbox: Mailbox) -> None:
    await sent(mailbox, subject="{{ event.kind }}: {{ event.name }}", template="Name: {{ event.name }}")

    [mail] = mailbox.mails
    assert mail["Subject"] == "updated: Website"
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content() == "Name: Website\r\n"


async def test_a_template_that_begins_with_a_tag_is_html_and_escaped(mailbox: Mailbox) -> None:
    event = make_event({"object": {"name": "<script>"}})
    await sent(mailbox, event, template="<p>{{ event.name }}</p>")

    html = mailbox.mails[0].get_body(("html",))
    assert html is not None
    assert html.get_content() == "<p>&lt;script&gt;</p>\r\n"


async def test_long_ids_urls_and_names_are_not_folded_within(mailbox: Mailbox) -> None:
    domain = "notifications.eu-central-1.production.maple-industries.example"
    url = f"https://{domain}/unsubscribe?list=poller-notifications&token={'0123456789abcdef' * 4}"
    name = "Department of Very Long Names, Section for Commas, and (Parentheses) of the Town of Maple"
    who = [f'"{name}" <ana@maple.example>', "b@maple.example"]
    keys = {"from": f'"{name}" <poller@{domain}>', "to": who, "list_unsubscribe": url}
    last = (await sent(mailbox, **keys)).reference
    await sent(mailbox, make_event(id="k4y"), attempt=Attempt(number=1, delivery_id="8", last_reference=last), **keys)

    raw = bytes(mailbox.envelopes[1].original_content or b"")
    assert f"\r\nIn-Reply-To: {last}\r\n".encode() in raw
    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in raw
    mail = mailbox.mails[1]
    assert mail["References"].split()[1] == last
    assert [str(one) for one in mail["To"].addresses] == who
    assert [one.display_name for one in mail["From"].addresses] == [name]


HOSTILE = st.text(max_size=80) | st.sampled_from(
    [
        "x\r\nBcc: eve@evil.example",
        "x\nSubject: y",
        "\r\n\r\nbody",
        "é" * 300,
        "=?utf-8?q?x?=",
        "\x00\x1b[2J",
        "\u2028x",
    ]
)


@given(name=HOSTILE, subject=HOSTILE.filter(lambda text: "\ud800" not in text), last=HOSTILE)
@settings(max_examples=60, deadline=None)
def test_no_header_can_be_injected(name: str, subject: str, last: str) -> None:
    event = make_event({"object": {"id": 1, "name": name}, "version": 1}, subject=subject, type="x.y.created")
    office = sink(Mailbox(port=25), subject="{{ event.name }} {{ event.subject }}")

    mail = strictly(office._mail([event], last).as_bytes())
    assert mail["Bcc"] is None
    assert sorted(mail.keys()) == sorted({*mail.keys()})
    assert len(mail["Subject"].splitlines()) <= 1


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"to": []}, "at least 1"),
        ({"to": "nobody"}, "not one address"),
        ({"to": "a@b\r\nBcc: c@d"}, "not one address"),
        ({"to": "a@b.example, c@d.example"}, "or a list of them"),
        ({"to": "Roy, Ana <a@b.example>"}, "a name with a comma needs quotes"),
        ({"to": "a@b\u00fccher.example"}, "ASCII"),
        ({"from": "Poller"}, "not one address"),
        ({"username": "x"}, "or neither"),
        ({"tls": "ssl"}, "starttls"),
        ({"list_unsubscribe": "https://x/\r\nX: y"}, "an address that begins with https:// or mailto:"),
        ({"ca_file": "nowhere.pem"}, "does not exist"),
        ({"subject": "{{ event.name"}, "line 1"),
        ({"helo": "office"}, "full host name"),
        ({"helo": "a.example SIZE=1"}, "full host name"),
        ({"hosts": "x"}, "hosts"),
    ],
)
def test_wrong_options_are_explained(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as failure:
        EmailOptions.model_validate({"from": "poller@maple.example", "to": "ana@maple.example", **keys})

    assert complaint in str(failure.value)


def test_a_preview_shows_headers_and_text() -> None:
    text = sink(Mailbox(port=25)).render([make_event()])

    assert "Subject: [acme] Project “Website” (7)" in text
    assert "status: planned → won" in text


def test_a_mail_is_not_given_up_before_its_acceptance_may_be_late() -> None:
    assert EmailSink.attempt_limit > ACCEPTANCE >= 600.0  # RFC 5321 4.5.3.2.6
