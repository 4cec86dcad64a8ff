"""A file that an editor of Windows has saved: a byte order mark before everything, and CRLF."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.config.state_place import state_place
from tests.support.command_line import Run, Shop

MARK = "\ufeff"


@pytest.mark.parametrize("rest", ["", "[sources.x\n"], ids=["valid", "broken"])
def test_the_state_is_found_behind_the_mark(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "poller.toml"
    path.write_bytes(f'{MARK}[poller]\r\nstate = "kept.db"\r\n{rest}'.encode())

    assert state_place(path) == tmp_path / "kept.db"


def test_everything_works_with_it_and_lines_are_counted_right(poller: Run, shop: Shop, tmp_path: Path) -> None:
    path = shop.configure(tmp_path)
    text = path.read_text().lstrip("\n")
    path.write_bytes((MARK + text.replace("\n", "\r\n")).encode())
    path.chmod(0o600)
    checked = poller("check")
    path.write_bytes((MARK + text.replace("\n", "\r\n") + "patth = 1\r\n").encode())
    refused = poller("check")

    assert (checked.status, checked.err) == (0, "")
    assert refused.err.startswith(
        f"Error: poller.toml:{len(text.splitlines()) + 1}: subscriptions.file.patth: unknown key"
    )


@pytest.mark.parametrize("source", ["nutcache", "rest"])
def test_what_init_writes_names_the_schema_in_its_first_line(poller: Run, tmp_path: Path, source: str) -> None:
    poller("init", "--source", source)

    assert (tmp_path / "poller.toml").read_text().splitlines()[0] == "#:schema ./poller.schema.json"
