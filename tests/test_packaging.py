"""What is built from the source is whole, and the README and the lock say what is so."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from poller.cli.unit import OTHERS
from tests.support.command_line import Shop
from tests.support.daemon import running_daemon

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


# The service, and the container.


def from_readme() -> str:
    """The commands that lead from an empty machine to a service."""
    [script] = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(script)


def test_the_readme_needs_five_commands_at_most_and_the_page_has_the_same() -> None:
    assert len(from_readme().splitlines()) <= 5
    assert from_readme() in (ROOT / "docs/how-to/service.md").read_text()


@pytest.mark.slow
def test_the_commands_of_the_readme_lead_to_a_service(wheel: Path, tmp_path: Path) -> None:
    """In a folder, with a `sudo` and a `systemctl` that only run or write down what they are given."""
    shims, bin_ = tmp_path / "shims", tmp_path / "usr/local/bin"
    for folder in (shims, bin_, tmp_path / "opt", tmp_path / "etc/poller"):
        folder.mkdir(parents=True)
    (tmp_path / "etc/poller").chmod(0o750)
    for name, text in (("sudo", 'exec "$@"'), ("systemctl", f'echo "$@" >> {tmp_path}/systemctl')):
        (shims / name).write_text(f"#!/bin/sh\n{text}\n")
        (shims / name).chmod(0o755)
    script = re.sub(r"(?<![\w.])(/opt|/usr/local/bin|/etc)/", rf"{tmp_path}\1/", from_readme())
    script = script.replace("pip install .", f"pip install --no-deps --no-index {wheel}")
    script = script.replace("unit --install", f"unit --install --root {tmp_path}")
    dependencies = Path(pytest.__file__).parent.parent
    env = {**os.environ, "PATH": f"{shims}:{bin_}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    first, rest = script.split("\n", 1)
    subprocess.run(["sh", "-euc", first], cwd=tmp_path, env={**env, "PYTHONPATH": ""}, check=True, capture_output=True)
    env["PYTHONPATH"] = str(dependencies)
    subprocess.run(["sh", "-euc", rest], cwd=tmp_path, env=env, check=True, capture_output=True)

    unit = (tmp_path / "etc/systemd/system/poller.service").read_text()
    [start] = re.findall(r"^ExecStart=(\S+) run --config (\S+)$", unit, flags=re.MULTILINE)
    assert (tmp_path / "systemctl").read_text() == "enable --now poller\n"
    config = tmp_path / "etc/poller/poller.toml"
    checked = subprocess.run([start[0], "check", "--config", config], env=env, check=False, capture_output=True)
    assert checked.returncode == 0, checked


def instructions() -> list[tuple[str, str]]:
    """The instructions of the container file."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_container_is_not_root_and_its_images_have_versions() -> None:
    found = instructions()
    users = [what for name, what in found if name == "USER"]

    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) > 0
    assert all(re.search(r":\d", what) for name, what in found if name == "FROM")
    assert not [name for name, _ in found if name in ("ADD", "MAINTAINER", "SHELL")]
    for _, command in (one for one in found if one[0] == "RUN"):
        subprocess.run(["sh", "-n", "-c", command], check=True)
    assert [what for name, what in found if name in ("ENTRYPOINT", "CMD")] == ['["poller"]', '["run"]']


def test_the_container_installs_the_versions_of_the_lock(tmp_path: Path) -> None:
    [making] = [what for name, what in instructions() if name == "RUN" and what.startswith("sed")]
    command = making.split("&&")[0].replace("/tmp/", f"{tmp_path}/").replace("/src/", f"{ROOT}/")
    subprocess.run(["sh", "-euc", command], check=True)
    lines = [line for line in (tmp_path / "constraints.txt").read_text().splitlines() if line.strip()]

    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==\S+( ; .*)?", line)] == []


def test_the_health_check_knows_a_daemon_that_is_ready_from_none(shop: Shop, tmp_path: Path) -> None:
    [check] = [what for name, what in instructions() if name == "HEALTHCHECK"]
    program = json.loads(check.partition("CMD ")[2])[-1].replace("/var/lib/poller/", f"{tmp_path}/")
    command = [sys.executable, "-c", program]
    with running_daemon(shop.configure(tmp_path)):
        beside = subprocess.run(command, check=False, capture_output=True).returncode
    after = subprocess.run(command, check=False, capture_output=True).returncode

    assert (beside, after) == (0, 1)


# The Debian package, which `make deb` builds.

DEBIAN = ROOT / "debian"


def test_the_debian_package_has_the_version_the_user_and_the_folder_of_the_program() -> None:
    [version] = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)

    assert (DEBIAN / "changelog").read_text().startswith(f"poller ({version}) ")
    for kind in ("sysusers", "tmpfiles"):
        assert (DEBIAN / f"poller.{kind}").read_text() == OTHERS[f"etc/{kind}.d/poller.conf"]


def test_the_unit_of_the_debian_package_starts_its_program_once_there_is_a_configuration() -> None:
    [command] = re.findall(
        r"^\t(sed [^>]*systemd/poller.service) >", (DEBIAN / "rules").read_text(), flags=re.MULTILINE
    )
    unit = subprocess.run(["sh", "-euc", command], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "ExecStart=/usr/bin/poller run --config /etc/poller/poller.toml\n" in unit
    assert "\nConditionPathExists=/etc/poller/poller.toml\n" in unit
    assert "/opt/" not in unit
    assert "/usr/local" not in unit


@pytest.mark.parametrize(("action", "kept"), [("remove", True), ("upgrade", True), ("purge", False)])
def test_the_debian_package_keeps_configuration_and_state_until_it_is_purged(
    action: str, kept: bool, tmp_path: Path
) -> None:
    for name in ("etc/poller", "var/lib/poller"):
        (tmp_path / name).mkdir(parents=True)
    script = re.sub(r" (/etc|/var/lib)/", rf" {tmp_path}\1/", (DEBIAN / "poller.postrm").read_text())
    subprocess.run(["sh", "-c", script, "postrm", action], check=True)

    assert [(tmp_path / name).exists() for name in ("etc/poller", "var/lib/poller")] == [kept, kept]
