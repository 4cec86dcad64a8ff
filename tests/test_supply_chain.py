"""What Poller installs: pinned with hashes, and under licences that let everybody use it."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tools.audit import installed, wrong_licences

ROOT = Path(__file__).parent.parent


def test_every_package_may_be_used_by_everybody():
    assert len(list(installed())) > 30
    assert wrong_licences() == []


def test_every_package_is_pinned_with_its_hashes():
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.split(r"\n(?=[a-z0-9])", lock)

    assert len(pinned) > 50
    assert [one.partition(" ")[0] for one in pinned if "==" in one and "--hash=sha256:" not in one] == []


def test_the_policy_says_where_to_report():
    policy = (ROOT / "SECURITY.md").read_text()

    assert "Report" in policy
    assert "docs/security.md" in policy


def test_every_package_that_is_installed_with_poller_is_imported_somewhere():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    code = "".join(path.read_text() for room in ("poller", "plugins", "state") for path in (ROOT / room).rglob("*.py"))
    imported = set(re.findall(r"(?:import |from |late\(\")(\w+)", code))
    providers = packages_distributions()
    packages = {named(name) for module in imported for name in providers.get(module, ())}

    # httpcore imports the one, zoneinfo the other
    assert {named(re.split(r"[>\[]", one)[0]) for one in wanted} - packages == {"sniffio", "tzdata"}


def named(package: str) -> str:
    """The name of a package as an index compares it."""
    return package.lower().replace("_", "-")
