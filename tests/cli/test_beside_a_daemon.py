"""Commands beside a daemon: done and seen by it, without its secrets, its file or rights on its state."""

import codecs
import io
import os
import re
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import pytest
from rich.console import Console

from poller.cli.context import CliContext
from poller.cli.output import clock, unix
from poller.cli.top import screen
from poller.events.cloudevents import iso
from poller.operations.local_socket import socket_path
from tests.support.command_line import Run, Shop
from tests.support.daemon import Callback, Daemon, running_daemon, wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CRM = """
[[subscriptions]]
name = "crm"
plugin = "http"
url = "{url}"
secret = {{ env = "CRM_SECRET" }}
allow_private = true
retry = ["1h"]
"""


def ask(state: Path, path: str) -> object:
    """What the daemon answers on its socket."""
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket_path(state))), base_url="http://x", timeout=60
    ) as client:
        return client.get(path).json()


@pytest.fixture
def daemon(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon with one event, whose secret is not in this shell, and whose file has been broken since."""
    monkeypatch.setenv("CRM_SECRET", SECRET)
    with Callback() as crm:
        path = shop.configure(tmp_path, more=CRM.format(url=crm.url))
        with running_daemon(path) as daemon:
            state = tmp_path / "poller.db"
            wait_for("the baseline", lambda: ask(state, "/api/v1/status")["endpoints"][0]["last_sweep"])  # type: ignore[index]
            shop.items = [{"id": 1, "name": "\x1b[31mQuince\u202e"}, *shop.items[1:]]
            wait_for("the event", lambda: crm.events)
            wait_for("both deliveries", lambda: not ask(state, "/api/v1/deliveries?state=pending")["deliveries"])  # type: ignore[index]
            monkeypatch.delenv("CRM_SECRET")
            path.write_text(path.read_text() + "\n[sources.shop\n")
            yield daemon


COMMANDS = (
    ("pause crm", "Subscription crm is paused: its events are kept until you resume it."),
    ("resume crm", "Subscription crm is active."),
    ("ping crm", "crm answered 204 in "),
    ("redeliver 1", "1 delivery queued again."),
    ("redeliver --subscription crm", "No dead delivery of subscription crm found: nothing was queued."),
    ("replay crm --after 0", "The events 1 to "),
    ("hold items", "Endpoint shop/items is held: nothing of it is recorded."),
    (
        "release shop/items --accept",
        "Endpoint shop/items is released, with its current objects recorded without events.",
    ),
    ("rebaseline items", "The next sweep of shop/items is its new baseline: it is recorded without events."),
    ("events", "items/1"),
    ("events --after 0 --subject items/* --json", '"subject":"items/1"'),
    ("deliveries", "delivered"),
    ("deliveries --subscription crm --json", '"subscription":"crm"'),
    ("deliveries show 1", "attempt"),
    ("show items 1", "version 1"),
    ("ledger", "yes"),
    ("plan", "shop/items"),
    ("plan --json --share 1", '"kind":"budget"'),
    ("status", "running (process "),
    ("status --json", '"running": true'),
    ("try items", "objects  2"),
    ("backup copies/", "; checked"),
)


def test_every_command_works_without_the_daemons_secrets_and_beside_a_broken_file(
    poller: Run, daemon: Daemon, tmp_path: Path
) -> None:
    for words, expected in COMMANDS:
        ran = poller(*words.split())
        assert (ran.status, expected in ran.out) == (0, True), (words, ran)
        [line] = ran.err.splitlines()
        assert line.startswith("poller.toml: refused (not valid TOML: "), words
        assert re.search(r"; the daemon runs the one of .*\d\d:\d\d UTC$", line)


def test_doctor_looks_at_what_the_daemon_says_beside_a_broken_file(poller: Run, daemon: Daemon) -> None:
    ran = poller("doctor", "--json")
    found = {(one["about"], one["level"]) for one in ran.lines}

    assert ran.status == 1
    assert {("configuration", "bad"), ("daemon", "ok"), ("source shop", "ok"), ("subscription crm", "ok")} <= found


def test_secrets_of_the_daemon_are_missed_by_neither_doctor_nor_check(
    poller: Run, daemon: Daemon, tmp_path: Path
) -> None:
    path = tmp_path / "poller.toml"
    path.write_text(path.read_text().replace("\n[sources.shop\n", ""))
    path.chmod(0o600)
    doctor, check = poller("doctor", "--json"), poller("check", "--online")

    assert [one for one in doctor.lines if one["level"] == "bad"] == []
    assert check.status == 0
    assert "endpoint shop/items: 2 objects" in check.out
    assert "CRM_SECRET is not set" in check.err


def test_commands_that_go_by_the_file_warn_if_the_daemon_runs_another(
    poller: Run, daemon: Daemon, tmp_path: Path
) -> None:
    path = tmp_path / "poller.toml"
    as_run = path.read_text().replace("\n[sources.shop\n", "")
    going_by_the_file = ("preview crm", "deliveries show 1 --request", "simulate --days 0.1 --limits 10/h")
    path.write_text(as_run + "# later\n")
    for words in going_by_the_file:
        ran = poller(*words.split())
        assert ran.status == 0
        assert re.fullmatch(
            r"Warning: shown as poller\.toml is now; the daemon still runs the one of .*\d\d:\d\d UTC\n", ran.err
        ), words
    path.write_text(as_run)
    for words in going_by_the_file:
        assert poller(*words.split()).err == "", words


def test_a_daemon_is_found_where_the_environment_says_it_is(
    poller: Run, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("POLLER_STATE", str(tmp_path / "poller.db"))

    assert poller("pause", "crm").status == 0


def test_words_of_others_cannot_steer_a_terminal(poller: Run, daemon: Daemon) -> None:
    for words in ("events", "events --json", "deliveries", "deliveries show 1", "show items 1", "show items 1 --json"):
        out = poller(*words.split()).out
        assert not set(out) & {"\x1b", "\u202e"}, words
    assert poller("events", "--after", "0", "--json").lines[0]["data"]["object"]["name"] == "\x1b[31mQuince\u202e"


def test_places_are_numbers_or_times_everywhere(poller: Run, daemon: Daemon) -> None:
    count = {
        words: len(poller(*words.split(), "--json").lines)
        for words in (
            "events --after 0",
            "events --before 1",
            "events --after 2020-01-01T00:00:00Z --before 2999-01-01T00:00:00Z",
            "events --before 2020-01-01T00:00:00Z",
            "deliveries --after 0",
            "deliveries --before 2",
            "deliveries --after 2020-01-01T00:00:00Z",
            "deliveries --before 2020-01-01T00:00:00Z",
        )
    }

    assert list(count.values()) == [1, 0, 1, 0, 2, 1, 2, 0]


@pytest.mark.parametrize(
    "words",
    [
        "events --after soon",
        "events --after 99999999999999999999999",
        "events --after 2026-11-23T08:00:00",
        "deliveries --before 99999999999999999999",
        "replay crm --after 99999999999999999999",
        "show items none",
        "pause nobody",
        "hold nothing",
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_what_to_do(poller: Run, daemon: Daemon, words: str) -> None:
    ran = poller(*words.split())
    *_, error = ran.err.splitlines()

    assert (ran.status, error[:7], "; " in error) == (1, "Error: ", True)


def test_what_matches_nothing_says_what_there_is(poller: Run, daemon: Daemon) -> None:
    ran = poller("events", "--type", "*.deleted")

    assert ran.out == ""
    assert "no event matches; types in the log: shop.items.updated" in ran.err
    assert "no source is named 'nobody'; known: shop" in poller("events", "--source", "nobody").err


def test_what_a_command_shows_is_not_in_the_daemons_log(poller: Run, daemon: Daemon) -> None:
    assert '"ids"' in poller("try", "items", "--json").out
    [line] = [one for one in daemon.log.splitlines() if '"command": "inspect"' in one]

    assert '"pages"' not in line


def test_no_delivery_that_matches_is_said(poller: Run, daemon: Daemon) -> None:
    for words in (("--state", "dead"), ("--subject", "none/*", "--json")):
        ran = poller("deliveries", *words)
        assert (ran.status, ran.out, ran.err.splitlines()[-1]) == (0, "", "no delivery matches")


def test_a_test_that_does_not_arrive_is_told_with_the_answer(poller: Run, shop: Shop, tmp_path: Path) -> None:
    hook = CRM.format(url=f"{shop.url}/hook").replace('secret = { env = "CRM_SECRET" }\n', "")  # it refuses every POST
    with running_daemon(shop.configure(tmp_path, more=hook)):
        ran = poller("ping", "crm")
        as_json = poller("ping", "crm", "--json")

    assert (ran.status, ran.out[:16]) == (1, "crm answered 501")
    assert (as_json.status, as_json.json["delivered"]) == (1, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_use_the_socket_is_told_who_may(poller: Run, daemon: Daemon, tmp_path: Path) -> None:
    for folder in [tmp_path, *tmp_path.parents[:3]]:
        folder.chmod(0o755)
    poller("pause", "crm")  # another user may not be able to read the modules that it loads
    for codec in ("ascii", "idna"):
        codecs.lookup(codec)
    os.seteuid(65534)
    try:
        ran = poller("pause", "crm")
    finally:
        os.seteuid(0)

    assert ran.status == 1
    assert "the daemon's socket may be used by root, not by user 65534" in ran.err


@pytest.mark.parametrize("at", [-1e30, -62135596801.0, 0.0, 253402300800.0, 1e30])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_no_stored_time_is_too_long_to_be_shown(at: float, zone: str) -> None:
    there = ZoneInfo(zone)

    assert clock(at, there)
    assert clock(unix(iso(at)), there)
    assert datetime.fromisoformat(iso(at)).astimezone(there)


def test_a_refused_reload_is_named_once(poller: Run, daemon: Daemon, tmp_path: Path) -> None:
    state = tmp_path / "poller.db"
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for("the refusal", lambda: ask(state, "/api/v1/status")["config_error"])  # type: ignore[index]
    status, doctor = poller("status"), poller("doctor", "--json")
    out = Console(file=io.StringIO(), width=200)
    out.print(screen(CliContext(tmp_path / "poller.toml"), 200))

    assert (status.out + status.err).count("refused") == 1
    assert [one["about"] for one in doctor.lines if one["level"] == "bad"] == ["configuration"]
    assert out.file.getvalue().count("refused") == 1  # type: ignore[attr-defined]


def test_a_refused_reload_is_named_until_the_next_one(poller: Run, daemon: Daemon, tmp_path: Path) -> None:
    path, state = tmp_path / "poller.toml", tmp_path / "poller.db"
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for("the refusal", lambda: ask(state, "/api/v1/status")["config_error"])  # type: ignore[index]
    path.write_text(path.read_text().replace("\n[sources.shop\n", ""))
    status, doctor = poller("status"), poller("doctor", "--json")

    assert status.out.count("! the configuration was refused at the latest reload: ") == 1
    assert ["refused at the latest reload" in one["what"] for one in doctor.lines if one["level"] == "bad"] == [True]


def test_doctor_names_a_state_that_is_gone_while_the_daemon_uses_it(
    poller: Run, daemon: Daemon, tmp_path: Path
) -> None:
    state = tmp_path / "poller.db"
    state.rename(tmp_path / "moved.db")
    bad = [one["what"] for one in poller("doctor", "--json").lines if one["level"] == "bad"]
    (tmp_path / "moved.db").rename(state)

    assert f"{state} is gone, and the daemon still uses it" in bad
