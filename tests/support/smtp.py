"""A mail server of which a test says every byte: replies by command, and what it was sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

FRIENDLY = {
    "greeting": b"220 mail.example ESMTP\r\n",
    "EHLO": b"250-mail.example\r\n250 SIZE 10000000\r\n",
    "HELO": b"250 mail.example\r\n",
    "MAIL": b"250 2.1.0 OK\r\n",
    "RCPT": b"250 2.1.5 OK\r\n",
    "DATA": b"354 go ahead\r\n",
    "mail": b"250 2.0.0 queued as 4711\r\n",  # after the final dot
    "RSET": b"250 OK\r\n",
    "NOOP": b"250 OK\r\n",
    "QUIT": b"221 bye\r\n",
    "": b"500 what?\r\n",  # any other command
}


@dataclass
class RawMailServer:
    """Answers each step with `replies[step]`, or with FRIENDLY's; b"" says nothing, None hangs up."""

    port: int = 0
    replies: dict[str, bytes | None] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    connections: int = 0
    most: int = 1000  # mails of one connection, which is then ended
    says: bytes = b"421 4.4.2 too many messages\r\n"  # as it ends

    def reply(self, *steps: str) -> bytes | None:
        found = next(step for step in (*steps, "") if step in self.replies or step in FRIENDLY)
        return self.replies.get(found, FRIENDLY.get(found))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        mails = 0
        try:
            open_ = await _said(writer, self.reply("greeting"))
            while open_ and (line := await reader.readline()):
                command = line.decode().strip()
                self.commands.append(command)
                verb = command[:4].upper()
                if verb == "MAIL" and mails >= self.most:
                    await _said(writer, self.says)
                    break
                answer = self.reply(command, verb)
                open_ = await _said(writer, answer) and verb != "QUIT"
                if open_ and verb == "DATA" and (answer or b"").startswith(b"354"):
                    self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
                    mails += 1
                    open_ = await _said(writer, self.reply("mail"))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving_raw(
    replies: Mapping[str, bytes | None] | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawMailServer]:
    """A RawMailServer on a free port of 127.0.0.1."""
    mailer = RawMailServer(replies=dict(replies or {}))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(mailer.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, limit=64_000_000)
    mailer.port = server.sockets[0].getsockname()[1]
    try:
        yield mailer
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _said(writer: asyncio.StreamWriter, reply: bytes | None) -> bool:
    if reply is not None:
        writer.write(reply)
        await writer.drain()
    return reply is not None
