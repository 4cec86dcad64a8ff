"""What docs/trust.md names is there: commands with their options, tests, modules and functions; its figures add up."""

import ast
import re
from pathlib import Path

import pytest

from tests.proofs.mutants import CORES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def rows(head: str) -> list[list[str]]:
    """The cells of the table whose first head this is."""
    lines = PAGE[PAGE.index(f"| {head} |") :].partition("\n\n")[0].splitlines()[2:]
    assert lines
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def functions(file: Path) -> set[str]:
    """The names of all functions in a file."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def number(cell: str) -> float:
    """The number in a cell."""
    return float(cell.replace(",", "").removesuffix(" %"))


@pytest.mark.parametrize("row", rows("promise"), ids=lambda row: row[0][:60])
def test_every_promise_has_a_command_that_exists(row):
    commands = re.findall(r"`make ([a-z-]+)`", row[2])
    assert commands
    assert set(commands) <= TARGETS
    if commands == ["test"]:  # then the row says which tests, or where that is said
        assert re.search(r"`tests/|\]\(failures\.md", " ".join(row))


def test_every_command_exists_with_its_options():
    assert set(re.findall(r"`make ([a-z-]+)", PAGE)) <= TARGETS
    for module, options in re.findall(r"`python -m ([a-z_.]+)([^`]*)`", PAGE):
        place = ROOT.joinpath(*module.split("."))
        source = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__main__.py"
        code = source.read_text(encoding="utf-8")
        assert [option for option in re.findall(r"--[a-z]+", options) if f'"{option}"' not in code] == []


def test_every_proof_is_on_the_page():
    proofs = {target for target in TARGETS if target.startswith(("prove-", "soak"))}
    assert {proof for proof in proofs if f"make {proof}`" not in PAGE} == set()


def test_every_proof_with_figures_exists():
    named = {re.findall(r"`([a-z-]+)`", proof)[0] for proof, *_ in rows("proof")}
    assert named <= TARGETS
    assert {"prove-crash", "prove-power", "prove-truth", "prove-tests", "prove-delivery"} <= named


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(tests/[\w/.]+)", PAGE)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_deliberate_bug_names_its_test_and_every_test_its_bug():
    there = {name for name in functions(ROOT / "tests/truth/test_proofs_can_fail.py") if name.startswith("test_")}
    named = [name for row in rows("the bug") for name in re.findall(r"`(test_\w+)`", row[2])]
    assert all("`test_" in row[2] for row in rows("the bug"))
    assert sorted(named) == sorted(there)


def test_every_place_of_a_mistake_that_stays_exists():
    places = re.findall(r"`([a-z]+/[a-z_]+)(?:\.(\w+))?`", PAGE.partition("## Small mistakes")[2])
    assert len(places) > 10
    for module, function in places:
        found = [file for file in (ROOT / f"poller/{module}.py", ROOT / f"{module}.py") if file.exists()]
        assert found, module
        assert not function or function in functions(found[0]), f"{module}.{function}"


def test_the_figures_of_small_mistakes_add_up():
    table = {row[0].split("`")[1]: [number(cell) for cell in row[1:]] for row in rows("package")}
    assert set(table) == set(CORES)
    for package, (mistakes, texts, tried, noticed, missed, share) in table.items():
        assert mistakes >= texts + tried, package
        assert tried == noticed + missed, package
        assert share == round(100 * noticed / tried, 1) >= 90, package
