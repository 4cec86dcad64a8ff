"""`poller doctor` names what is wrong and what to do about it, beside a daemon and without one."""

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from poller.config.models import Config, EndpointConfig, SourceConfig
from poller.operations import doctor
from poller.operations.doctor import Finding, Level
from poller.operations.status import (
    BudgetStatus,
    EndpointStatus,
    PluginFailure,
    SourceStatus,
    Status,
    SubscriptionStatus,
)
from poller.options.secrets import Secret
from poller.sources.auth import Bearer
from state.sqlite.backup import copy_state
from tests.support.command_line import Ran, Run, Shop
from tests.support.daemon import running_daemon

NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
BUDGET = BudgetStatus(name="shop", limits=())
SOURCE = SourceStatus(name="shop", state="ok", last_poll=NOON, units=9)
ENDPOINT = EndpointStatus(source="shop", endpoint="items", state="ok", units=9, last_sweep=NOON, staleness_s=60.0)
SUBSCRIPTION = SubscriptionStatus(name="crm", state="active")
PROMISING = SourceConfig(
    plugin="rest",
    endpoints={"items": EndpointConfig(max_staleness=600.0)},
    options=Bearer.model_construct(type="bearer", token=Secret("env", "SHOP_TOKEN")),
)


def told(*records: Any) -> list[Finding]:
    """What is found in a status in which all is well but for what is given."""
    kinds = {"budgets": BUDGET, "sources": SOURCE, "endpoints": ENDPOINT, "subscriptions": SUBSCRIPTION}
    given = {type(record): record for record in records}
    shown = {name: (given.get(type(well), well),) for name, well in kinds.items()}
    failed = tuple(record for record in records if isinstance(record, PluginFailure))
    status = Status(time=NOON, running=True, log_id="1", last_seq=1, plugins_failed=failed, **shown)
    config = Config(path=Path("poller.toml"), sources={"shop": PROMISING})
    return [one for one in doctor.of_status(status, config) if one.level is not Level.OK]


def test_where_all_is_well_nothing_is_to_do():
    assert told() == []


@pytest.mark.parametrize(
    ("record", "level", "what", "hint"),
    [
        (replace(BUDGET, throttled_until=NOON), "warn", "no call before 2027-01-15T12:00:00.000Z", "resume"),
        (replace(BUDGET, broken_promise="asks too much"), "bad", "asks too much", "poller check"),
        (replace(SOURCE, state="failing", reason="401"), "bad", "failing: 401", "check --online"),
        (replace(SOURCE, state="blocked", reason="401"), "bad", "blocked: 401", "new value of SHOP_TOKEN restart the"),
        (replace(ENDPOINT, state="failing", reason="3 of 9"), "bad", "failing: 3 of 9", "check --online"),
        (replace(ENDPOINT, state="uncertain", last_sweep=None), "warn", "not read completely", "poller run"),
        (replace(ENDPOINT, state="uncertain", reason="page 2: odd"), "warn", "page 2: odd", None),
        (replace(ENDPOINT, staleness_s=1200.0), "bad", "stale for 20m, but max_staleness is 10m", "daemon running"),
        (replace(ENDPOINT, ignore_candidates=("/hits",)), "warn", "/hits changes at every poll", 'ignore = ["/hits"]'),
        (replace(SUBSCRIPTION, state="failing", last_error="503"), "bad", "failing: 503", "poller deliveries"),
        (replace(SUBSCRIPTION, state="disabled", reason="410"), "bad", "disabled: 410", "poller resume crm"),
        (replace(SUBSCRIPTION, state="paused", lag=7), "warn", "7 events waiting", "poller resume crm"),
        (replace(SUBSCRIPTION, oldest_waiting_s=7200.0), "warn", "waiting for 2h", "--state pending"),
        (
            replace(SUBSCRIPTION, retrying=2, next_attempt=NOON, retry_status="503"),
            "warn",
            "2 deliveries have failed (503) and will be tried again, the next one at 2027-01-15T12:00:00.000Z",
            "poller redeliver --subscription crm --state pending",
        ),
        (replace(SUBSCRIPTION, dead=4), "warn", "4 dead letters", "poller redeliver --subscription crm"),
        (replace(SUBSCRIPTION, filter_errors=2, last_error="no key"), "warn", "no key", "fix `where`"),
        (PluginFailure(name="x", origin="x.py", error="boom"), "bad", "boom (x.py)", "poller plugins"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(record: Any, level: str, what: str, hint: str | None) -> None:
    (found,) = told(record)

    assert found.level == level
    assert what in found.what
    assert (hint is None) if found.hint is None else (hint is not None and hint in found.hint)


def test_a_source_of_an_earlier_configuration_is_told_of_all_the_same():
    old = replace(ENDPOINT, source="old", staleness_s=1e6, state="uncertain", last_sweep=None)

    assert [found.what for found in told(old)] == ["not read completely yet"]


def test_a_subscription_that_the_configuration_switches_off_is_no_news():
    assert told(replace(SUBSCRIPTION, state="disabled", reason="enabled = false")) == []


@pytest.mark.parametrize(("free", "level"), [(50e6, "bad"), (500e6, "warn"), (4e9, "warn"), (9e9, "ok")])
def test_the_disk_must_have_room_for_another_state(free: float, level: str) -> None:
    assert doctor.of_space(int(free), 5_000_000_000).level == level


def test_little_room_is_not_told_as_none() -> None:
    assert doctor.of_space(31_500_000, 200_000).what == "31.5 MB free, the state has 0.2 MB"


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
    assert "poller.db does not exist yet\n     -> poller once, or poller run" in ran.out


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


@pytest.mark.skipif(os.geteuid() != 0, reason="files can be given to another user by root alone")
def test_a_state_that_its_service_cannot_write_is_bad(poller: Run, shop: Shop, tmp_path: Path) -> None:
    """Root put a backup in its place: root itself can write it all the same."""
    shop.configure(tmp_path)
    poller("once")
    folder = tmp_path / "service"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    copy_state(tmp_path / "poller.db", folder / "poller.db", now=0.0)
    config = (tmp_path / "poller.toml").read_text()
    (tmp_path / "poller.toml").write_text(config.replace("[poller]", '[poller]\nstate = "service/poller.db"'))
    ran = poller("doctor", "--json")
    assert ran.status == 1
    found = next(one for one in ran.lines if one["about"] == "state" and one["level"] == "bad")
    assert "cannot write it" in found["what"]
    assert found["hint"].startswith("chown --reference=")
    os.chown(folder / "poller.db", 12345, 12345)
    ran = poller("doctor", "--json")
    assert not [one for one in ran.lines if one["about"] == "state" and one["level"] == "bad"]


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
    assert "ZeroDivisionError" in about(poller("doctor", "--json"), "plugin broken")["what"]
    with running_daemon(config):  # which it fails in as well
        rows = poller("doctor", "--json").lines
    assert [row["about"] for row in rows].count("plugin broken") == 1


def test_a_restored_backup_is_a_new_beginning_and_says_so(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    poller("once")
    copy_state(tmp_path / "poller.db", tmp_path / "copy.db", now=1_800_000_000.0)
    (tmp_path / "copy.db").replace(tmp_path / "poller.db")
    poller("once")
    found = [row for row in poller("doctor", "--json").lines if row["about"] == "state"]

    assert any("a backup of 2027-01-15T08:00:00" in row["what"] and "are void" in row["what"] for row in found)


@pytest.mark.parametrize("state", ["paused", "disabled"])
def test_what_has_failed_before_a_subscription_was_stopped_waits_for_its_resume(state):
    stopped = replace(SUBSCRIPTION, state=state, retrying=1, retry_status="410", next_attempt=NOON)

    assert stopped.retry_text == "1 delivery has failed (410) and will be tried again after `poller resume crm`"
