"""What the commands say and do of a pause that a server asks for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Run, Shop
from tests.support.daemon import Daemon, running_daemon, wait_for

PAUSE = {"retry-after": "1800"}
SUBSCRIPTION_SHOP = '\n[[subscriptions]]\nname = "shop"\nplugin = "jsonl"\npath = "shop.jsonl"\n'


@pytest.fixture
def daemon(poller: Run, shop: Shop, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose API wants no call for half an hour."""
    config, shop.headers = shop.configure(tmp_path), PAUSE
    with running_daemon(config) as daemon:
        wait_for("the pause", lambda: poller("status", "--json").json["budgets"][0]["throttled_until"])
        shop.headers = {}
        yield daemon


def test_a_pause_is_shown_and_ended_beside_a_daemon(poller: Run, daemon: Daemon) -> None:
    assert "(poller resume shop ends the pause)" in poller("status").out

    ended = poller("resume", "shop")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("Budget shop makes calls again at once: its server had asked for none before 2")
    wait_for("the end", lambda: poller("status", "--json").json["budgets"][0]["throttled_until"] is None)


def test_a_pause_is_ended_where_no_daemon_runs(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.headers = PAUSE
    shop.configure(tmp_path)
    poller("once")
    shop.headers = {}

    assert poller("resume", "shop", "--json").json["budget"] == "shop"
    assert poller("status", "--json").json["budgets"][0]["throttled_until"] is None
    assert poller("once").status == 0


def test_a_subscription_of_the_same_name_is_meant_unless_the_budget_is_named(
    poller: Run, shop: Shop, tmp_path: Path
) -> None:
    shop.configure(tmp_path, more=SUBSCRIPTION_SHOP)
    assert poller("once").status == 0

    assert poller("resume", "shop").out == "Subscription shop is active.\n"
    assert poller("resume", "shop", "--budget").out.startswith("The server of budget shop had not asked for a pause")
    unknown = poller("resume", "shpo")
    assert unknown.status == 1
    assert "no subscription and no budget is named 'shpo'" in unknown.err
    assert "did you mean 'shop'?" in unknown.err


@pytest.mark.parametrize("status", [202, 206])
def test_an_answer_that_is_no_list_is_none_for_check_either(
    poller: Run, shop: Shop, tmp_path: Path, status: int
) -> None:
    shop.configure(tmp_path)
    shop.answer = (status, b"[]", "application/json")
    ran = poller("check", "--online")

    assert ran.status == 1
    assert f"shop/items: {shop.url}/items: {status} " in ran.err
