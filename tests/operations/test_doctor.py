"""`poller doctor` names what is wrong and what to do about it, beside a daemon and without one."""

import socket
from pathlib import Path
from typing import Any

import pytest

from poller.config.models import Config, EndpointConfig, SourceConfig
from poller.operations import doctor
from poller.operations.doctor import Finding, Level
from state.sqlite.backup import copy_state
from tests.support.command_line import Ran, Run, Shop
from tests.support.daemon import running_daemon

SOURCE = {"name": "shop", "state": "ok", "reason": None, "since": None, "next_probe": None, "last_poll": "2026"}
ENDPOINT = {
    "source": "shop",
    "endpoint": "items",
    "held": None,
    "error": None,
    "failing": 0,
    "last_sweep": "2026",
    "units": 9,
}
SUBSCRIPTION = {"name": "crm", "state": "active", "reason": None, "lag": 0, "pending": 0, "dead": 0}
SUBSCRIPTION |= {"oldest_waiting_s": None, "filter_errors": 0, "last_error": None}
PROMISING = SourceConfig(plugin="rest", endpoints={"items": EndpointConfig(max_staleness=600.0)})


def told(**rows: dict[str, Any]) -> list[Finding]:
    """What is found in a status in which all is well but for what is given."""
    budget = {"name": "shop", "throttled_until": None, "broken_promise": None}
    status = {
        "budgets": [budget | rows.get("budget", {})],
        "sources": [SOURCE | rows.get("source", {})],
        "endpoints": [ENDPOINT | {"staleness_s": 60.0} | rows.get("endpoint", {})],
        "subscriptions": [SUBSCRIPTION | rows.get("subscription", {})],
        "plugins_failed": [rows["plugin"]] if "plugin" in rows else [],
    }
    config = Config(path=Path("poller.toml"), sources={"shop": PROMISING})
    return [one for one in doctor.of_status(status, config) if one.level is not Level.OK]


def test_where_all_is_well_nothing_is_to_do():
    assert told() == []


@pytest.mark.parametrize(
    ("rows", "level", "what", "hint"),
    [
        ({"budget": {"throttled_until": "2027"}}, "warn", "no call before 2027", "lower limits"),
        ({"budget": {"broken_promise": "asks too much"}}, "bad", "asks too much", "poller check"),
        ({"source": {"state": "failing", "reason": "401"}}, "bad", "failing: 401", "check --online"),
        (
            {"endpoint": {"held": {"reason": "half is gone"}}},
            "bad",
            "half is gone",
            "release shop/items, with --accept",
        ),
        ({"endpoint": {"error": "no id", "failing": 3}}, "bad", "3 of its 9 units failing: no id", "check --online"),
        ({"endpoint": {"last_sweep": None}}, "warn", "not seen completely", "poller run"),
        ({"endpoint": {"staleness_s": 1200.0}}, "bad", "stale for 20m, promised were 10m", "daemon running"),
        ({"endpoint": {"ignore_candidates": ["/hits"]}}, "warn", "/hits changes at every poll", 'ignore = ["/hits"]'),
        ({"endpoint": {"notes": {"page 2": "odd"}}}, "warn", "page 2: odd", None),
        ({"subscription": {"state": "failing", "last_error": "503"}}, "bad", "failing: 503", "poller deliveries"),
        ({"subscription": {"state": "disabled", "reason": "410"}}, "bad", "disabled: 410", "poller resume crm"),
        ({"subscription": {"state": "paused", "lag": 7}}, "warn", "7 events waiting", "poller resume crm"),
        ({"subscription": {"oldest_waiting_s": 7200.0}}, "warn", "waits for 2h", "--state pending"),
        ({"subscription": {"dead": 4}}, "warn", "4 dead letters", "poller redeliver --subscription crm"),
        ({"subscription": {"filter_errors": 2, "last_error": "no key"}}, "warn", "no key", "mend `where`"),
        ({"plugin": {"name": "x", "origin": "x.py", "error": "boom"}}, "bad", "boom (x.py)", "poller plugins"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(rows: Any, level: str, what: str, hint: str | None) -> None:
    (found,) = told(**rows)

    assert found.level == level
    assert what in found.what
    assert (hint is None) if found.hint is None else (hint is not None and hint in found.hint)


def test_a_source_of_an_earlier_configuration_is_told_of_all_the_same():
    assert [found.what for found in told(endpoint={"source": "old", "staleness_s": 1e6, "last_sweep": None})] == [
        "not seen completely yet"
    ]


def test_a_subscription_that_the_configuration_switches_off_is_no_news():
    assert told(subscription={"state": "disabled", "reason": "enabled = false"}) == []


@pytest.mark.parametrize(("free", "level"), [(50e6, "bad"), (500e6, "warn"), (4e9, "warn"), (9e9, "ok")])
def test_the_disk_must_have_room_for_another_state(free: float, level: str) -> None:
    assert doctor.of_space(int(free), 5_000_000_000).level == level


@pytest.mark.parametrize(("latest", "level"), [(None, "ok"), (999.0, "ok"), (1059.0, "ok"), (2000.0, "bad")])
def test_a_clock_behind_what_was_written_down_is_wrong(latest: float | None, level: str) -> None:
    assert doctor.of_clock(1000.0, latest).level == level


# Through the command line.


def about(ran: Ran, name: str) -> dict[str, Any]:
    return next(row for row in ran.lines if row["about"].startswith(name))


def test_a_healthy_state_beside_its_daemon_is_well(poller: Run, shop: Shop, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = shop.configure(tmp_path, listen=f"127.0.0.1:{port}")
    config.chmod(0o600)
    poller("once")
    with running_daemon(config):
        ran = poller("doctor", "--json")

    assert {row["level"] for row in ran.lines} == {"ok"}, ran.out
    assert about(ran, "daemon")["what"].startswith("running since 2")
    assert about(ran, "listen")["what"] == "answers"
    assert ran.status == 0


def test_before_the_first_run_it_says_what_comes_next(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    ran = poller("doctor")

    assert ran.status == 0
    assert "poller.db is not there yet\n     -> poller once, or poller run" in ran.out


def test_without_a_configuration_it_says_how_to_begin(poller: Run) -> None:
    ran = poller("doctor")

    assert ran.status == 1
    assert "poller init" in ran.out


def test_every_problem_of_a_configuration_is_told_and_the_rest_looked_at(
    poller: Run, shop: Shop, tmp_path: Path
) -> None:
    shop.configure(
        tmp_path, more='[[subscriptions]]\nname = "hook"\nplugin = "http"\nurl = "http://x"\nsecret = {env="NO"}'
    )
    ran = poller("doctor", "--json")

    assert ran.status == 1
    assert "the environment variable NO is not set" in about(ran, "configuration")["what"]
    assert about(ran, "daemon")["level"] == "warn"


def test_a_source_that_fails_is_bad(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    shop.answer = (401, b"who are you?", "text/plain")
    poller("once")
    ran = poller("doctor", "--json")

    assert ran.status == 1
    assert "401" in about(ran, "source shop")["what"]


def test_a_damaged_state_is_bad(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    poller("once")
    with (tmp_path / "poller.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    ran = poller("doctor", "--json")

    assert ran.status == 1
    assert about(ran, "state")["level"] == "bad"


def test_files_that_others_can_read_are_told(poller: Run, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("whsec_" + "a" * 32)
    (tmp_path / "key").chmod(0o644)
    more = '[[subscriptions]]\nname = "hook"\nplugin = "http"\nurl = "http://x"\nsecret = { file = "key" }'
    shop.configure(tmp_path, more=more)
    ran = poller("doctor", "--json")

    assert about(ran, str(tmp_path / "key"))["hint"] == f"chmod 600 {tmp_path / 'key'}"


def test_an_address_in_use_is_bad(poller: Run, shop: Shop, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        shop.configure(tmp_path, listen=f"127.0.0.1:{other.getsockname()[1]}")
        ran = poller("doctor", "--json")

    assert about(ran, "listen")["what"] == "another program has this address"


def test_a_plugin_that_fails_to_load_is_bad(poller: Run, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.py").write_text("1 / 0")
    config = shop.configure(tmp_path)
    config.write_text(config.read_text().replace("[poller]", '[poller]\nplugins_dir = "mine"'))
    ran = poller("doctor", "--json")

    assert "ZeroDivisionError" in about(ran, "plugin broken")["what"]


def test_a_restored_backup_is_a_new_beginning_and_says_so(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    poller("once")
    copy_state(tmp_path / "poller.db", tmp_path / "copy.db", now=1_800_000_000.0)
    (tmp_path / "copy.db").replace(tmp_path / "poller.db")
    poller("once")
    found = [row for row in poller("doctor", "--json").lines if row["about"] == "state"]

    assert any("a backup of 2027-01-15T08:00:00" in row["what"] and "are void" in row["what"] for row in found)
