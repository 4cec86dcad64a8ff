"""Commands as users type them: with and without a daemon, and where something is wrong."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poller.cli import invoke
from poller.cli.context import CliContext
from poller.cli.daemon_client import Unanswered
from poller.cli.events import _follow
from poller.cli.view import EventFilter, Page
from state.records import Event
from tests.support.bench import make_event
from tests.support.command_line import Ran, Run, Shop, open_shop
from tests.support.daemon import Daemon, running_daemon, wait_for

CHANGED = [{"id": 1, "name": "Quince"}, {"id": 3, "name": "Fig"}]
EVENT = {"specversion": "1.0", "source": "/sources/shop", "type": "shop.items.updated", "subject": "items/1"}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of a first sweep and of one change, one creation and one deletion that were told."""
    folder = tmp_path_factory.mktemp("history")
    with open_shop() as shop:
        words = ["once", "--config", str(shop.configure(folder))]
        invoke(words)
        shop.items[:] = CHANGED
        for _ in range(3):  # without an item's URL, two complete sweeps without it confirm a deletion
            invoke(words)
    return folder


@pytest.fixture
def told(history: Path, shop: Shop, poller: Run, tmp_path: Path) -> Shop:
    """The shop, and Poller's folder, after that."""
    for name in ("poller.db", "out.jsonl"):
        shutil.copy2(history / name, tmp_path / name)
    shop.configure(tmp_path)
    shop.items[:] = [dict(item) for item in CHANGED]
    return shop


@pytest.fixture
def daemon(told: Shop, tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path / "poller.toml") as daemon:
        yield daemon


def delivered(folder: Path) -> int:
    out = folder / "out.jsonl"
    return len(out.read_text().splitlines()) if out.exists() else 0


# Looking.


def test_init_writes_what_check_accepts(poller: Run) -> None:
    for source in ("nutcache", "rest"):
        assert poller("init", "--source", source, "--force").status == 0
        assert poller("check").status == 0


def test_what_init_writes_nobody_else_reads(poller: Run, tmp_path: Path) -> None:
    poller("init")
    assert (tmp_path / "poller.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="files can be given to another group by root alone")
def test_what_root_writes_for_a_service_the_group_of_its_folder_reads(poller: Run, tmp_path: Path) -> None:
    """As the head of the unit says: install -d -m 750 -g poller /etc/poller."""
    folder = tmp_path / "etc"
    folder.mkdir()
    os.chown(folder, 0, 12345)
    folder.chmod(0o750)
    poller("init", "--config", str(folder / "poller.toml"))
    kept = (folder / "poller.toml").stat()
    assert (kept.st_mode & 0o777, kept.st_uid, kept.st_gid) == (0o640, 0, 12345)


def test_init_overwrites_nothing_unasked(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "poller.toml").write_text("mine")
    ran = poller("init")

    assert (ran.status, (tmp_path / "poller.toml").read_text()) == (1, "mine")
    assert ran.err == "Error: poller.toml already exists; poller init --force overwrites it\n"


def test_check_online_beside_a_daemon_lets_it_ask_a_refused_source_at_once(
    poller: Run, shop: Shop, tmp_path: Path
) -> None:
    shop.answer = (401, b"{}", "application/json")
    with running_daemon(shop.configure(tmp_path)) as daemon:
        wait_for("the refusal", lambda: "poll.failed" in daemon.log)
        shop.answer = None

        assert poller("check", "--online").status == 0
        wait_for("the first sweep", lambda: poller("status", "--json").json["endpoints"][0]["last_sweep"])


def test_check_online_says_what_the_key_may_see(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    ran = poller("check", "--online")

    assert ran.status == 0
    assert ran.out.splitlines()[-1] == (
        "endpoint shop/items: 2 objects on its first page, no next page, such as 1 'Apple'"
    )


def test_once_tells_changes_after_a_silent_baseline(told: Shop, tmp_path: Path) -> None:
    assert delivered(tmp_path) == 3


def test_once_forgets_what_is_older_than_the_retention(poller: Run, told: Shop, tmp_path: Path) -> None:
    config = tmp_path / "poller.toml"
    config.write_text(config.read_text().replace("[poller]", '[poller]\nretention = "1h"'))
    poller("once")
    assert len(poller("events", "--json").lines) == 3
    for _ in range(2):  # the first notes what is there
        with sqlite3.connect(tmp_path / "poller.db") as conn:
            looked = "json_set(value, '$.looked_at', 0.0)"  # long ago
            conn.execute(f"UPDATE learned SET value = cast({looked} AS BLOB) WHERE key = 'log age'")
        poller("once")
    assert poller("events", "--json").out == ""
    told.items[0]["name"] = "Medlar"
    poller("once")
    assert [line["data"]["version"] for line in poller("events", "--json").lines] == [2]


def test_poll_sweeps_the_one_endpoint(poller: Run, told: Shop, tmp_path: Path) -> None:
    told.items[0]["name"] = "Medlar"

    assert poller("poll", "items").status == 0
    assert poller("poll", "shop/items").status == 0
    assert delivered(tmp_path) == 4


def test_status_as_json_has_what_the_design_names(poller: Run, told: Shop) -> None:
    status = poller("status", "--json").json

    assert status["last_seq"] == 3
    assert {"rate", "used", "remaining"} <= status["budgets"][0]["limits"][0].keys()
    assert "throttled_until" in status["budgets"][0]
    endpoint = status["endpoints"][0]
    assert {"source", "endpoint", "units", "last_sweep", "staleness_s", "expected_delay_s"} <= endpoint.keys()
    assert endpoint["objects"] == 2
    file = status["subscriptions"][0]
    assert (file["name"], file["state"], file["cursor"], file["lag"]) == ("file", "active", 3, 0)
    assert (file["pending"], file["dead"]) == (0, 0)


def test_status_says_what_confirms_that_a_list_is_rightly_empty(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    shop.items[:] = [{"id": 1}, {"id": 2}]
    poller("once")
    shop.items.clear()
    poller("once")
    assert "where the list is rightly empty: `poller rebaseline shop/items`" in poller("status").out

    poller("rebaseline", "shop/items")
    poller("once")
    assert "may be gone" not in poller("status").out


@pytest.mark.parametrize("word", ["1000/s", "shop/items", "file", "not running; 3 events"])
def test_status_as_text_names_everything(poller: Run, told: Shop, word: str) -> None:
    assert word in poller("status").out


def test_events_are_cloudevents_one_a_line(poller: Run, told: Shop) -> None:
    lines = poller("events", "--json").lines

    assert lines[0].items() >= EVENT.items()
    assert lines[0]["data"]["changes"] == [{"path": "/name", "before": "Apple", "after": "Quince"}]
    assert [int(line["sequence"]) for line in lines] == [1, 2, 3]


@pytest.mark.parametrize(
    ("words", "seqs"),
    [
        (("--after", "1"), [2, 3]),
        (("--after", "1", "--limit", "1"), [2]),
        (("--limit", "2"), [2, 3]),
        (("--type", "*.deleted"), [3]),
        (("--type", "shop.items.*", "--after", "2"), [3]),
        (("--source", "shop", "--limit", "1"), [3]),
        (("--source", "other"), []),
        (("--after", "99"), []),
        (("--after", "0", "--limit", "2", "--follow"), [1, 2]),
    ],
)
def test_events_can_be_chosen(poller: Run, told: Shop, words: tuple[str, ...], seqs: list[int]) -> None:
    assert [int(line["sequence"]) for line in poller("events", "--json", *words).lines] == seqs


def test_the_log_of_a_state_without_events_is_empty(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)
    poller("once")

    assert poller("events") == Ran(status=0, out="", err="no event yet\n")


def test_deliveries_are_listed_and_shown_with_their_attempts(poller: Run, told: Shop) -> None:
    lines = poller("deliveries", "--json").lines
    shown = poller("deliveries", "show", lines[0]["id"], "--json").json

    assert [line["state"] for line in lines] == ["delivered"] * 3
    assert shown["event_subject"] == lines[0]["event_subject"]
    assert [one["number"] for one in shown["log"]] == [1]
    assert "delivered, 1 attempt," in poller("deliveries", "show", lines[0]["id"]).out


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("--state", "pending,dead"), 0),
        (("--state", "delivered"), 3),
        (("--subscription", "file", "--limit", "2"), 2),
    ],
)
def test_deliveries_can_be_chosen(poller: Run, told: Shop, words: tuple[str, ...], count: int) -> None:
    assert len(poller("deliveries", "--json", *words).lines) == count


def test_show_gives_an_object_and_its_history(poller: Run, told: Shop) -> None:
    shown = poller("show", "items", "1", "--json").json

    assert (shown["version"], shown["object"]["name"]) == (1, "Quince")
    assert [event["type"] for event in shown["history"]] == ["shop.items.updated"]
    assert "Quince" in poller("show", "shop/items", "1").out


def test_plugins_name_what_they_bring(poller: Run, told: Shop) -> None:
    lines = poller("plugins", "--json").lines

    assert {"console", "email", "http", "jsonl", "nutcache", "rest", "slack"} <= {line["name"] for line in lines}
    assert {line["state"] for line in lines} == {"loaded"}


def test_the_books_balance(poller: Run, told: Shop) -> None:
    (books,) = poller("ledger", "--json").lines

    assert (books["events"], books["delivered"], books["balanced"]) == (3, 3, True)


def test_preview_shows_what_would_be_sent(poller: Run, told: Shop) -> None:
    assert "Quince" in poller("preview", "file", "--event", 1).out


# Changing, without a daemon and beside one.


def test_redeliver_sends_again_under_the_same_id(poller: Run, told: Shop, tmp_path: Path) -> None:
    first = poller("deliveries", "--json").lines[-1]

    assert poller("redeliver", first["id"]).status == 0
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert first["event_id"] in lines[-1]


def test_replay_sends_again_what_follows_a_number(poller: Run, told: Shop, tmp_path: Path) -> None:
    assert poller("replay", "file", "--after", 1).status == 0
    poller("once")

    assert delivered(tmp_path) == 5


def test_ping_sends_a_test_event(poller: Run, told: Shop, tmp_path: Path) -> None:
    assert poller("ping", "file").status == 0
    assert "poller.ping" in (tmp_path / "out.jsonl").read_text()


def test_ping_of_a_paused_subscription_says_what_it_waits_for(poller: Run, told: Shop, tmp_path: Path) -> None:
    poller("pause", "file")
    ran = poller("ping", "file")

    assert ran.status == 1
    assert ran.out.startswith("Subscription file is paused: its test, delivery ")
    assert ran.out.endswith(" waits for `poller resume file`.\n")


def test_what_is_paused_is_told_once_it_is_resumed(poller: Run, told: Shop, tmp_path: Path) -> None:
    poller("pause", "file")
    told.items[0]["name"] = "Medlar"
    poller("once")
    assert delivered(tmp_path) == 3
    assert poller("status", "--json").json["subscriptions"][0]["state"] == "paused"

    poller("resume", "file")
    poller("once")
    assert delivered(tmp_path) == 4


def test_a_held_endpoint_records_nothing_until_it_is_released(poller: Run, told: Shop) -> None:
    poller("hold", "items")
    told.items[0]["name"] = "Medlar"
    swept = poller("poll", "items")
    assert "shop/items: held, on command: nothing is recorded until `poller release shop/items`" in swept.err
    assert "check --online" not in swept.err
    status = poller("status", "--json").json
    assert status["endpoints"][0]["held"] is not None
    assert [event["type"] for event in poller("events", "--after", 3, "--json").lines] == ["poller.endpoint.held"]

    assert poller("release", "items", "--emit").status == 0
    assert "aseline" not in poller("once").err
    types = [event["type"] for event in poller("events", "--after", 4, "--json").lines]
    assert types == ["poller.endpoint.released", "shop.items.updated"]


def test_a_rebaseline_takes_what_is_there_silently(poller: Run, told: Shop) -> None:
    assert poller("rebaseline", "shop/items").status == 0
    told.items[0]["name"] = "Medlar"
    assert "Baseline of 1 endpoint complete: changes are reported from now on." in poller("once").err

    types = [event["type"] for event in poller("events", "--after", 3, "--json").lines]
    assert types == ["poller.endpoint.rebaselined"]


def test_beside_a_daemon_every_look_works(poller: Run, daemon: Daemon) -> None:
    assert poller("status", "--json").json["running"] is True
    for words in (
        "status",
        "events",
        "deliveries",
        "show items 1",
        "plugins",
        "ledger",
        "plan",
        "preview file",
        "check",
    ):
        ran = poller(*words.split())
        assert (ran.status, ran.err) == (0, ""), words


def test_beside_a_daemon_it_does_what_is_asked(poller: Run, daemon: Daemon) -> None:
    for words in ("ping file", "pause file", "resume file", "hold items", "release items --accept", "rebaseline items"):
        ran = poller(*words.split())
        assert (ran.status, ran.err) == (0, ""), words
        assert re.fullmatch(r"[A-Za-z].* \S+\.?\n", ran.out), words  # a sentence


def test_beside_a_daemon_redelivery_reaches_the_sink(poller: Run, daemon: Daemon, tmp_path: Path) -> None:
    before = delivered(tmp_path)
    poller("redeliver", "--subscription", "file", "--state", "delivered")

    wait_for("the copies", lambda: delivered(tmp_path) == before + 3)


def test_events_are_followed_as_they_come(told: Shop, daemon: Daemon, tmp_path: Path) -> None:
    words = ["events", "--follow", "--after", "3", "--limit", "1", "--json"]
    with subprocess.Popen([sys.executable, "-m", "poller.cli", *words], cwd=tmp_path, stdout=subprocess.PIPE) as follow:
        told.items[0]["name"] = "Medlar"
        out, _ = follow.communicate(timeout=60)

    assert b'"after":"Medlar"' in out
    assert follow.returncode == 0


def test_events_are_followed_over_a_restart_of_the_daemon_and_none_is_shown_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = [Event(**vars(make_event(number)), seq=number) for number in range(1, 6)]
    lost = [False, True, True, False, False]

    class View:
        def events(self, wanted: EventFilter, *, limit: int) -> Page:
            if lost.pop(0):
                raise Unanswered("the daemon does not answer")
            after = int(wanted.after or 0)
            found = log[after : after + 2]
            return Page(events=found, next=found[-1].seq if found else after)

    monkeypatch.setattr("poller.cli.events._viewed", lambda *_: contextlib.nullcontext(View()))
    monkeypatch.setattr("poller.cli.events.time.sleep", lambda _: None)
    shown: list[int] = []
    _follow(CliContext(None), EventFilter(), 0, 5, lambda event: shown.append(event.seq))

    assert shown == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err == "the daemon does not answer; waiting until it can be read again\n"


def test_ctrl_c_ends_what_follows_without_a_word(told: Shop, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "poller.cli", "events", "--follow", "--json"]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests may run where it is ignored
    ) as follow:
        assert follow.stdout is not None
        follow.stdout.readline()  # it has begun
        follow.send_signal(signal.SIGINT)
        _, err = follow.communicate(timeout=60)

    assert (follow.returncode, err.strip()) == (130, b"")


# Where something is wrong: one line that says what, where and what to do, and never a traceback.


def assert_told(ran: Ran, what: str, hint: str, status: int = 1) -> None:
    error = ran.err.splitlines()[-1]
    assert error.startswith("Error: "), ran.err
    assert what in error
    assert hint in error
    assert "Traceback" not in ran.err
    assert ran.status == status


NEEDING = ["check", "run", "once", "poll items", "status", "plan", "events", "deliveries", "show items 1", "ledger"]
NEEDING += ["preview file", "redeliver 1", "replay file --after 1", "ping file", "pause file", "hold items", "backup x"]


@pytest.mark.parametrize("words", NEEDING)
def test_without_a_configuration_the_way_to_one_is_told(poller: Run, words: str) -> None:
    assert_told(poller(*words.split()), "no configuration found", "poller init", status=2)


@pytest.mark.parametrize("words", [words for words in NEEDING if words != "check"])
def test_a_file_that_is_no_state_is_told(poller: Run, shop: Shop, tmp_path: Path, words: str) -> None:
    shop.configure(tmp_path)
    (tmp_path / "poller.db").write_bytes(b"something else" * 100)

    assert_told(poller(*words.split()), "poller.db", "")


@pytest.mark.parametrize("words", [words for words in NEEDING if words not in ("check", "backup x")])
def test_a_state_of_a_later_version_is_told(poller: Run, shop: Shop, tmp_path: Path, words: str) -> None:
    shop.configure(tmp_path)
    poller("once")
    with sqlite3.connect(tmp_path / "poller.db") as db:
        db.execute("INSERT INTO _sqlite_migrations VALUES (NULL, 'log', 'add_planets', '')")
    db.close()

    assert_told(poller(*words.split()), "later version of Poller (add_planets)", "backup")


def test_what_needs_the_state_alone_says_who_holds_it(poller: Run, daemon: Daemon) -> None:
    for words in ("once", "poll items", "run"):
        assert_told(poller(*words.split()), "a running poller (process ", "beside it")


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        ("poll itmes", "no endpoint is named 'itmes'", "did you mean 'items'?"),
        ("show items 99", "no object '99'", "subject"),
        ("deliveries show 99", "no delivery 99", "poller deliveries"),
        ("deliveries --subscription fiel", "no subscription is named 'fiel'", "'file'"),
        ("redeliver 99", "no delivery 99", "poller deliveries"),
        ("ping fiel", "no subscription is named 'fiel'", "'file'"),
        ("replay file --after yesterday", "neither a number nor a time", ""),
        ("release items", "not held", "poller status"),
        ("preview file --event 99", "no event 99", "poller events"),
    ],
)
def test_what_does_not_exist_is_told(poller: Run, told: Shop, words: str, what: str, hint: str) -> None:
    assert_told(poller(*words.split()), what, hint)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("deliveries --state lost", "'lost' is not a state"),
        ("redeliver", "name deliveries"),
        ("release items --accept --emit", "exclude each other"),
        ("events --limit 0", "0 is not in the range"),
        ("once --wait soon", "a duration is a number and its unit"),
    ],
)
def test_wrong_usage_is_told(poller: Run, told: Shop, words: str, what: str) -> None:
    assert_told(poller(*words.split()), what, "--help", status=2)


# Not even root can make a file in /sys.


@pytest.mark.parametrize("words", ["once", "run", "hold items"])
def test_a_folder_that_cannot_be_written_is_told(poller: Run, shop: Shop, tmp_path: Path, words: str) -> None:
    config = shop.configure(tmp_path)
    config.write_text(config.read_text().replace("[poller]", '[poller]\nstate = "/sys/poller.db"'))

    assert_told(poller(*words.split()), "/sys/poller.db", "permissions")


def test_a_configuration_that_cannot_be_written_is_told(poller: Run) -> None:
    assert_told(poller("init", "--config", "/sys/poller.toml"), "/sys/poller.toml: Permission denied", "permissions")


def test_an_address_in_use_is_told(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path, listen=shop.url.removeprefix("http://"))

    assert_told(poller("run"), "cannot listen on 127.0.0.1:", "choose another port")


def test_a_pipe_that_is_closed_is_no_complaint(told: Shop, tmp_path: Path) -> None:
    command = f"{sys.executable} -m poller.cli events --json --limit 1000 | true"
    ran = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, timeout=60)

    assert ran.stderr == b""


# JSON, and the way back from a backup.


def test_a_sweep_is_summed_up_as_json(told: Shop, poller: Run) -> None:
    assert poller("once", "--json").json == {"calls": 1, "events": 0, "pending": 0, "baselines": 0, "not_seen": []}


def test_what_check_finds_is_one_document(told: Shop, poller: Run, tmp_path: Path) -> None:
    found = poller("check", "--online", "--json")
    assert (found.status, found.json["valid"], found.json["endpoints"][0]["endpoint"]) == (0, True, "shop/items")
    (tmp_path / "poller.toml").write_text("[pollr]")
    refused = poller("check", "--json")
    assert (refused.status, refused.json["valid"], refused.json["problems"][0]["key"]) == (2, False, "pollr")


def test_a_preview_is_one_document(told: Shop, poller: Run) -> None:
    assert poller("preview", "file", "--json").json["subscription"] == "file"


def test_a_delivery_shows_its_request(told: Shop, poller: Run) -> None:
    number = poller("deliveries", "--json", "--limit", "1").json["id"]
    shown = poller("deliveries", "show", f"{number}", "--request", "--json").json
    assert shown["event_subject"] in shown["request"]
    assert shown["request"] in poller("deliveries", "show", f"{number}", "--request").out


def test_a_backup_is_restored_and_what_was_there_is_kept(told: Shop, poller: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    events = poller("backup", str(copy), "--json").json["events"]
    told.items.append({"id": 9, "name": "Plum"})
    poller("once")
    assert poller("status", "--json").json["last_seq"] > events

    done = poller("restore", str(copy), "--json").json

    assert (done["events"], Path(done["kept"]).exists()) == (events, True)
    assert poller("status", "--json").json["last_seq"] == events
    assert poller("once", "--json").json["events"] == 1  # what was created after the backup is found again


def test_a_backup_makes_the_folder_that_it_is_written_into(told: Shop, poller: Run, tmp_path: Path) -> None:
    folder = tmp_path / "backups" / "poller"
    made = Path(poller("backup", f"{folder}/", "--json").json["path"])

    assert made.parent == folder
    assert made.match("poller-*.db")
    refused = poller("backup", "/proc/backups/")
    assert (refused.status, refused.err.splitlines()[0][:44]) == (1, "Error: /proc/backups: this folder cannot be ")


def test_only_a_slash_or_a_folder_that_exists_says_that_a_backup_goes_into_a_folder(
    told: Shop, poller: Run, tmp_path: Path
) -> None:
    (tmp_path / "v2.0").mkdir()
    wanted = {"poller-2026-11-26": "file", "copy.2026": "file", "new.d/": "folder", "v2.0": "folder"}
    made = {name: Path(poller("backup", f"{tmp_path}/{name}", "--json").json["path"]) for name in wanted}

    assert {name: "folder" if one.parent.name == name.strip("/") else "file" for name, one in made.items()} == wanted
    again = poller("backup", f"{tmp_path}/copy.2026")
    assert again.err.splitlines()[-1].endswith(f"named after the time: {tmp_path}/copy.2026-copies/")


def test_nothing_is_restored_under_a_daemon_nor_from_what_is_no_backup(
    daemon: Daemon, poller: Run, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    poller("backup", str(copy))
    assert "holds this state" in poller("restore", str(copy)).err
    assert poller("restore", str(tmp_path / "none.db")).status == 1


def test_an_option_that_is_wrong_is_named_and_not_a_line_of_the_file(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path)

    assert poller("run", "--listen", "80").err.startswith(
        "Error: poller.toml: --listen: listen is HOST:PORT, for example"
    )


def test_a_folder_is_no_configuration_but_may_have_one(poller: Run, tmp_path: Path) -> None:
    ran = poller("--config", tmp_path, "status")

    assert (
        ran.err
        == f"Error: {tmp_path}: this is a folder, not a file; name a file in it: --config {tmp_path / 'poller.toml'}\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("redeliver", "abc"), "'abc' is not a whole number"),
        (("events", "--limit", "few"), "'few' is not a whole number"),
        (("simulate", "--days", "few"), "'few' is not a number"),
    ],
)
def test_what_is_no_number_is_said_in_plain_words(poller: Run, words: tuple[str, ...], said: str) -> None:
    assert said in poller(*words).err
