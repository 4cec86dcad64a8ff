"""The connection to a mail server that a subscription keeps open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import aiosmtplib

from plugins.email.options import EmailOptions, own_name, tls_hint
from poller import Receipt

COMMAND: Final = 60.0  # seconds for one SMTP command
_IDLE: Final = 30.0  # seconds after which an idle connection is tested before it is used


class Connection:
    """One SMTP connection, opened when it is needed."""

    def __init__(self, options: EmailOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self.current: aiosmtplib.SMTP | None = None  # None: not open
        self._used_at = float("-inf")
        self._tls: ssl.SSLContext | None = None
        self._helo = options.helo

    @property
    def place(self) -> str:
        """Host and port of the server."""
        return f"{self._options.host}:{self._options.port}"

    async def prepare(self) -> None:
        """Read the certificates to trust, and find this machine's name."""
        self._tls = await asyncio.to_thread(_trust, self._options)
        self._helo = self._helo or await asyncio.to_thread(own_name)

    async def quit(self) -> None:
        """End the connection."""
        smtp, self.current = self.current, None
        if smtp is not None and smtp.is_connected:
            try:
                await smtp.quit(timeout=2.0)
            except (aiosmtplib.SMTPException, OSError):
                smtp.close()  # the mails are accepted, so the reply to QUIT does not matter

    async def reset(self, smtp: aiosmtplib.SMTP) -> None:
        """Prepare the connection for the next mail. The server's replies to this mail count, however the reset ends."""
        try:
            await smtp.rset()
        except (aiosmtplib.SMTPException, OSError):
            self.forget()

    async def opened(self) -> aiosmtplib.SMTP:
        """The open connection, tested after an idle time (servers close idle ones), or a new one."""
        smtp = self.current
        if smtp is not None and smtp.is_connected:
            try:
                if self._clock() - self._used_at > _IDLE:
                    await smtp.noop()
                return smtp
            except (aiosmtplib.SMTPException, OSError):
                self.forget()
        smtp = self._client()
        await smtp.connect()
        self.current = smtp
        if smtp.is_ehlo_or_helo_needed:  # before the first mail, because the answer to EHLO states the largest size
            await _greet(smtp)
        return smtp

    def _client(self) -> aiosmtplib.SMTP:
        given = self._options
        return aiosmtplib.SMTP(
            hostname=given.host,
            port=given.port,
            username=given.username,
            password=given.password.reveal() if given.password else None,
            local_hostname=self._helo,
            timeout=COMMAND,
            use_tls=given.tls == "tls",
            start_tls=None if given.is_opportunistic else given.tls in ("starttls", None),
            tls_context=self._tls,
        )

    def used(self) -> None:
        """Note that the connection was used."""
        self._used_at = self._clock()

    def forget(self) -> None:
        """Close the connection; the next mail opens another one."""
        if self.current is not None:
            self.current.close()
            self.current = None

    def unreached(self, exc: Exception) -> Receipt:
        """The receipt for a connection that could not be made or broke, with a hint about ports and TLS."""
        handshake = isinstance(exc, ssl.SSLError) or isinstance(exc.__cause__, ssl.SSLError)
        silent = isinstance(exc, aiosmtplib.SMTPTimeoutError) and not self._options.is_opportunistic
        hint = f" ({tls_hint(self._options)})" if handshake or silent or self._options.port == 465 else ""
        return Receipt(status="unreachable", text=f"{self.place}: {exc}{hint}")


async def _greet(smtp: aiosmtplib.SMTP) -> None:
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError:
        if not smtp.is_connected:
            raise
        await smtp.helo()


def _trust(given: EmailOptions) -> ssl.SSLContext:
    """The certificates to trust. Without `tls`, any certificate is better than plain text, unless there is a
    password.
    """
    tls = ssl.create_default_context(cafile=given.ca_file)
    if given.is_opportunistic:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls
