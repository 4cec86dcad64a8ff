"""`poller demo`: the whole thing on this machine, with nothing to prepare and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest

DEMO = [sys.executable, "-m", "poller.cli", "demo", "--listen", "127.0.0.1:0"]
PATIENCE = 120


def is_served(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.slow
def test_it_ends_by_itself_with_events_and_a_summary(tmp_path: Path) -> None:
    ran = subprocess.run(
        [*DEMO, "--for", "12s", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )

    assert ran.returncode == 0, ran.stderr
    events = [orjson.loads(line) for line in ran.stdout.splitlines()]
    assert {event["source"] for event in events} <= {"/sources/acme"}  # how many there are is the machine's affair
    assert re.search(r"refused \(429\) +│ 0 ", ran.stderr)
    assert "First sweep complete" in ran.stderr
    (recorded,) = re.findall(r"events +│ (\d+) ", ran.stderr)
    assert int(recorded) >= len(events)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_sandbox(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(DEMO, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        told = ""
        while "Dashboard:" not in told:
            told += demo.stderr.readline()
        sandbox, dashboard = re.findall(r"http://127\.0\.0\.1:\d+", told)
        assert "<title>" in httpx.get(dashboard, trust_env=False).text
        demo.send_signal(number)
        _, rest = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0
    assert "Traceback" not in rest
    assert not is_served(sandbox)
    assert not is_served(dashboard)


def test_files_of_the_current_folder_take_no_module_s_place(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "__init__.py").touch()
    (tmp_path / "state.py").touch()
    command = [sys.executable, "-P", *DEMO[1:], "--for", "1s"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)

    assert ran.returncode == 0, ran.stderr
    assert "First sweep complete" in ran.stderr


def test_a_sandbox_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'sandbox' in sys.argv:\n    sys.exit('no sandbox on this machine')\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    ran = subprocess.run(DEMO, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)

    assert ran.returncode == 1
    assert "Error: the sandbox did not start (exit status 1): SystemExit: no sandbox on this machine" in ran.stderr


def test_a_wrong_duration_is_told(tmp_path: Path) -> None:
    ran = subprocess.run([*DEMO, "--for", "soon"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)

    assert ran.returncode == 2
    assert "a duration is a number and its unit" in ran.stderr


@pytest.mark.slow
def test_workers_lose_nothing_when_one_of_them_is_killed(tmp_path: Path) -> None:
    """It starts PostgreSQL from its wheel, kills whoever polls, and counts."""
    command = [*DEMO[:4], "--workers", "3", "--for", "10s"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert len(re.findall(r"^Worker \d: +http", ran.stderr, re.MULTILINE)) == 3
    assert re.search(r"Killed \S+ \(http://\S+\), which polled\.", ran.stderr)
    assert re.search(r"took over after \d+\.\d s", ran.stderr)
    rows = dict(re.findall(r"│ ([a-z() 0-9]+?) +│ (.+?) +│", ran.stdout))
    assert (rows["lost"], rows["out of order"], rows["books"]) == ("0", "0", "balance")
    assert int(rows["events"]) > 0
    assert list(tmp_path.iterdir()) == []
