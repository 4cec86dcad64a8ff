"""`poller new-plugin`: what it writes is loaded, and its test passes as it was written."""

import subprocess
import sys
from pathlib import Path

import pytest

from poller.hooks.loading import load_plugins
from tests.support.command_line import Run


@pytest.mark.parametrize("kind", ["sink", "source"])
def test_a_new_plugin_is_loaded_and_its_test_passes(poller: Run, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "plugins.d"
    ran = poller("new-plugin", "pager_duty", "--kind", kind, "--folder", str(folder))
    assert ran.status == 0

    plugins = load_plugins(folder)
    assert "pager_duty" in (plugins.sinks if kind == "sink" else plugins.sources)
    assert [failed.name for failed in plugins.failed if failed.name == "pager_duty"] == []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tested = subprocess.run([*command, str(folder)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert tested.returncode == 0, tested.stdout


def test_a_plugin_that_exists_is_not_overwritten(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "pager.py").write_text("mine")

    ran = poller("new-plugin", "pager", "--folder", str(tmp_path))

    assert (ran.status, "already exists" in ran.err) == (1, True)
    assert (tmp_path / "pager.py").read_text() == "mine"


def test_a_name_that_is_no_module_is_refused(poller: Run, tmp_path: Path) -> None:
    assert poller("new-plugin", "My Plugin", "--folder", str(tmp_path)).status == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["http", "json", "class", "poller"])
def test_a_name_that_is_taken_is_refused(poller: Run, tmp_path: Path, name: str) -> None:
    ran = poller("new-plugin", name, "--folder", str(tmp_path))

    assert (ran.status, f"choose another name, such as my_{name}" in ran.err) == (1, True)
    assert list(tmp_path.iterdir()) == []
