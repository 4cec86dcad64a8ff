"""Digests by crontab on the days on which clocks are changed: each day has one, and none is due before it was left."""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from poller.app import _next_digest
from poller.config.models import Config, Settings

CONFIG = Config(path=Path("poller.toml"), poller=Settings(timezone="Europe/Berlin"))


@pytest.mark.parametrize("crontab", ["30 2 * * *", "0 3 * * *", "59 1 * * *"])
@pytest.mark.parametrize("begin", [datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)])
def test_each_day_has_its_digest_when_clocks_are_changed(crontab: str, begin: datetime) -> None:
    at, due = begin.timestamp(), []
    for _ in range(6):
        later = _next_digest(crontab, CONFIG, at + 1)
        assert later > at
        at = later
        due.append(at)

    gaps = [(after - before) / 3600 for before, after in pairwise(due)]
    assert all(1 <= gap <= 26 for gap in gaps)
    shown = [datetime.fromtimestamp(one, CONFIG.poller.zone) for one in due]
    assert len({one.date() for one in shown}) >= 5
    assert sum(f"{one.minute} {one.hour} * * *" == crontab for one in shown) >= 5
