"""Small mistakes put into the pure core, one at a time: does a test see each?

mutmut brings many packages, and is not one of ours: `python -m pip install mutmut` puts it beside Poller. A mutant that
differs in a text alone (a message) is counted apart: what a message says is read by people, and by the tests of docs.

    python -m tests.proofs.mutants [PACKAGE ...]
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console
from rich.table import Table

PATIENCE: Final = 1_200.0  # seconds for one package
ASKED: Final = 0.9  # of the mutants that are more than a text
KILLED: Final = (1, 3, 24, -24, 36, 152, 255)  # exit statuses of mutmut: a test failed, or ran into a limit of time
SURVIVED: Final = 0
UNTESTED: Final = (5, 33)


@dataclass(frozen=True, slots=True)
class Core:
    """Modules that are pure, and the quick tests that are to see a mistake in them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


CORES: Final = {
    "budget": Core(
        ("poller/budget/*.py",),
        ("tests/budget", "tests/sources/test_transport.py", "tests/planner/test_feasibility.py"),
    ),
    "changes": Core(("poller/changes/*.py",), ("tests/changes", "tests/truth")),
    "planner": Core(("poller/planner/*.py",), ("tests/planner",)),
    "delivery": Core(
        tuple(
            f"poller/delivery/{name}.py"
            for name in ("retry", "breaker", "batches", "settlement", "subscription_health")
        ),
        ("tests/delivery",),
    ),
}


def main() -> int:
    """Exit status 0 when enough mutants of every package are killed."""
    if find_spec("mutmut") is None:
        print("mutmut is not installed beside Poller: python -m pip install mutmut", file=sys.stderr)
        return 2
    console = Console()
    table = Table("package", "mutants", "killed", "survived", "no test", "not tried", "texts", "share")
    enough = True
    for package in sys.argv[1:] or CORES:
        console.print(f"{package}: at most {PATIENCE / 60:.0f} minutes")
        with tempfile.TemporaryDirectory() as name:
            counts, survivors = judge(CORES[package], Path(name))
        tried = counts["killed"] + counts["survived"] + counts["no test"]
        share = counts["killed"] / tried if tried else 0.0
        enough = enough and share >= ASKED
        found = [f"{counts[kind]}" for kind in ("killed", "survived", "no test", "not tried", "text")]
        table.add_row(package, f"{sum(counts.values())}", *found, f"{share:.0%}")
        for mutant in survivors:
            console.print(mutant, markup=False, highlight=False)
    console.print(table)
    return 0 if enough else 1


def judge(core: Core, folder: Path) -> tuple[Counter[str], list[str]]:
    """How many mutants of `core` came to what, and each survivor as a change."""
    copy_project(folder)
    lines = {
        "source_paths": ("poller",),
        "only_mutate": core.modules,
        "pytest_add_cli_args_test_selection": core.tests,
        "also_copy": ("state", "plugins", "benchmarks", "docs", "examples", "tools"),
    }
    sections = [f"{key}=\n" + "".join(f"    {value}\n" for value in values) for key, values in lines.items()]
    folder.joinpath("setup.cfg").write_text("[mutmut]\n" + "".join(sections))
    with folder.joinpath("output.txt").open("wb") as output:
        try:
            command = [sys.executable, "-m", "mutmut", "run", "--max-children", "2"]
            subprocess.run(command, cwd=folder, stdout=output, stderr=output, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            pass  # what was not tried is counted
    counts: Counter[str] = Counter()
    survivors: list[str] = []
    for meta in sorted(folder.glob("mutants/poller/**/*.meta")):
        variants = functions(meta.with_suffix(""))
        for name, status in orjson.loads(meta.read_bytes())["exit_code_by_key"].items():
            function, _, number = name.rpartition(".")[2].rpartition("__mutmut_")
            original, mutant = variants[f"{function}__mutmut_orig"], variants[f"{function}__mutmut_{number}"]
            kind = "text" if without_texts(original) == without_texts(mutant) else outcome(status)
            counts[kind] += 1
            if kind == "survived":
                survivors.append("\n".join([name, *changed_lines(original, mutant)]))
    if not counts:
        raise SystemExit(folder.joinpath("output.txt").read_text()[-4_000:])
    return counts, survivors


def copy_project(folder: Path) -> None:
    """The files of this project that are tracked."""
    names = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(Path(name).read_bytes())


def outcome(status: int | None) -> str:
    """What an exit status of mutmut stands for."""
    if status is None:
        return "not tried"
    if status == SURVIVED:
        return "survived"
    return "no test" if status in UNTESTED else "killed"


def functions(file: Path) -> dict[str, ast.AST]:
    """Every function of a file with mutants, by its name."""
    tree = ast.parse(file.read_text())
    return {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def without_texts(function: ast.AST) -> str:
    """The function's structure, all texts being the same."""
    body = ast.parse(ast.unparse(function)).body[0]
    for node in ast.walk(body):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.name = "_"
    return ast.dump(body)


def changed_lines(original: ast.AST, mutant: ast.AST) -> Iterator[str]:
    """The lines of which the mutant has others."""
    before, after = (textwrap.dedent(ast.unparse(one)).splitlines()[1:] for one in (original, mutant))
    for old, new in zip(before, after, strict=False):
        if old != new:
            yield f"  - {old.strip()}"
            yield f"  + {new.strip()}"


if __name__ == "__main__":
    sys.exit(main())
