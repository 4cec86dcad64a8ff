"""The client of `plugins.apprise.child`: a process that is started when needed, and ended when it hangs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Final

PATIENCE: Final = 40.0  # seconds for one notification, including the start of the process
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "SYSTEMROOT")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a notification."""

    ok: bool
    refused: str | None = None  # the private address that was refused
    error: str = ""


class Notifier:
    """One process for one sink; it sends notifications one after the other."""

    def __init__(self, *, allow_private: bool, patience: float = PATIENCE) -> None:
        self._arguments = ["--allow-private"] if allow_private else []
        self._patience = patience
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def notify(self, *, url: str, title: str, body: str, kind: str) -> Outcome:
        """Send one notification to one service."""
        job = json.dumps({"url": url, "title": title, "body": body, "kind": kind}).encode() + b"\n"
        async with self._turn:
            try:
                async with asyncio.timeout(self._patience):
                    reply = json.loads(await self._answered(job))
                return Outcome(ok=bool(reply["ok"]), refused=reply["refused"])
            except TimeoutError:
                await self._end()
                return Outcome(ok=False, error=f"no answer within {self._patience:g} s")
            except (OSError, ValueError):
                await self._end()
                return Outcome(ok=False, error="it took too long or too much memory")
            except BaseException:
                await self._end()
                raise

    async def close(self) -> None:
        """End the process."""
        await self._end()

    async def _answered(self, job: bytes) -> bytes:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(job)
        await process.stdin.drain()
        return await process.stdout.readline()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            await self._end()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "plugins.apprise.child", *self._arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # Ctrl-C must reach only the program, which ends this process itself
            )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def _environment() -> dict[str, str]:
    """The environment of the process: where Python finds its modules, and no setting or secret of Poller."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "HOME": os.devnull}
