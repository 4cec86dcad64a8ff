"""The tutorial, followed to the letter: every file is written, every command run, every output compared."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.fences import ROOT, Fence, fences
from tests.support.daemon import PATIENCE, wait_for

LISTENS = {"sandbox": "8764", "poller run": "8765", "receiver.py": "9000", "shop.py": "9001"}


def free_ports(number: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [str(found.getsockname()[1]) for found in sockets]


class Reader:
    """Somebody who follows a page in a folder; ports that the page names are replaced by free ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(LISTENS.values(), free_ports(len(LISTENS)), strict=True))
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def here(self, text: str) -> str:
        return re.sub(r"\b(?:8764|8765|9000|9001)\b", lambda found: self.ports[found[0]], text)

    def follow(self, fence: Fence) -> None:
        if fence.mark("stop") is not None:
            self.stop()
        if (text := fence.mark("wait")) is not None:
            wait_for(text, lambda: any(text in file.read_text() for file in self.folder.glob("background-*")))
        if (name := fence.mark("folder")) is not None:
            self.folder = self.folder / name
            self.folder.mkdir()
        if (name := fence.mark("file")) is not None:
            (self.folder / name).write_text(self.here(fence.text))
        elif fence.language == "console":
            for command, expected in steps(fence):
                self.run(command, expected, background=fence.mark("background") is not None)

    def run(self, command: str, expected: str, *, background: bool) -> None:
        if background:
            self.start(command, expected)
            return
        ran = subprocess.run(
            ["bash", "-c", self.here(command)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        said = ran.stdout + ran.stderr
        assert ran.returncode == 0, f"{command}: {said}"
        assert re.fullmatch(pattern(expected), settled(said), re.DOTALL), (
            f"{command}\nexpected:\n{expected}\nsaid:\n{said}"
        )
        config = self.folder / "poller.toml"
        if config.exists():  # what `poller init` wrote names the usual ports
            config.write_text(self.here(config.read_text()))

    def start(self, command: str, expected: str) -> None:
        log = self.folder / f"background-{len(self.running)}"
        port = (
            "8764"
            if "sandbox" in command
            else "9000"
            if "receiver" in command
            else "9001"
            if "shop" in command
            else "8765"
        )
        if "sandbox" in command:
            command += f" --port {self.ports['8764']}"
        with log.open("wb") as output:
            self.running.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"],
                    cwd=self.folder,
                    env=self.environment,
                    stdout=output,
                    stderr=output,
                )
            )
        wait_for(command, lambda: listens(int(self.ports[port])))
        assert not expected or self.here(expected) in log.read_text()

    def stop(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        self.running.clear()


def listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def steps(fence: Fence) -> Iterator[tuple[str, str]]:
    """Each command of a block, a here-document included, with the output that the page shows."""
    for part in re.split(r"^\$ ", fence.text, flags=re.MULTILINE)[1:]:
        first, _, rest = part.partition("\n")
        if (end := re.search(r"<<'(\w+)'$", first)) is not None:
            document, _, rest = rest.partition(f"{end[1]}\n")
            first = f"{first}\n{document}{end[1]}"
        yield first, rest


def settled(text: str) -> str:
    """Text without what differs from run to run: numbers and widths of columns."""
    return re.sub(r"\s+", " ", re.sub(r"\d+", "#", text)).strip()


def pattern(expected: str) -> str:
    """What output must match: `…` stands for anything, numbers for any number."""
    return ".*".join(re.escape(part) for part in settled(expected).split("…")) if expected.strip() else ".*"


@pytest.mark.slow
def test_the_tutorial_works_as_printed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for fence in fences(ROOT / "docs" / "tutorial.md"):
            reader.follow(fence)
    finally:
        for process in reader.running:
            process.kill()
            process.wait()
