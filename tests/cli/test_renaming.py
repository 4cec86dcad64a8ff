"""`poller rename` and `poller forget`, beside a daemon and without one."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from poller.operations.local_socket import socket_path
from tests.support.command_line import Run, Shop
from tests.support.daemon import running_daemon, wait_for


def ask(state: Path, path: str) -> dict[str, object]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path(state))), base_url="http://x") as client:
        found: dict[str, object] = client.get(path).json()
        return found


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def rename_all(path: Path) -> None:
    """The file names the source and the subscription anew, as an editor would."""
    rewrite(path, "[sources.shop", "[sources.market")
    rewrite(path, "[budgets.shop", "[budgets.market")
    rewrite(path, 'name = "file"', 'name = "archive"')


def of_shop(found: dict[str, object]) -> list[object]:
    return [one for one in found["events"] if "market" in one["source"]]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_daemon_takes_new_names_over_and_loses_and_repeats_nothing(poller: Run, shop: Shop, tmp_path: Path) -> None:
    path, state = shop.configure(tmp_path), tmp_path / "poller.db"
    with running_daemon(path):
        wait_for("the baseline", lambda: ask(state, "/api/v1/status")["endpoints"][0]["last_sweep"])  # type: ignore[index]
        poller("pause", "file")
        shop.items = [{"id": 1, "name": "Quince"}, *shop.items[1:]]
        wait_for("the event", lambda: ask(state, "/api/v1/events?type=shop.*")["events"])
        early = poller("rename", "file", "archive")
        rewrite(path, 'name = "file"', 'name = "archive"')
        subscription = poller("rename", "file", "archive")
        rewrite(path, "[sources.shop", "[sources.market")
        rewrite(path, "[budgets.shop", "[budgets.market")
        source = poller("rename", "shop", "market", "--source", "--json")
        in_use = poller("forget", "market", "--source")
        shop.items = [*shop.items, {"id": 3, "name": "Fig"}]
        wait_for("the new event", lambda: len(of_shop(ask(state, "/api/v1/events?source=market"))) == 2)
        poller("resume", "archive")
        out = tmp_path / "out.jsonl"
        wait_for("the deliveries", lambda: out.exists() and len(out.read_text().splitlines()) == 2)
        status = ask(state, "/api/v1/status")

    assert early.status == 1
    assert "poller.toml names no subscription 'archive'" in early.err
    assert subscription.out.startswith("The subscription file is archive now, with all that is kept of it")
    assert source.json["new"] == "market"
    assert "the source 'market' is in use" in in_use.err
    assert [one["endpoint"] for one in status["endpoints"]] == ["items"]  # type: ignore[attr-defined]
    assert [one["name"] for one in status["subscriptions"]] == ["archive"]  # type: ignore[attr-defined]


def test_names_follow_without_a_daemon_and_what_is_removed_is_forgotten(
    poller: Run, shop: Shop, tmp_path: Path
) -> None:
    path = shop.configure(tmp_path)
    poller("once")
    rename_all(path)
    assert poller("rename", "file", "archive").status == 0
    assert poller("rename", "shop", "market", "--source").status == 0
    shop.items = [{"id": 1, "name": "Quince"}, *shop.items[1:]]
    assert poller("once").status == 0
    ledger = poller("ledger", "--json").lines
    events = poller("events", "--after", "0", "--json").lines
    again = poller("forget", "file")

    assert [(one["subscription"], one["events"], one["balanced"]) for one in ledger] == [("archive", 1, True)]
    assert [(one["source"], one["type"]) for one in events] == [("/sources/market", "market.items.updated")]
    assert (again.status, "nothing is stored of a subscription 'file'" in again.err) == (1, True)


@pytest.mark.parametrize("kind", ["subscription", "source"])
def test_what_was_removed_is_forgotten_on_command(poller: Run, shop: Shop, tmp_path: Path, kind: str) -> None:
    path = shop.configure(tmp_path)
    poller("once")
    head, _, _ = path.read_text().partition("[budgets.shop]" if kind == "source" else "[[subscriptions]]")
    path.write_text(head + "\n")
    name, flag = ("shop", ["--source"]) if kind == "source" else ("file", [])
    ran = poller("forget", name, *flag)
    again = poller("forget", name, *flag)

    assert (ran.status, ran.out.startswith(f"{kind.title()} {name} is forgotten")) == (0, True), ran
    assert again.status == 1
