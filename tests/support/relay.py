"""A relay between a client and a server, which may lose the server while it keeps the client's connections open."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


class Relay:
    """Passes on what both sides send, on a port of loopback, by threads of this process."""

    def __init__(self, server: Path, port: int) -> None:
        self.port = port
        self._server = server
        self._open: list[socket.socket] = []
        self._mute: set[socket.socket] = set()

    def mute(self) -> None:
        """From now on, take what comes over the present connections, and pass on nothing."""
        self._mute |= set(self._open)

    def serve(self, client: socket.socket) -> None:
        """Serve one client."""
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server))
        self._open += [client, server]
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=self._pass, args=[one, other], daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if one not in self._mute:
                    other.sendall(data)
        if one not in self._mute:
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End every connection."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def relaying(folder: Path) -> Iterator[Relay]:
    """A relay to the database server whose socket is in that folder."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        relay = Relay(folder / ".s.PGSQL.5432", listening.getsockname()[1])

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    relay.serve(listening.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield relay
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            relay.close()
