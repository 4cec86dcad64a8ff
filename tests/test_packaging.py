"""What is built from the source is whole, and the README and the lock say what is so."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, "."]
    copy = tmp_path_factory.mktemp("source")
    subprocess.run(["git", "-C", ROOT, "checkout-index", "--all", f"--prefix={copy}/"], check=True)
    subprocess.run([str(word) for word in command], cwd=copy, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_a_wheel_holds_every_module_and_everything_beside_them(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "poller", "plugins", "state"], check=True, capture_output=True, text=True
    ).stdout.split()

    assert set(tracked) <= set(zipfile.ZipFile(wheel).namelist())


def test_what_is_in_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "import poller, sys; from poller.cli import invoke; "
    code += "sys.exit(invoke(['plugins', '--json']) or print(poller.__file__))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )

    assert ran.stdout.splitlines()[-1].startswith(str(tmp_path / "site"))
    assert '"state":"failed"' not in ran.stdout


def test_the_lock_pins_with_hashes_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()

    assert not re.search(r"://|--index|--find-links|--trusted-host", lock)
    for name in re.findall(r"^([a-z0-9._-]+)==.*$", lock, flags=re.MULTILINE):
        assert re.search(rf"^{re.escape(name)}==\S+ \\\n    --hash=sha256:", lock, flags=re.MULTILINE), name


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")], ids=str)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in link or (page.parent / link).exists(), link


def test_every_word_that_the_readme_types_is_a_command_or_a_target() -> None:
    from poller.cli.reference import commands

    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    known = {name for name, _ in commands()}
    assert set(re.findall(r"^\$ poller ([a-z]+)", readme, flags=re.MULTILINE)) <= known
    for target in re.findall(r"`make ([a-z-]+)|^\$ make ([a-z-]+)", readme, flags=re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, flags=re.MULTILINE)
