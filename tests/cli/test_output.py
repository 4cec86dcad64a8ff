"""What is printed on a terminal is all there, however narrow it is."""

import io

import pytest
from rich.console import Console, Group
from rich.text import Text

from poller.cli.output import table
from poller.cli.top import fitted

HEADS = ["endpoint", "state", "units", "objects", "swept", "expected delay"]
ROWS = [
    ["shop/items", "ok", "12", "30", "13s ago", "1.0s"],
    ["shop/orders", "failing", "1", "10000", "3m 13s ago", "-"],
]


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 200])
def test_no_cell_of_a_table_is_cut_off(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(table("", HEADS, ROWS, width))

    given = "".join(map("".join, [HEADS, *ROWS]))
    assert sorted("".join(out.getvalue().split())) == sorted("".join(given.split()))


def test_a_name_is_whole_where_there_is_room_for_it() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(table("", HEADS, ROWS, 60))

    assert "shop/orders  failing" in out.getvalue()


@pytest.mark.parametrize(("lines", "last"), [(5, "line 4"), (6, "… 2 more lines: enlarge the terminal")])
def test_lines_below_the_end_of_the_terminal_are_counted(lines: int, last: str) -> None:
    out = Console(file=io.StringIO(), width=60, height=5)
    out.print(fitted(Group(*(Text(f"line {number}") for number in range(lines))), out))
    shown = out.file.getvalue().splitlines()  # type: ignore[attr-defined]

    assert len(shown) == 5
    assert shown[-1].startswith(last)
