"""What one worker does when it loses what it holds, at every moment at which that can happen."""

import asyncio
import math
import time
from functools import partial

import psycopg
import pytest

from poller.clock import VirtualClock
from poller.daemon.workers import BEAT, IN_USE, MOMENT
from state.errors import StateError
from tests.support.one_worker import one_worker


async def test_a_budget_that_is_lost_while_it_is_opened_is_taken_and_opened_again(tmp_path, backend):
    async with one_worker(tmp_path, backend.url) as w:
        with psycopg.connect(backend.url) as other:
            other.execute("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")  # the opening has to wait here
            await w.beat()
            epoch = w.leases["budget/key0"].epoch
            w.sql("UPDATE workers SET until = 0")  # it is declared dead
            await w.workers.renew()
            assert w.app.engine.loops == {}
        await w.settled()

        assert w.leases["budget/key0"].epoch > epoch
        assert w.woken == ["key0"]
        w.workers.raise_failures()


@pytest.mark.parametrize("name", ["budget/key0", "subscription/sub0"])
async def test_what_seemed_to_have_run_out_here_alone_is_taken_again(tmp_path, backend, name):
    """A renewal that came just in time for the database, and too late for the worker's own sight."""
    async with one_worker(tmp_path, backend.url) as w:
        await w.settled()
        epoch = w.leases[name].epoch
        w.tenure.until = -math.inf
        if name.startswith("budget"):
            poll_loop = w.app.engine.loops["key0"]
            await poll_loop.wake()
            await w.until(lambda: poll_loop.tasks.is_over)
        else:
            w.sql(EVENT)
            w.app.deliverer.log_grew()
            await w.until(lambda: not w.delivered)
        await w.workers.renew()
        assert w.leases[name].epoch == epoch

        await w.settled()
        assert w.leases[name].epoch > epoch


EVENT = (
    "WITH given AS (UPDATE log SET last = last + 1 RETURNING last) "
    "INSERT INTO events SELECT last, 'event ' || last, '/sources/key0', 'shop.items.created', 'items/1', 0, NULL, "
    """'{"object":{"id":1},"version":1}'::bytea FROM given"""
)


async def test_a_reload_ends_no_delivery_for_good(tmp_path, backend):
    async with one_worker(tmp_path, backend.url) as w:
        await w.settled()
        await w.app.reconfigure(w.app.config)
        assert w.delivered == set()
        await w.beat()
        await w.settled()

        assert w.delivered == {"sub0"}


async def test_one_that_cannot_take_its_part_ends_rather_than_keep_others_out(tmp_path, backend):
    async with one_worker(tmp_path, backend.url) as w:
        w.sql("ALTER TABLE units ADD CHECK (key = '')")  # as no version of the program does
        await w.beat()
        with pytest.raises(psycopg.Error):
            await w.until(partial(_failed, w))


def _failed(w):
    w.workers.raise_failures()
    return False


async def test_calls_count_in_full_however_long_the_database_took_to_tell_of_them(tmp_path, backend):
    clock = VirtualClock()
    async with one_worker(tmp_path, backend.url, clock=clock) as w:
        await w.workers.renew()
        began = time.monotonic()  # of the database's time, which goes on beside the virtual one
        w.sql(
            "INSERT INTO calls (budget, sent_at, answered_at) SELECT 'key0', now, now FROM "
            "(SELECT extract(epoch FROM clock_timestamp())::float8 AS now FROM generate_series(1, 25)) calls"
        )
        with psycopg.connect(backend.url) as other:
            other.execute("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")
            await w.workers.share()
            await asyncio.sleep(0.01)
            clock.advance(6.0)
        await w.until(lambda: w.woken)

        wait = w.app.engine.loops["key0"].budget.wait(clock.steady())
        assert wait > 9.0 - (time.monotonic() - began)


NOW = "extract(epoch FROM clock_timestamp())"


async def test_the_next_look_is_when_the_first_lease_of_another_worker_ends(tmp_path, backend):
    async with one_worker(tmp_path, backend.url) as w:
        await w.settled()
        w.sql(f"INSERT INTO workers (name, until, since) VALUES ('far', {NOW} + 60, 0)")
        assert await w.workers.share() == BEAT

        w.sql(f"INSERT INTO workers (name, until, since) VALUES ('near', {NOW} + 0.3, 0)")
        assert MOMENT <= await w.workers.share() <= 0.3 + MOMENT


async def test_a_lease_that_a_stopped_worker_still_uses_keeps_no_other_one_from_being_taken(tmp_path, backend):
    async with one_worker(tmp_path, backend.url, keys=2) as w:
        w.sql("INSERT INTO leases VALUES ('budget/key0', 'stopped', 1), ('budget/key1', 'stopped', 1)")
        with psycopg.connect(backend.url) as stopped:
            stopped.execute("SELECT FROM leases WHERE name = 'budget/key0' FOR KEY SHARE")  # as each of its steps
            await w.workers.renew()
            assert await w.workers.share() <= IN_USE
            assert w.leases.keys() == {"budget/key1", "subscription/sub0"}
        await w.settled()

        assert w.leases["budget/key0"].epoch == 2


async def test_leases_are_taken_while_every_other_step_waits(tmp_path, backend):
    async with one_worker(tmp_path, backend.url) as w:
        with psycopg.connect(backend.url) as stopped:
            stopped.execute("LOCK TABLE learned IN ACCESS EXCLUSIVE MODE")
            waiting = [asyncio.create_task(w.app.write(w.app.store.learned.load, "any")) for _ in range(8)]
            await asyncio.sleep(0)
            await w.workers.renew()
            w.sql("INSERT INTO subscriptions (name, state, cursor) VALUES ('sub0', 'active', 0)")
            w.workers._registered = w.app.config.digest
            sharing = asyncio.create_task(w.workers.share())
            await w.until(lambda: len(w.leases) == 2)
        await asyncio.gather(*waiting, sharing)


async def test_subscriptions_that_could_not_be_registered_are_registered_later(tmp_path, backend):
    async with one_worker(tmp_path, backend.url) as w:
        w.sql("ALTER TABLE subscriptions RENAME TO elsewhere")
        with pytest.raises(StateError):
            await w.beat()
        w.sql("ALTER TABLE elsewhere RENAME TO subscriptions")
        await w.settled()

        assert [one.name for one in w.app.store.delivery_reader.subscriptions()] == ["sub0"]
