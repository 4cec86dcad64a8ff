"""The supply chain: known vulnerabilities, licences, and a bill of materials (CycloneDX) of what Poller installs.

`make audit`. Licences are read from the installed packages, offline. The bill of materials and the vulnerabilities need
`cyclonedx-py` and `pip-audit` on the PATH (`pipx install cyclonedx-bom pip-audit`); pip-audit also needs the advisory
service, and what it could not look at is said. Exit status 1 for a vulnerability or a licence that is not
in `ALLOWED`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements.lock"
BILL: Final = ROOT / "build" / "poller.cdx.json"
PATIENCE: Final = 240  # seconds for the advisory service
ALLOWED: Final = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Unlicense|0BSD|Zlib|CC0|Public Domain|HPND", re.I
)


def installed(name: str = "poller", seen: set[str] | None = None) -> Iterator[Distribution]:
    """A package and all that it needs at run time, as far as it is installed."""
    seen = set() if seen is None else seen
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return
    seen.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:  # for another platform, or an extra
        return
    yield found
    for text in found.requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield from installed(needed.name, seen)


def licence_of(found: Distribution) -> str:
    """What a package says of its licence; empty where it says nothing."""
    metadata = found.metadata
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if text.startswith("Lic")]
    written = " ".join((metadata.get("License") or "").split())
    if "Redistribution and use in source and binary forms" in written:
        written = "BSD"  # by its text
    return metadata.get("License-Expression") or "; ".join(classifiers) or written[:80]


def wrong_licences() -> list[str]:
    """Packages whose licence is not among those that may be shipped with."""
    licences = {found.metadata["Name"]: licence_of(found) for found in installed()}
    return [f"{name}: {text or 'no licence is named'}" for name, text in licences.items() if not ALLOWED.search(text)]


def write_bill() -> str:
    """Write the bill of materials of what is locked."""
    program = shutil.which("cyclonedx-py")
    if program is None:
        return "NOT WRITTEN: cyclonedx-py is not on the PATH (pipx install cyclonedx-bom)"
    BILL.parent.mkdir(exist_ok=True)
    subprocess.run([program, "requirements", str(LOCK), "--of", "JSON", "-o", str(BILL)], check=True)
    return f"{BILL.relative_to(ROOT)}: {len(json.loads(BILL.read_text())['components'])} components"


def vulnerabilities() -> tuple[list[str], str]:
    """Known vulnerabilities of what is locked, and how far they were looked for."""
    program = shutil.which("pip-audit")
    if program is None:
        return [], "NOT LOOKED FOR: pip-audit is not on the PATH (pipx install pip-audit)"
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        command = [program, "-r", str(LOCK), "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        try:
            run = subprocess.run(
                [*command, "-o", report.name], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            packages: list[dict[str, Any]] = json.load(report)["dependencies"]
        except subprocess.TimeoutExpired:
            return [], f"NOT LOOKED FOR: the advisory service did not answer within {PATIENCE} s"
        except (ValueError, KeyError):
            last = (run.stderr.strip().splitlines() or ["no output"])[-1]
            return [], f"NOT LOOKED FOR: the advisory service cannot be used: {last[:200]}"
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    known = [f"{one['name']} {one['version']}: {bug['id']}" for one in packages for bug in one.get("vulns", ())]
    if len(unknown) == len(packages):
        return [], "NOT LOOKED FOR: the advisory service knows none of the packages; is it the right one?"
    rest = f", NOT LOOKED FOR in {len(unknown)}: {', '.join(unknown[:5])} ..." if unknown else ""
    return known, f"looked for in {len(packages) - len(unknown)} packages{rest}"


def main() -> int:
    """Say how it stands with each."""
    licences, (known, how_far) = wrong_licences(), vulnerabilities()
    print(f"licences          {len(list(installed()))} packages; {', '.join(licences) or 'all may be used'}")
    print(f"bill of materials {write_bill()}")
    print(f"vulnerabilities   {'; '.join([how_far, *known])}")
    return 1 if licences or known else 0


if __name__ == "__main__":
    sys.exit(main())
