"""Status, doctor and `check --online` beside a daemon: by what it knows, whatever the file and this shell lack."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operations.test_status import free_port
from tests.support.command_line import Ran, Run, Shop
from tests.support.daemon import Daemon, running_daemon, wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CRM = (
    '\n[[subscriptions]]\nname = "crm"\nplugin = "http"\nurl = "https://crm.invalid"\nsecret = { env = "CRM_SECRET" }\n'
)


@pytest.fixture
def daemon(poller: Run, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon whose secret is not in this shell."""
    monkeypatch.setenv("CRM_SECRET", SECRET)
    config = shop.configure(tmp_path, listen=f"127.0.0.1:{free_port()}", more=CRM)
    base = 'plugin = "rest"\n'
    config.write_text(
        config.read_text().replace(base, f'{base}auth = {{ type = "bearer", token = {{ env = "SHOP_TOKEN" }} }}\n', 1)
    )
    monkeypatch.setenv("SHOP_TOKEN", SECRET)
    config.chmod(0o600)
    with running_daemon(config) as daemon:
        wait_for("the first sweep", lambda: poller("status", "--json").json["endpoints"][0]["last_sweep"])
        monkeypatch.delenv("CRM_SECRET")
        yield daemon


def bad(ran: Ran) -> list[str]:
    return [f"{row['about']}: {row['what']}" for row in ran.lines if row["level"] == "bad"]


def what(ran: Ran, about: str) -> list[str]:
    return [row["what"] for row in ran.lines if row["about"].startswith(about)]


def test_secrets_that_only_the_daemon_has_are_nothing_bad(poller: Run, daemon: Daemon) -> None:
    ran = poller("doctor", "--json")

    assert (ran.status, bad(ran)) == (0, [])
    assert what(ran, "configuration")[0].endswith("some secrets are available only to the daemon")
    assert what(ran, "source shop") == ["answers"]


def test_a_broken_file_is_bad_and_everything_else_is_looked_at(poller: Run, daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "poller.toml"
    file.write_text(file.read_text() + "\n[sources.shop\n")
    ran = poller("doctor", "--json")

    assert ran.status == 1
    assert [line.partition(":")[0] for line in bad(ran)] == ["configuration"]
    assert any("the daemon runs the configuration that it read at 2" in line for line in what(ran, "configuration"))
    assert what(ran, "source shop") == ["answers"]
    assert what(ran, "daemon")[0].startswith("running since 2")
    status = poller("status", "--json")
    assert (status.status, status.json["running"]) == (0, True)


def test_check_online_beside_a_daemon_fails_for_a_refused_key(
    poller: Run, daemon: Daemon, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_SECRET", SECRET)
    assert poller("check", "--online").status == 0

    shop.answer = (401, b"who are you?", "text/plain")
    refused = poller("check", "--online")
    assert refused.status == 1
    assert "401" in refused.err
    assert "; are the credentials right, and have they not expired?" in refused.err
    assert "After a new value of SHOP_TOKEN restart the daemon, which has that of its start" in refused.err
