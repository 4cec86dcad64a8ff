"""A pooler of transactions: all clients share some sessions of a PostgreSQL server, for one message or batch each."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NO_ENCRYPTION: Final = (80877103, 80877104)  # requests for TLS and GSSAPI, answered with N
ENDS: Final = (b"Q", b"S")  # messages after which the server answers: a query, and the end of a batch


def read(sock: socket.socket, count: int) -> bytes:
    """So many bytes. Raises EOFError."""
    found = b""
    while len(found) < count:
        if not (more := sock.recv(count - len(found))):
            raise EOFError
        found += more
    return found


def message(sock: socket.socket, *, kind: bytes | None = None) -> tuple[bytes, bytes]:
    """The kind of a message, and the whole of it; the first one of a client has no kind."""
    kind = read(sock, 1) if kind is None else kind
    size = read(sock, 4)
    return kind, kind + size + read(sock, struct.unpack("!i", size)[0] - 4)


class Pooler:
    """Sessions, given to each client in turn."""

    def __init__(self, folder: Path, sessions: int) -> None:
        self._servers = deque(socket.socket(socket.AF_UNIX) for _ in range(sessions))
        for server in self._servers:
            server.connect(str(folder / ".s.PGSQL.5432"))
        self._turn = threading.Lock()
        self._greeting = b""

    def serve(self, client: socket.socket) -> None:
        """Serve one client until it leaves."""
        with contextlib.suppress(EOFError, OSError), client:
            while True:
                _, start = message(client, kind=b"")
                if struct.unpack("!i", start[4:8])[0] not in NO_ENCRYPTION:
                    break
                client.sendall(b"N")
            with self._turn:
                for _ in range(0 if self._greeting else len(self._servers)):
                    self._greeting = self._asked(start)
            client.sendall(self._greeting)
            while True:
                batch, kind = b"", b""
                while kind not in ENDS:
                    kind, one = message(client)
                    if kind == b"X":  # the client leaves, and the session stays
                        return
                    batch += one
                with self._turn:
                    client.sendall(self._asked(batch))

    def _asked(self, request: bytes) -> bytes:
        """All messages of an answer, until the server is ready again."""
        self._servers.rotate()
        server = self._servers[0]
        server.sendall(request)
        answer, kind = b"", b""
        while kind != b"Z":
            kind, one = message(server)
            answer += one
        return answer

    def close(self) -> None:
        """End the sessions."""
        for server in self._servers:
            server.close()


@contextlib.contextmanager
def pooling(folder: Path, sessions: int = 1) -> Iterator[str]:
    """The address of a pooler for the server whose socket is in that folder."""
    pooler = Pooler(folder, sessions)

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=pooler.serve, args=[listening.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=[listening], daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    pooler.close()
