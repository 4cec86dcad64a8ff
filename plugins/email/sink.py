"""The SMTP transactions of an `email` subscription: one connection that is kept open, and each recipient's reply
counted separately.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from types import TracebackType
from typing import Final, Self

import aiosmtplib

from plugins.email.connection import Connection
from plugins.email.mail import mail_of
from plugins.email.options import EmailOptions, parsed_address
from plugins.email.replies import is_about_setup, is_later, is_mailbox_full, is_too_large
from poller import Attempt, Event, Receipt, Rejected, RetryLater, TooLarge
from poller.rendering.rendered import rendered
from poller.rendering.templates import RenderError
from poller.sinks.unrendered import unrendered

ACCEPTANCE: Final = 600.0  # seconds after the final dot: giving up earlier causes duplicates (RFC 5321 4.5.3.2.6)
PATIENCE: Final = 900.0  # seconds of one attempt: its commands, the acceptance, and earlier mails
CLOSING: Final = 421  # the reply of a server that ends the connection
DIGEST_BYTES: Final = (
    1_000_000  # bytes of events' data in one mail, which is a few times as large; servers accept 10 MB and more
)
_REMEMBERED: Final = 1000  # deliveries for which some recipients are still to be served


@dataclass(slots=True)
class _Progress:
    """The results for a mail's recipients so far."""

    accepted: dict[str, str] = field(default_factory=dict)  # recipient -> the server's reply
    refused: dict[str, str] = field(default_factory=dict)  # permanently refused
    waiting: dict[str, str] = field(default_factory=dict)  # temporarily refused
    denied: dict[str, str] = field(default_factory=dict)  # refused because of the sender's set-up

    def note(self, who: str, exc: aiosmtplib.SMTPResponseException) -> None:
        """Record a recipient that was not accepted, in the group that the reply means."""
        is_552 = exc.code == 552 and isinstance(exc, aiosmtplib.SMTPRecipientRefused)
        if is_later(exc.code) or is_552 or is_mailbox_full(exc.message):
            group = self.waiting  # 552 at RCPT is "too many recipients" or "mailbox full": RFC 5321 4.5.3.1.10
        else:
            group = self.denied if is_about_setup(exc.code, exc.message) else self.refused
        group[who] = f"{exc.code} {exc.message}"

    def conclude(self) -> None:
        """Decide on denied recipients: if the server accepts others, the refusal concerns them only; else it concerns
        the set-up.
        """
        (self.refused if self.accepted else self.waiting).update(self.denied)
        self.denied = {}

    def receipt(self, reference: str) -> Receipt:
        status = "250" if self.accepted else next(iter((*self.waiting.values(), *self.refused.values())), "")[:3]
        groups = {"refused": self.refused, "later": self.waiting, "accepted": self.accepted}
        lines = [f"{word} {who}: {reply}" for word, group in groups.items() for who, reply in group.items()]
        return Receipt(status=status, text="\n".join(lines), reference=reference)


class EmailSink:
    """One mail server and one list of recipients."""

    Options = EmailOptions
    attempt_limit = PATIENCE
    max_bytes = DIGEST_BYTES

    def __init__(self, name: str, options: EmailOptions, *, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._recipients = tuple(dict.fromkeys(parsed_address(text).addr_spec for text in (*options.to, *options.cc)))
        self._turn = asyncio.Lock()
        self._connection = Connection(options, clock)
        self._progress: dict[tuple[str, str], _Progress] = {}

    async def __aenter__(self) -> Self:
        await self._connection.prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.quit()

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Send one mail to the recipients of this delivery who do not have it yet."""
        try:
            last, template = attempt.last_reference, self._options.template
            mail, raw = await rendered(lambda: self._encoded(events, last), events, template)
        except RenderError as exc:
            raise unrendered(events, exc) from exc
        key = (attempt.delivery_id, mail["Message-ID"])
        progress = self._progress.setdefault(key, _Progress())
        while len(self._progress) > _REMEMBERED:
            del self._progress[next(iter(self._progress))]
        async with self._turn:
            try:
                await self._transact(raw, progress)
                progress.conclude()
            except BaseException:
                self._connection.forget()
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
        """One SMTP transaction; each recipient's reply is recorded in `progress`. Raises RetryLater, TooLarge."""
        try:
            smtp = await self._begun(len(mail))
            taken = await self._offer(smtp, progress)
            if taken:
                await self._data(smtp, mail, taken, progress)
            else:
                await self._connection.reset(smtp)
            self._connection.used()
        except aiosmtplib.SMTPResponseException as exc:
            # Also for 5yz: replies to EHLO, the login or the sender concern every mail.
            raise RetryLater(None, _said(exc)) from exc
        except (aiosmtplib.SMTPException, OSError, ValueError) as exc:
            raise RetryLater(None, self._connection.unreached(exc)) from exc

    async def _begun(self, size: int) -> aiosmtplib.SMTP:
        """A connection on which the mail was begun: a new one if the server ends the one that was kept.

        Servers do so after some mails, or at any time (421: RFC 5321 3.8). Nobody was offered this mail yet.
        """
        kept, smtp = self._connection.current, await self._connection.opened()
        try:
            await self._begin(smtp, size)
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPServerDisconnected) as exc:
            if smtp is not kept or getattr(exc, "code", CLOSING) != CLOSING:
                raise
            self._connection.forget()
            smtp = await self._connection.opened()
            await self._begin(smtp, size)
        return smtp

    async def _begin(self, smtp: aiosmtplib.SMTP, size: int) -> None:
        """Send the sender, and the mail's size if the server supports that (RFC 1870)."""
        limit = smtp.esmtp_extensions.get("size", "").strip()
        if limit.isdecimal() and 0 < int(limit[:20]) < size:
            raise TooLarge(
                Receipt(status="size", text=f"the mail has {size} bytes, {self._connection.place} takes {limit}")
            )
        sender = parsed_address(self._options.sender).addr_spec
        try:
            await smtp.mail(sender, options=[f"size={size}"] if smtp.supports_extension("size") else [])
        except aiosmtplib.SMTPSenderRefused as exc:
            if not is_later(exc.code) and is_too_large(exc.code, exc.message):
                await self._connection.reset(smtp)
                raise TooLarge(_said(exc)) from exc
            if not _is_accepted(exc):
                raise

    async def _offer(self, smtp: aiosmtplib.SMTP, progress: _Progress) -> Sequence[str]:
        """Send the recipients who are still to be served; returns those that the server accepts."""
        open_ones = [who for who in self._recipients if who not in progress.accepted and who not in progress.refused]
        progress.waiting.clear()
        progress.denied.clear()
        taken = []
        for who in open_ones:
            try:
                await smtp.rcpt(who)
                taken.append(who)
            except aiosmtplib.SMTPRecipientRefused as exc:
                if _is_accepted(exc):
                    taken.append(who)
                else:
                    progress.note(who, exc)
        return taken

    async def _data(self, smtp: aiosmtplib.SMTP, mail: bytes, taken: Sequence[str], progress: _Progress) -> None:
        try:
            reply = await smtp.data(mail, timeout=ACCEPTANCE)
        except aiosmtplib.SMTPDataError as exc:
            if not _is_accepted(exc):
                await self._connection.reset(smtp)
                if not is_later(exc.code) and is_too_large(exc.code, exc.message):
                    raise TooLarge(_said(exc)) from exc
                for who in taken:
                    progress.note(who, exc)
                return
            reply = aiosmtplib.SMTPResponse(exc.code, exc.message)
        progress.accepted.update(dict.fromkeys(taken, f"{reply.code} {reply.message}"))

    def _mail(self, events: Sequence[Event], last: str | None) -> EmailMessage:
        return mail_of(self.name, self._options, events, last, now=self._clock())

    def _encoded(self, events: Sequence[Event], last: str | None) -> tuple[EmailMessage, bytes]:
        mail = self._mail(events, last)
        return mail, mail.as_bytes()


def _is_accepted(exc: aiosmtplib.SMTPResponseException) -> bool:
    """Whether the reply is positive, though not the one that aiosmtplib expects: the first digit counts (RFC 5321
    4.3.2).
    """
    return 200 <= exc.code < 300


def _said(exc: aiosmtplib.SMTPResponseException) -> Receipt:
    return Receipt(status=str(exc.code), text=exc.message)
