"""`poller sandbox` as a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest
from click.testing import CliRunner

from plugins.nutcache.sandbox.command import working_morning
from plugins.nutcache.sandbox.variants import choices
from poller.cli import cli

RUN = [sys.executable, "-c", "from plugins.nutcache.sandbox.command import sandbox; sandbox()"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_told_to_stop_and_sums_up(tmp_path, stop):
    journal = tmp_path / "journal.jsonl"
    options = ["--port", "0", "--pace", "500", "--size", "50", "--size", "invoices=5", "--journal", str(journal)]
    with subprocess.Popen([*RUN, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = dict(process.stdout.readline().split() for _ in range(9))
        with httpx.Client(trust_env=False, verify=False) as http:
            headers = {"Authorization": f"Bearer {told['access_token']}", "api-version": "4"}
            headers["CompanyGuid"] = told["company"]
            assert http.get(f"{told['server']}/time_entries", headers=headers).status_code == 200
            while http.get(told["journal"]).json()["last"] < 3:
                pass
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (0, "")
    assert err.startswith("1 call, 0 refused")
    assert json.loads(journal.read_text().splitlines()[0])["n"] == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "127.0.0.1"),
        (["--limits", "5 per second"], "200/min"),
        (["--variant", "ordr=id"], "known: order"),
        (["--variant", "order=random"], "id, unstable"),
        (["--size", "invoice=3"], "invoices"),
        (["--size", "customers=0"], "at least one"),
        (["--profile", "v5"], "v4"),
    ],
)
def test_a_wrong_option_names_what_is_right(options, says):
    result = CliRunner().invoke(cli, ["sandbox", *options])

    assert result.exit_code == 2
    assert says in result.output


def test_every_variant_is_listed_with_its_default_first():
    lines = CliRunner().invoke(cli, ["sandbox", "--list-variants"]).output.splitlines()

    assert len(lines) == len(choices())
    assert "order=id|unstable" in lines


def test_a_taken_port_is_one_line_with_a_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(cli, ["sandbox", "--port", str(taken.getsockname()[1])])

    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "Try: --port 0" in result.output


@pytest.mark.parametrize(
    ("now", "morning"),
    [
        ("2026-11-24T15:00", "2026-11-24T14:00"),
        ("2026-11-24T13:00", "2026-11-23T14:00"),
        ("2026-11-23T04:00", "2026-11-20T14:00"),
        ("2026-11-22T20:00", "2026-11-20T14:00"),
    ],
)
def test_the_office_opens_on_the_latest_working_morning(now, morning):
    at = working_morning(datetime.fromisoformat(now).replace(tzinfo=UTC))

    assert datetime.fromtimestamp(at, UTC).isoformat().startswith(morning)
