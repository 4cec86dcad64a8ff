"""What another user could have written is not run, and not taken unasked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.command_line import Run, Shop

OTHER = 12345
PLUGIN = "import pathlib\npathlib.Path('ran').touch()\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def config(shop: Shop, tmp_path: Path) -> Path:
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "mine.py").write_text(PLUGIN)
    path = shop.configure(tmp_path)
    path.write_text(path.read_text().replace("[poller]", '[poller]\nplugins_dir = "plugins.d"'))
    return path


def test_a_file_of_ones_own_is_taken_and_its_plugins_are_run(poller: Run, config: Path) -> None:
    assert poller("check").status == 0
    assert Path("ran").exists()


@as_root
def test_a_file_of_another_user_in_this_folder_is_not_taken(poller: Run, config: Path) -> None:
    os.chown(config, OTHER, OTHER)

    for words in (["check"], ["once"], ["status"], ["plugins"], ["events"]):
        ran = poller(*words)
        assert not Path("ran").exists(), words
        assert ran.status == (0 if words == ["plugins"] else 2)
        assert ran.err.startswith("Error: poller.toml: not taken: poller.toml belongs to user 12345")
        if words != ["plugins"]:
            assert (
                "chown root poller.toml, if you trust its content; or --config poller.toml, if you mean it" in ran.err
            )


def test_a_file_that_everybody_can_write_is_not_taken(poller: Run, config: Path) -> None:
    config.chmod(0o666)
    ran = poller("check")

    assert ran.status == 2
    assert "poller.toml can be written by everybody" in ran.err
    assert not Path("ran").exists()


@as_root
def test_a_file_that_a_group_can_write_is_taken_only_where_the_group_is_the_owners_own(
    poller: Run, config: Path
) -> None:
    config.chmod(0o664)
    assert poller("check").status == 0

    os.chown(config, 0, OTHER)
    ran = poller("check")
    assert ran.status == 2
    assert "poller.toml can be written by the group 12345; chmod g-w" in ran.err


def test_a_file_that_is_named_is_taken(poller: Run, config: Path) -> None:
    config.chmod(0o666)

    assert poller("check", "--config", "poller.toml").status == 0


@pytest.mark.parametrize("place", ["plugins.d", "plugins.d/mine.py"])
def test_plugins_that_others_can_write_are_not_run_whoever_named_the_file(
    poller: Run, config: Path, place: str
) -> None:
    Path(place).chmod(0o777)
    ran = poller("check", "--config", "poller.toml")

    assert ran.status == 0
    assert not Path("ran").exists()
    [line] = [line for line in ran.err.splitlines() if line.startswith("Warning: plugin ")]
    assert f"{place} can be written by everybody; chmod o-w " in line
    assert poller("doctor", "--json", "--config", "poller.toml").status == 1


@as_root
@pytest.mark.parametrize("place", ["plugins.d", "plugins.d/mine.py"])
def test_plugins_of_another_user_are_not_run(poller: Run, config: Path, place: str) -> None:
    os.chown(place, OTHER, OTHER)

    assert "belongs to user 12345; chown root " in poller("check").err
    assert not Path("ran").exists()
