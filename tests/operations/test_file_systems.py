"""On which file system a state lies: SQLite's write-ahead log needs a local one."""

import os
from pathlib import Path

import pytest

from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations import file_systems
from poller.operations.advice import advice
from poller.operations.file_systems import REPLACED, file_system, remote_file_system
from tests.operations.test_advice import WHOLE

MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
31 22 0:27 / /srv rw - nfs4 files:/export rw,vers=4.2
32 31 0:28 / /srv/local rw shared:7 master:2 - xfs /dev/vdb rw
33 22 0:29 / /mnt/my\040share rw - cifs //files/share rw
34 22 0:30 / /mnt/twice rw - nfs files:/old rw
35 34 254:1 / /mnt/twice rw - ext4 /dev/vdc rw
36 22 0:31 / /home/me rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/poller/poller.db", "ext4"),
        ("/srv/poller.db", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvx/poller.db", "ext4"),
        ("/srv/local/poller.db", "xfs"),
        ("/mnt/my share/poller.db", "cifs"),
        ("/mnt/twice/poller.db", "ext4"),
        ("/home/me/poller.db", "fuse.sshfs"),
    ],
)
def test_the_deepest_and_latest_mount_is_the_one(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


def test_lines_of_another_form_are_passed_over() -> None:
    assert file_system(Path("/srv"), "") is None
    assert file_system(Path("/srv"), "x\n1 2 - ext4\n1 2 3 / /srv\n" + MOUNTS) == "nfs4"


def test_a_state_on_another_machine_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts").write_text(f"22 1 254:0 / / rw - ext4 a rw\n31 22 0:27 / {tmp_path} rw - nfs4 b rw\n")
    (tmp_path / "poller.toml").write_text(WHOLE)
    assert remote_file_system(tmp_path) is None

    monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "mounts")
    [finding] = advice(load(tmp_path / "poller.toml", load_plugins()))
    assert finding.about == "poller.state"
    assert f"{tmp_path / 'poller.db'} is on nfs4" in finding.what

    monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "none")
    assert remote_file_system(tmp_path) is None


def test_a_state_whose_log_is_not_beside_it_for_everybody_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "poller.db"
    state.touch()
    (tmp_path / "poller.toml").write_text(WHOLE)
    (tmp_path / "mounts").write_text(f"22 1 254:0 / / rw - ext4 a rw\n31 22 0:27 /x {state} rw - ext4 b rw\n")
    config = load(tmp_path / "poller.toml", load_plugins())
    assert list(advice(config)) == []

    os.link(state, tmp_path / "other.db")
    [finding] = advice(config)
    assert "poller.db has another name (a hard link)" in finding.what

    monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "mounts")
    [finding] = advice(config)
    assert "poller.db is mounted as a single file" in finding.what
    assert finding.hint == f"mount or link its folder {tmp_path} instead"


def test_a_configuration_that_was_replaced_outside_of_a_container_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "poller.toml"
    path.write_text(WHOLE)
    (tmp_path / "mounts").write_text(f"22 1 254:0 / / rw - ext4 a rw\n31 22 0:27 /x {path} rw - ext4 b rw\n")
    config = load(path, load_plugins())
    monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "mounts")
    assert list(advice(config)) == []

    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **how: os.stat_result([*real(self, **how)[:3], 0, *real(self)[4:]]))
    assert [(finding.about, finding.what) for finding in advice(config)] == [(str(path), REPLACED)]
