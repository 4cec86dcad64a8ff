"""The table of faults in docs/failures.md names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "failures.md").read_text()


def test_every_fault_names_its_test():
    table = re.split(r"^#+ ", PAGE.partition("# Every fault, and the test that causes it")[2], flags=re.MULTILINE)[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line][1:]
    named = {name for row in rows for name in re.findall(r"`(\w+/test_\w+\.py)`", row)}

    assert len(rows) > 15
    assert all(re.search(r"`\w+/test_\w+\.py`", row) for row in rows)
    assert {name for name in named if not (TESTS / name).exists()} == set()
