"""A shell may close the streams of a command (`>&-`), as some do for jobs: that is no reason to fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Run, Shop


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
