"""Pages that are written from the code are up to date, and the site is built without a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.fences import ROOT
from tools.docs import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_from_the_code_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `make docs`"


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path), "--config-file"]
    ran = subprocess.run(
        [*command, str(ROOT / "mkdocs.yml")],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")

    page = (tmp_path / "index.html").read_text()
    assert "Poller" in page
    for attribute in ('src="http', 'rel="stylesheet" href="http', 'rel="preconnect"'):
        assert attribute not in page
