"""A message names the line of its key, or of the table where the key would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.config.places import Places
from tests.support.command_line import Run

TEXT = """\
[poller]
state = "x"  # a comment

[sources.acme]
plugin = "rest"
auth = { type = "none" }
[sources.acme.endpoints."time entries"]
path = "/x"
ignore = [
    "/a",
]
[ budgets . office ] # spaced
limits = []
[[subscriptions]]
plugin = "http"
name = "crm"
url = "u"
[[subscriptions]]
name = 'second'
headers.X = "1"
[budget.office]
share = 0.5
[[sinks]]
[[sinks]]
"""
LINES = {
    "poller": 1,
    "poller.state": 2,
    "poller.missing": 1,
    "sources.acme.auth.token": 6,
    "sources.acme.endpoints.time entries.ignore[0]": 9,
    "budgets.office.limits": 13,
    "subscriptions.crm": 14,
    "subscriptions.crm.plugin": 15,
    "subscriptions.crm.url": 17,
    "subscriptions[0].url": 17,
    "subscriptions.second.headers.X": 20,
    "subscriptions[1].missing": 18,
    "budget": 21,  # has no header of its own
    "sources.acme.endpoints": 7,
    "sinks": 23,
    "nothing": None,
}


@pytest.mark.parametrize("key", LINES)
def test_a_key_has_its_line(key: str) -> None:
    assert Places(TEXT).line_of(key) == LINES[key]


def test_check_names_file_and_line(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "poller.toml").write_text('[poller]\nlisten = ""\n\nretentoin = "9d"\n')

    ran = poller("check")

    assert ran.err.splitlines()[0] == "Error: poller.toml:4: poller.retentoin: unknown key; did you mean 'retention'?"
