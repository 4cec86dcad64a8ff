"""`poller unit`: what it writes is a unit that systemd takes, with the user and the folder that it needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poller.cli.unit import OTHERS, UNIT, unit_of
from tests.support.command_line import Run

EXPOSURE = 1.5  # of `systemd-analyze security`, where 10 is the worst
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def test_the_printed_unit_starts_this_program(poller: Run) -> None:
    program = Path(sys.executable).with_name("poller")
    ran = poller("unit")

    assert ran.status == 0
    assert f"ExecStart={program} run --config /etc/poller/poller.toml\n" in ran.out


def test_it_is_installed_below_a_folder_with_all_that_it_needs(poller: Run, tmp_path: Path) -> None:
    ran = poller("unit", "--install", "--root", tmp_path / "root")

    assert (ran.status, ran.out) == (0, "")
    assert {UNIT, *OTHERS} == {
        str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*") if path.is_file()
    }
    assert ran.err.splitlines()[-1].startswith(f"wrote {tmp_path / 'root' / UNIT}, ")


def test_uninstalling_as_the_page_says_removes_all_that_was_installed() -> None:
    """What is left of sysusers.d and tmpfiles.d would create the user and the folder again at the next boot."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "upgrade.md").read_text().partition("## Uninstall")[2]

    assert [name for name in (UNIT, *OTHERS) if f"/{name}" not in page] == []


def test_a_program_that_the_service_may_not_see_is_warned_of(
    poller: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "poller"  # below /tmp
    program.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(program), "unit"])
    ran = poller("unit")

    assert ran.err.startswith(f"Warning: {program} is in a folder that the unit closes to the service; python3 -m venv")
    assert f"ExecStart={program} run" in ran.out


def test_where_it_may_not_write_it_says_so_in_one_line(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    ran = poller("unit", "--root", tmp_path / "root" / "below")

    assert ran.status == 1
    told = [line for line in ran.err.splitlines() if not line.startswith("Warning")]  # about a checkout in /tmp
    assert len(told) == 1


@needs_systemd
def test_systemd_takes_it_and_finds_little_exposed(tmp_path: Path) -> None:
    copy = tmp_path / "poller.service"
    copy.write_text(unit_of(Path("/bin/true")))
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    found = re.search(r"Overall exposure level for poller.service: ([0-9.]+)", rated.stdout)
    assert found is not None, rated
    assert float(found[1]) <= EXPOSURE


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None or os.geteuid() != 0, reason="needs systemd and root")
def test_systemd_makes_the_user_and_the_folder(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group"):
        (tmp_path / "etc" / name).write_text("root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n")
    poller("unit", "--root", tmp_path)
    for program, *words in (("systemd-sysusers",), ("systemd-tmpfiles", "--create", "--prefix=/etc/poller")):
        subprocess.run([program, f"--root={tmp_path}", *words], check=True, capture_output=True, timeout=60)

    folder = (tmp_path / "etc/poller").stat()
    group = re.search(r"^poller:x:(\d+):", (tmp_path / "etc/group").read_text(), flags=re.MULTILINE)
    assert "poller:" in (tmp_path / "etc/passwd").read_text()
    assert group is not None
    assert (folder.st_uid, folder.st_gid, oct(folder.st_mode)[-3:]) == (0, int(group[1]), "750")
