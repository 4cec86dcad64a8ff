"""Workers whose configurations or secrets differ: the newest configuration is used, and a secret where it is."""

import shutil

import pytest

from tests.support.cluster import Api, Receiver, configured, serving
from tests.support.one_worker import joined


@pytest.fixture
def config(tmp_path, backend):
    api, receiver = Api(keys=2), Receiver(fails=0.0)
    with serving(api, receiver):
        yield configured(tmp_path, backend.url, api, receiver, subscriptions=2)


async def agreed(*workers):
    """Beats until what each owns has not changed for a while."""
    quiet, before = 0, None
    while quiet < 8:
        for one in workers:
            await one.beat()
            await one.until(lambda one=one: not one.workers._holdings._tasks)
        now = [sorted(one.leases) for one in workers]
        quiet, before = (quiet + 1 if now == before else 0), now
    return [{name.rpartition("/")[2] for name in one.leases} for one in workers]


ALL = {"key0", "key1", "sub0", "sub1"}


async def test_a_worker_with_an_older_configuration_leaves_everything_to_the_others(config, backend, capsys):
    async with joined(config, backend.url, name="old", digest="older") as old:
        assert await agreed(old) == [ALL]
        async with joined(config, backend.url, name="new", digest="newer") as new:
            assert await agreed(old, new) == [set(), ALL]
        assert "config.differs" in capsys.readouterr().out
        assert await agreed(old) == [ALL]  # nobody else is there


async def test_an_old_configuration_that_is_started_again_removes_no_subscription_of_the_newer_one(config, backend):
    fewer = config.with_name("fewer.toml")
    fewer.write_text(config.read_text().partition('[[subscriptions]]\nname = "sub1"')[0])
    async with joined(fewer, backend.url, name="first", digest="fewer") as first:
        await agreed(first)
    async with joined(config, backend.url, name="new", digest="more") as new:
        await agreed(new)
        async with joined(fewer, backend.url, name="again", digest="fewer") as again:
            assert await agreed(new, again) == [ALL, set()]
            states = {one.name: one.state for one in backend.look().deliveries.subscriptions()}

    assert states == {"sub0": "active", "sub1": "active"}


async def test_a_reload_makes_an_earlier_configuration_the_newest_again(config, backend):
    async with (
        joined(config, backend.url, name="one", digest="a") as one,
        joined(config, backend.url, name="two", digest="a") as two,
    ):
        await agreed(one, two)
        await one.app.reconfigure(one.app.config.model_copy(update={"digest": "b"}))
        assert await agreed(one, two) == [ALL, set()]
        await two.app.reconfigure(two.app.config.model_copy(update={"digest": "b"}))
        assert all(await agreed(one, two))
        await one.app.reconfigure(one.app.config.model_copy(update={"digest": "a"}))
        assert await agreed(one, two) == [ALL, set()]


async def test_what_needs_a_secret_is_done_by_the_worker_that_has_it(config, backend, tmp_path, capsys):
    text = config.read_text()
    at = text.index("[sources.key1]")
    text = text[:at] + text[at:].replace("{ X-Worker", '{ X-Key = { file = "secret" }, X-Worker', 1)
    at = text.index('name = "sub1"')
    text = text[:at] + text[at:].replace("{ X-Worker", '{ X-Key = { file = "secret" }, X-Worker', 1)
    config.write_text(text)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(config, tmp_path / "elsewhere" / "poller.toml")
    (tmp_path / "elsewhere" / "secret").write_text("key")

    async with joined(config, backend.url, name="poor") as poor:
        assert await agreed(poor) == [{"key0", "sub0"}]
        said = capsys.readouterr().out
        assert "worker.lacks" in said
        assert "the secret file" in said
        async with joined(tmp_path / "elsewhere" / "poller.toml", backend.url, name="rich") as rich:
            of_poor, of_rich = await agreed(poor, rich)
            lacks = {one.name: set(one.lacks) for one in backend.look().leases.shares().workers}

    assert of_rich >= {"key1", "sub1"}
    assert of_poor | of_rich == ALL
    assert lacks == {
        poor.tenure.worker: {"budget/key1", "subscription/sub1"},
        rich.tenure.worker: set(),
    }
