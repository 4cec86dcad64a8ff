"""Sink `email`: one mail per event or digest, as text and HTML, over one SMTP connection that is kept.

Replies by RFC 5321: 4yz is told as "later", 5yz as "never", for each recipient on its own. A mail keeps its
Message-ID over all attempts, so a repeated one is recognised; mails of one object refer to the same first id
(RFC 5322 3.6.4), so mail programs show them as one thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, getaddresses
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self

import aiosmtplib
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from poller import Attempt, Event, Receipt, Rejected, RetryLater, hookimpl
from poller.options.secrets import Secret
from poller.rendering.templates import Escape, RenderError, Templated, TemplateText, one_line, render, render_default
from poller.sinks.protocol import Refused

COMMAND: Final = 60.0  # seconds for one SMTP command
ACCEPTANCE: Final = 600.0  # seconds after the final dot: giving up earlier makes duplicates (RFC 5321 4.5.3.2.6)
PATIENCE: Final = 900.0  # seconds of one attempt: the commands, the acceptance, and mails before it
_IDLE: Final = 30.0  # seconds after which a kept connection is tried before it is used
_REMEMBERED: Final = 1000  # deliveries of which some recipients are still to be served
_POLICY: Final = SMTP.clone(cte_type="7bit")  # any relay takes it, with or without 8BITMIME
_SUBJECT: Final = "[{{ event.account }}] {{ event.title if total == 1 else total ~ ' events' }}"


def _address(text: str) -> Address:
    """An address with or without a name, as one writes it: `Ana Roy <ana@maple.example>`."""
    [(name, spec), *more] = getaddresses([text]) or [("", "")]
    try:
        parsed = Address(display_name=name, addr_spec=spec)
    except (HeaderParseError, ValueError, IndexError):
        parsed = Address()
    if more or not (parsed.username and parsed.domain and spec.isascii()) or re.search(r"[\x00-\x1f\x7f]", text):
        raise PydanticCustomError("address", "not an address: write ana@maple.example or Ana Roy <ana@maple.example>")
    return parsed


def _checked_address(text: str) -> str:
    _address(text)
    return text


def _listed(given: object) -> object:
    return (given,) if isinstance(given, str) else given


MailAddress = Annotated[str, AfterValidator(_checked_address)]
MailAddresses = Annotated[tuple[MailAddress, ...], BeforeValidator(_listed)]


class EmailOptions(Templated):
    """`[[subscriptions]]` with `plugin = "email"`."""

    host: str = "localhost"
    port: int = Field(default=25, ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] | None = None  # None: STARTTLS where the server offers it
    username: str | None = None
    password: Secret | None = None
    ca_file: Path | None = None
    sender: MailAddress = Field(alias="from")
    to: MailAddresses = Field(min_length=1)
    cc: MailAddresses = ()
    subject: TemplateText = _SUBJECT
    list_unsubscribe: str | None = Field(default=None, pattern=r"^(https://|mailto:)[\x21-\x3b\x3d\x3f-\x7e]+$")

    @field_validator("ca_file")
    @classmethod
    def _found(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        path = Path((info.context or {}).get("root") or ".") / path.expanduser()
        if not path.is_file():
            raise PydanticCustomError("ca_file", "there is no file {path}", {"path": str(path)})
        return path

    @model_validator(mode="after")
    def _login(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise PydanticCustomError("email", "username and password belong together")
        return self


@dataclass(slots=True)
class _Progress:
    """What became of a mail's recipients so far."""

    accepted: dict[str, str] = field(default_factory=dict)  # recipient -> the server's word
    refused: dict[str, str] = field(default_factory=dict)  # for good
    waiting: dict[str, str] = field(default_factory=dict)  # refused for now

    def receipt(self, reference: str) -> Receipt:
        status = "250" if self.accepted else next(iter((*self.waiting.values(), *self.refused.values())), "")[:3]
        told = {"refused": self.refused, "later": self.waiting, "accepted": self.accepted}
        lines = [f"{word} {who}: {reply}" for word, group in told.items() for who, reply in group.items()]
        return Receipt(status=status, text="\n".join(lines)[:4096], reference=reference)


class EmailSink:
    """One mail server and one list of recipients."""

    Options = EmailOptions
    attempt_limit = PATIENCE

    def __init__(self, name: str, options: EmailOptions, *, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._recipients = tuple(dict.fromkeys(_address(text).addr_spec for text in (*options.to, *options.cc)))
        self._turn = asyncio.Lock()
        self._smtp: aiosmtplib.SMTP | None = None
        self._used_at = float("-inf")
        self._progress: dict[tuple[str, str], _Progress] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None and smtp.is_connected:
            try:
                await smtp.quit(timeout=2.0)
            except (aiosmtplib.SMTPException, OSError):
                smtp.close()  # the mails are accepted; how the goodbye went does not matter

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Send one mail to those recipients of this delivery who do not have it yet."""
        try:
            mail = self._mail(events, attempt.last_reference)
        except RenderError as exc:
            raise Rejected(Receipt(status="template", text=str(exc))) from exc
        key = (attempt.delivery_id, mail["Message-ID"])
        progress = self._progress.setdefault(key, _Progress())
        while len(self._progress) > _REMEMBERED:
            del self._progress[next(iter(self._progress))]
        async with self._turn:
            try:
                await self._transact(mail.as_bytes(), progress)
            except BaseException:
                self._forget_connection()
                raise
        return self._outcome(key, progress, mail["Message-ID"])

    def render(self, events: Sequence[Event]) -> str:
        """The mail's headers and text."""
        mail = self._mail(events, None)
        text = mail.get_body(("plain",))
        head = "\n".join(f"{name}: {mail[name]}" for name in ("From", "To", "Cc", "Subject") if mail[name])
        return f"{head}\n\n{text.get_content() if text else ''}"

    def _outcome(self, key: tuple[str, str], progress: _Progress, message_id: str) -> Receipt:
        receipt = progress.receipt(message_id)
        if progress.waiting:
            raise RetryLater(None, receipt)
        self._progress.pop(key, None)
        if not progress.accepted:
            raise Rejected(receipt)
        return receipt

    async def _transact(self, mail: bytes, progress: _Progress) -> None:
        """One SMTP transaction; each recipient's reply goes into `progress`. Raises RetryLater, Refused."""
        try:
            smtp = await self._connected()
            await smtp.mail(
                _address(self._options.sender).addr_spec,
                options=[f"size={len(mail)}"] if smtp.supports_extension("size") else [],
            )
            taken = await self._offer(smtp, progress)
            if taken:
                await self._data(smtp, mail, taken, progress)
            else:
                await smtp.rset()
            self._used_at = self._clock()
        except aiosmtplib.SMTPSenderRefused as exc:
            receipt = _said(exc)
            raise (Refused(receipt) if exc.code >= 500 else RetryLater(None, receipt)) from exc
        except aiosmtplib.SMTPResponseException as exc:
            raise RetryLater(None, _said(exc)) from exc
        except (aiosmtplib.SMTPException, OSError, ValueError) as exc:
            where = f"{self._options.host}:{self._options.port}"
            raise RetryLater(None, Receipt(status="unreachable", text=f"{where}: {exc}")) from exc

    async def _offer(self, smtp: aiosmtplib.SMTP, progress: _Progress) -> Sequence[str]:
        """Name the recipients who are still to be served; those the server takes."""
        open_ones = [who for who in self._recipients if who not in progress.accepted and who not in progress.refused]
        progress.waiting.clear()
        taken = []
        for who in open_ones:
            try:
                await smtp.rcpt(who)
                taken.append(who)
            except aiosmtplib.SMTPRecipientRefused as exc:
                _note(progress, who, exc)
        return taken

    async def _data(self, smtp: aiosmtplib.SMTP, mail: bytes, taken: Sequence[str], progress: _Progress) -> None:
        try:
            reply = await smtp.data(mail, timeout=ACCEPTANCE)
        except aiosmtplib.SMTPDataError as exc:
            for who in taken:
                _note(progress, who, exc)
            await smtp.rset()
            return
        progress.accepted.update(dict.fromkeys(taken, f"{reply.code} {reply.message}"))

    async def _connected(self) -> aiosmtplib.SMTP:
        """The kept connection, tried after a rest (servers hang up on idle ones), or a new one."""
        smtp = self._smtp
        if smtp is not None and smtp.is_connected:
            try:
                if self._clock() - self._used_at > _IDLE:
                    await smtp.noop()
                return smtp
            except (aiosmtplib.SMTPException, OSError):
                self._forget_connection()
        smtp = self._client()
        await smtp.connect()
        self._smtp = smtp
        return smtp

    def _client(self) -> aiosmtplib.SMTP:
        given = self._options
        tls = ssl.create_default_context(cafile=given.ca_file)
        # Without a word on TLS, any certificate is better than plain text; but a password goes to the right one only.
        if given.tls is None and given.username is None:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        opportunistic = given.tls is None and given.username is None
        return aiosmtplib.SMTP(
            hostname=given.host,
            port=given.port,
            username=given.username,
            password=given.password.reveal() if given.password else None,
            local_hostname=socket.gethostname(),
            timeout=COMMAND,
            use_tls=given.tls == "tls",
            start_tls=None if opportunistic else given.tls in ("starttls", None),
            tls_context=tls,
        )

    def _forget_connection(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None

    def _mail(self, events: Sequence[Event], last: str | None) -> EmailMessage:
        given = self._options
        mail = EmailMessage(policy=_POLICY)
        mail["From"] = _address(given.sender)
        mail["To"] = [_address(text) for text in given.to]
        if given.cc:
            mail["Cc"] = [_address(text) for text in given.cc]
        mail["Subject"] = one_line(render(given.subject, events), 250)
        mail["Date"] = formatdate(self._clock())
        for name, value in self._identity(events, last).items():
            mail[name] = value
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notices in answer
        if given.list_unsubscribe is not None:
            mail["List-Unsubscribe"] = f"<{given.list_unsubscribe}>"
            if given.list_unsubscribe.startswith("https:"):
                mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
        text, html = self._bodies(events)
        mail.set_content(text)
        if html is not None:
            mail.add_alternative(html, subtype="html")
        return mail

    def _identity(self, events: Sequence[Event], last: str | None) -> Mapping[str, str]:
        """Message-ID by what is told; for a single event the thread of its object."""
        domain = _address(self._options.sender).domain
        own = f"<{_digest(self.name, *(event.id for event in events))}@{domain}>"
        if len(events) > 1:
            return {"Message-ID": own}
        first = f"<object.{_digest(self.name, events[0].source, events[0].subject)}@{domain}>"
        earlier = [first, last] if last and re.fullmatch(r"<[^<>\s]+>", last) else [first]
        return {"Message-ID": own, "In-Reply-To": earlier[-1], "References": " ".join(earlier)}

    def _bodies(self, events: Sequence[Event]) -> tuple[str, str | None]:
        """Text and HTML. A template that begins with `<` is HTML; another one is the whole mail, as text."""
        template = self._options.template
        if template is not None and not template.lstrip().startswith("<"):
            return render(template, events), None
        if template is not None:
            html = render(template, events, escape=Escape.HTML)
        else:
            html = render_default("email.html.j2", events, escape=Escape.HTML)
        return render_default("text.j2", events), html


def _note(progress: _Progress, who: str, exc: aiosmtplib.SMTPResponseException) -> None:
    group = progress.refused if exc.code >= 500 else progress.waiting
    group[who] = f"{exc.code} {exc.message}"


def _said(exc: aiosmtplib.SMTPResponseException) -> Receipt:
    return Receipt(status=str(exc.code), text=exc.message[:4096])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("email", EmailSink)
