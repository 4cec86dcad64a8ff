"""Every statement of a poll and of a delivery fails once: nothing is lost, told twice or out of order, nothing ends."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from poller.clock import SystemClock
from tests.support.faulty_sqlite import CODES, faulty_sqlite
from tests.support.living import CONFIG, World, living, log_of, swept, until, world

ALL = "POLLER_FAULTS" in os.environ  # each statement with each error; else with one of them
MOMENT = 0.02  # seconds, the longest wait


class Hasty(SystemClock):
    """A clock on which no outage is waited out for long."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, MOMENT))


def _is_told(upstream: World, number: int, size: int) -> bool:
    return size in upstream.sizes(number)


async def test_whichever_statement_fails_the_change_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, config = tmp_path / "poller.db", tmp_path / "poller.toml"
    with faulty_sqlite(monkeypatch) as faults:
        async with world() as upstream:
            config.write_text(CONFIG.format(url=upstream.url, state=state, listen=""))
            async with living(config, clock=Hasty()) as daemon:
                await until("the baseline", lambda: swept(daemon))
                faults.seen.clear()
                for number in (1, 2):
                    upstream.edit(number, 1)
                    await until("an event without a fault", lambda number=number: upstream.sizes(number))
                upstream.refusals = 1
                upstream.edit(3, 1)
                await until("an event after a refusal", lambda: upstream.sizes(3))
                errors, failed, size = cycle(CODES), [], 1
                chosen = [(sql, next(errors)) for sql in faults.statements]
                for sql, error in [(s, e) for s, _ in chosen for e in CODES] if ALL else chosen:
                    size, faults.armed = size + 1, (sql, error)
                    number = 4 + size % 17
                    upstream.edit(number, size)
                    await until(f"the change after {error} at: {sql}", partial(_is_told, upstream, number, size))
                    began = time.monotonic()
                    while faults.armed is not None and time.monotonic() - began < 1.0:  # of what is not done each time
                        await asyncio.sleep(MOMENT)
                    failed += [sql] if faults.armed is None else []
                faults.armed = None
                await until("the end of the last outage", lambda: daemon.app.write.outage is None)
    told = [event["id"] for event in upstream.told]
    assert len(failed) >= 30
    assert {event.id for event in log_of(state) if event.source != "/poller"} == set(told)
    for number, sizes in upstream.edits.items():
        heard = list(dict.fromkeys(upstream.sizes(number)))  # what was answered and not recorded leaves again
        assert heard == sizes
