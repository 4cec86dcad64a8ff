"""`poller once` tells what it did itself: every call, and errors of this run alone."""

from pathlib import Path

import orjson

from tests.support.command_line import Run, Shop
from tests.support.daemon import running_daemon, wait_for

CHAIN = """
[sources.shop.endpoints.orders]
path = "/orders"
items = "$.items"
pagination = { type = "cursor", next = "$.next" }
"""


def test_every_page_of_a_chain_is_a_call_that_once_counts(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path, more=CHAIN)
    for page in range(9):
        path = f"/orders?cursor={page}" if page else "/orders"
        body = {"items": [{"id": page}], "next": str(page + 1) if page < 8 else None}
        shop.answers[path] = (200, orjson.dumps(body), "application/json")
    ran = poller("once")

    assert (ran.status, ran.err.splitlines()[0]) == (0, "10 calls, 0 events")


def test_a_reload_that_is_asked_for_while_the_daemon_starts_is_done_when_it_has_started(
    shop: Shop, tmp_path: Path
) -> None:
    config = shop.configure(tmp_path)
    config.write_text(config.read_text().replace("[poller]", '[poller]\nplugins_dir = "plugins.d"'))
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "early.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\n")
    with running_daemon(config) as daemon:
        wait_for("the reload", lambda: "config.reloaded" in daemon.log)
