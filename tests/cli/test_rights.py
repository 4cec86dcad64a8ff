"""Every command beside a service that alone has the secrets: it works, or says in one line which right is missing."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from poller.cli import COMMANDS
from poller.operations.local_socket import socket_path
from tests.support.command_line import Ran, Run, Shop
from tests.support.daemon import Callback, Daemon, running_daemon, wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CRM = """
[[subscriptions]]
name = "crm"
plugin = "http"
url = "{url}"
secret = {{ credential = "crm_secret" }}
allow_private = true
"""
NOBODY = 65534

WORKS = {  # beside the service, in a shell without its credentials
    "status": "status",
    "plan": "plan",
    "events": "events",
    "deliveries": "deliveries",
    "show": "show items 1",
    "ledger": "ledger",
    "export": "export objects",
    "preview": "preview crm",
    "plugins": "plugins",
    "doctor": "doctor",
    "check": "check --online",
    "try": "try items",
    "redeliver": "redeliver --all",
    "replay": "replay crm --after 0",
    "ping": "ping crm",
    "pause": "pause crm",
    "resume": "resume crm",
    "hold": "hold items",
    "release": "release items --accept",
    "rebaseline": "rebaseline items",
    "simulate": "simulate --days 1 --limits 10/h",
    "backup": "backup copy.db",
    "completion": "completion bash",
    "help": "help status",
    "unit": "unit",
    "new-plugin": "new-plugin own",
}
REFUSED = {  # what a service that runs, a file that is there, or a pipe does not allow
    "run": "run",
    "once": "once",
    "poll": "poll items",
    "top": "top",
    "init": "init",
    "restore": "restore none.db",
    "migrate": "migrate poller.db other.db",
    "rename": "rename crm sales",
    "forget": "forget crm",
    "demo": "demo --for soon",
}


@pytest.fixture
def service(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon as systemd starts it, with a credential that this shell does not have."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "crm_secret").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    with Callback() as crm:
        path = shop.configure(tmp_path, more=CRM.format(url=crm.url))
        path.chmod(0o600)
        with running_daemon(path) as daemon:
            monkeypatch.delenv("CREDENTIALS_DIRECTORY")
            transport = httpx.HTTPTransport(uds=str(socket_path(tmp_path / "poller.db")))
            with httpx.Client(transport=transport, base_url="http://x") as client:
                wait_for("the baseline", lambda: client.get("/api/v1/status").json()["endpoints"][0]["last_sweep"])
            yield daemon


def is_said_plainly(ran: Ran) -> bool:
    """Whether a refusal is one line."""
    lines = [line for line in ran.err.splitlines() if not line.startswith("Warning: ")]
    return len(lines) == 1 and lines[0].startswith("Error: ")


def test_every_command_is_tried_here() -> None:
    assert WORKS.keys() | REFUSED.keys() == COMMANDS.keys()


def test_every_command_works_in_a_shell_without_the_credentials(poller: Run, service: Daemon) -> None:
    ran = {name: poller(*words.split()) for name, words in WORKS.items()}
    refused = {name: poller(*words.split()) for name, words in REFUSED.items()}

    assert {name: one for name, one in ran.items() if one.status != 0 or "Traceback" in one.err} == {}
    assert {name: one for name, one in refused.items() if one.status == 0 or not is_said_plainly(one)} == {}
    assert not any(SECRET in one.out + one.err for one in (*ran.values(), *refused.values()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_every_command_of_another_user_works_or_says_which_right_is_missing(
    poller: Run, service: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLLER_STATE", str(tmp_path / "poller.db"))  # the configuration that names it is closed, too
    for folder in [tmp_path, *tmp_path.parents[:3]]:
        folder.chmod(0o755)
    commands = {**WORKS, **REFUSED}
    for words in commands.values():  # another user may not be able to read the modules that they load
        poller(*words.split())
    for codec in ("ascii", "idna"):
        codecs.lookup(codec)
    os.seteuid(NOBODY)
    try:
        ran = {name: poller(*words.split()) for name, words in commands.items()}
    finally:
        os.seteuid(0)

    doctor = ran.pop("doctor")  # it says on standard output what it finds
    plain = {"completion", "help", "unit", "plugins"}
    assert {name: one for name, one in ran.items() if one.status != 0 and not is_said_plainly(one)} == {}
    assert {name for name, one in ran.items() if one.status == 0} >= plain
    assert "may be used by root, not by user 65534" in ran["status"].err
    assert (doctor.status, "may be used by root, not by user 65534" in doctor.out) == (1, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_that_another_user_may_not_read_is_told_with_who_may(poller: Run, tmp_path: Path) -> None:
    for folder in [tmp_path, *tmp_path.parents[:3]]:
        folder.chmod(0o755)
    closed = tmp_path / "etc" / "poller.toml"
    closed.parent.mkdir()
    closed.touch()
    os.chown(closed.parent, 0, 10)
    closed.parent.chmod(0o750)
    for codec in ("ascii", "idna"):
        codecs.lookup(codec)
    poller("status", "--config", str(closed))  # another user may not be able to read the modules that it loads
    os.seteuid(NOBODY)
    try:
        ran = poller("status", "--config", str(closed))
        written = poller("init", "--config", "/usr/poller.toml")
    finally:
        os.seteuid(0)

    assert "may be used by root and the group uucp, not by user 65534" in ran.err
    assert ran.err.endswith("; as root, or as a member of the group uucp\n")
    assert is_said_plainly(ran)
    assert (written.status, is_said_plainly(written)) == (1, True)
    assert "group" not in written.err
