"""A shell may close the streams of a command (`>&-`), as some do for jobs: that is no reason to fail."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poller.cli import main
from tests.support.command_line import Run, Shop
from tests.support.daemon import wait_for


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_whose_streams_are_closed_does_its_work(poller: Run, shop: Shop, tmp_path: Path, closed: str):
    shop.configure(tmp_path)
    for words in ("once", "status", "events", "export events --csv"):
        line = f'exec "$0" -m poller {words} {closed}'
        ran = subprocess.run(
            ["sh", "-c", line, sys.executable], cwd=tmp_path, capture_output=True, text=True, check=False
        )

        assert (words, ran.returncode, "Error" in ran.stderr) == (words, 0, False)
    assert poller("status").status == 0


def test_a_log_that_cannot_be_written_ends_neither_a_sweep_nor_a_daemon(shop: Shop, tmp_path: Path):
    config = shop.configure(tmp_path)
    with open("/dev/full", "w") as full:
        swept = subprocess.run([sys.executable, "-m", "poller", "once"], cwd=tmp_path, stderr=full, check=False)
        assert swept.returncode == 0

        shop.items.append({"id": 3, "name": "Plum"})
        command = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        with subprocess.Popen(command, stdout=full, stderr=full) as daemon:
            wait_for("the event of the new item", (tmp_path / "out.jsonl").exists)
            wait_for("its delivery", (tmp_path / "out.jsonl").read_bytes)
            daemon.terminate()
        assert daemon.returncode == 0


@pytest.mark.parametrize("charset", ["latin-1", "cp1250"])
def test_what_the_charset_of_the_terminal_lacks_is_escaped(poller: Run, shop: Shop, tmp_path: Path, charset: str):
    shop.configure(tmp_path)
    assert poller("once").status == 0
    shop.items.append({"id": 3, "name": "Plum 東京"})
    assert poller("once").status == 0
    shown = subprocess.run(
        [sys.executable, "-m", "poller", "events"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": charset},
        capture_output=True,
        check=False,
    )

    assert (shown.returncode, shown.stderr) == (0, b"")
    assert rb"Plum \u6771\u4eac" in shown.stdout


def test_streams_that_another_program_has_put_in_place_are_left_to_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["poller", "chek"])
    monkeypatch.setattr("poller.cli.process.end_process", sys.exit)  # which would end this process later
    with contextlib.redirect_stderr(io.StringIO()) as told, pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert "did you mean 'check'?" in told.getvalue()


def test_what_a_plugin_closes_stays_open_for_the_log(monkeypatch: pytest.MonkeyPatch):
    log = io.BytesIO()
    given = io.TextIOWrapper(log)  # kept, as the interpreter keeps its own
    monkeypatch.setattr(sys, "argv", ["poller", "chek"])
    monkeypatch.setattr("poller.cli.process.end_process", sys.exit)  # which would end this process later
    monkeypatch.setattr(sys, "stderr", given)
    with pytest.raises(SystemExit):
        main()

    sys.stderr.close()
    print("next line", file=sys.stderr)

    assert log.getvalue().endswith(b"next line\n")


def test_an_output_that_cannot_be_written_is_said_in_one_line(poller: Run, shop: Shop, tmp_path: Path):
    shop.configure(tmp_path)
    assert poller("once").status == 0
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "poller", "status"]
        ran = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    why = "the output cannot be written: No space left on device; check the free space where it goes"
    assert (ran.returncode, ran.stderr) == (1, f"Error: {why}\n")
