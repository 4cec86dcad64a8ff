"""Small mistakes put into the pure core, one at a time: does a test see each?

mutmut brings many packages, and is not one of ours: `python -m pip install mutmut` puts it beside Poller. A mutant that
differs in a text alone (a message) is counted apart: what a message says is read by people, and by the tests of docs.

    python -m tests.proofs.mutants [--sample N] [--minutes N] [--children N] [--keep FOLDER] [PACKAGE ...]

With `--keep`, a run goes on where an earlier one ended. A mutant that was killed stays killed unless its function has
changed since, whatever else has; all others are tried again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console
from rich.table import Table

ASKED: Final = 0.9  # of the mutants that are more than a text
SEED: Final = 17  # of the samples: the same mutants each time, while the code is the same
LOOK: Final = 30.0  # seconds from one line of progress to the next
KILLED: Final = (1, 3, 24, -24, -9, 36, 152, 255)  # exit statuses of mutmut: a test failed, or took too much
SURVIVED: Final = 0
UNTESTED: Final = (5, 33)
NOBODY: Final = "nobody"  # no mutant has this name: mutmut makes the mutants, looks which tests reach them, and ends


@dataclass(frozen=True, slots=True)
class Core:
    """Modules that are pure, and the quick tests that are to see a mistake in them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()  # tests of these that are left out: each would cost seconds for every mutant


def _modules(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names.split())


CORES: Final = {
    "budget": Core(
        ("poller/budget/*.py",),
        ("tests/budget", "tests/sources/test_transport.py", "tests/planner/test_feasibility.py"),
        ("tests/budget/test_headers.py::test_nothing_a_server_says_raises_or_blocks_for_longer_than_a_day",),
    ),
    "changes": Core(("poller/changes/*.py",), ("tests/changes",)),
    "planner": Core(
        ("poller/planner/*.py",),
        ("tests/planner",),
        tuple(
            f"tests/planner/{name}"
            for name in (
                "test_planner.py::test_busier_units_are_polled_more_often_by_the_square_root",
                "test_planner.py::test_weight_counts_like_a_higher_rate_and_cost_like_a_lower_one",
                "test_planner.py::test_a_new_unit_is_taken_for_one_like_its_source_has",
                "test_planner.py::test_a_new_weight_keeps_what_was_learned",
                "test_planner.py::test_a_new_last_page_inherits_the_rate_of_the_old_one",
                "test_planner.py::test_an_excited_child_is_polled_soon",
                "test_planner.py::test_an_import_does_not_hijack_the_budget",
                "test_planner.py::test_explanations_say_what_is_next_and_why",
                "test_planner.py::test_more_is_spent_in_busy_hours_within_bounds",
                "test_planner_memory.py::test_two_weeks_of_coming_and_going_leave_memory_flat_and_forget_no_unit",
            )
        ),
    ),
    "delivery": Core(
        _modules("poller/delivery", "batches breaker notices retry settlement subscription subscription_health"),
        tuple(f"tests/delivery/test_{name}.py" for name in ("batches", "breaker", "decisions", "notices")),
    ),
    "state": Core(
        _modules("state", "deliveries leases move operational place polls records rows tables"),
        tuple(f"tests/store/test_{name}.py" for name in ("move_decisions", "open_tables", "pure_records", "records")),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is tried of each package."""

    sample: int | None  # this many mutants, drawn with a fixed seed; None: all
    seconds: float  # for the mutants of one package
    children: int  # mutants that are tried at once


def main() -> int:
    """Exit status 0 when enough mutants of every package are killed."""
    packages, bounds, keep = _arguments()
    if find_spec("mutmut") is None:
        print("mutmut is not installed beside Poller: python -m pip install mutmut", file=sys.stderr)
        return 2
    table = Table("package", "mutants", "tried", "killed", "survived", "no test", "not tried", "texts", "share")
    enough = True
    for package in packages:
        with tempfile.TemporaryDirectory() as name:
            counts, survivors = judge(package, Path(name) if keep is None else keep / package, bounds)
        tried = counts["killed"] + counts["survived"] + counts["no test"]
        share = counts["killed"] / tried if tried else 0.0
        enough = enough and share >= ASKED
        found = [f"{counts[kind]}" for kind in ("killed", "survived", "no test", "not tried", "text")]
        table.add_row(package, f"{sum(counts.values())}", f"{tried}", *found, f"{share:.1%}")
        print("\n".join(survivors), flush=True)
    Console().print(table)
    if bounds.sample is not None:
        print(f"of each package {bounds.sample} mutants at most were tried, drawn with the seed {SEED}")
    return 0 if enough else 1


def _arguments() -> tuple[list[str], Bounds, Path | None]:
    parser = argparse.ArgumentParser(description="Put small mistakes into the pure core: does a test see each?")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(CORES)}; all by default")
    parser.add_argument("--sample", type=int, help="try this many mutants of each package, the same ones each time")
    parser.add_argument("--minutes", type=float, default=20.0, help="for each package at most (20)")
    parser.add_argument("--children", type=int, default=2, help="mutants that are tried at once (2)")
    parser.add_argument("--keep", type=Path, help="a folder whose results an earlier run has left, and this one leaves")
    asked = parser.parse_args()
    if unknown := set(asked.packages) - set(CORES):
        parser.error(f"no pure core is named {', '.join(sorted(unknown))}; there are {', '.join(CORES)}")
    bounds = Bounds(sample=asked.sample, seconds=60 * asked.minutes, children=asked.children)
    return asked.packages or list(CORES), bounds, asked.keep


def judge(package: str, folder: Path, bounds: Bounds) -> tuple[Counter[str], list[str]]:
    """How many mutants of a package came to what, and each survivor as a change."""
    copy_project(folder)
    configure(CORES[package], folder)
    run_mutmut(package, folder, bounds, [NOBODY])
    names = sorted(statuses(folder))
    if not names:
        raise SystemExit(folder.joinpath("output.txt").read_text()[-4_000:])
    if bounds.sample is not None and bounds.sample < len(names):
        names = sorted(random.Random(SEED).sample(names, bounds.sample))
    wanted = to_try(folder)
    if names := [name for name in names if name in wanted]:
        run_mutmut(package, folder, bounds, names)
    return results(folder)


def configure(core: Core, folder: Path) -> None:
    """Write the settings of mutmut."""
    lines = {
        "source_paths": ("poller", "state"),
        "only_mutate": core.modules,
        "pytest_add_cli_args_test_selection": (*core.tests, *(f"--deselect={test}" for test in core.slow)),
        "pytest_add_cli_args": ("-p", "no:unraisableexception"),  # it collects garbage longer than most tests take
        "also_copy": ("plugins", "benchmarks", "docs", "examples", "tools"),
    }
    sections = [f"{key}=\n" + "".join(f"    {value}\n" for value in values) for key, values in lines.items()]
    folder.joinpath("setup.cfg").write_text("[mutmut]\n" + "".join(sections))


def run_mutmut(package: str, folder: Path, bounds: Bounds, names: list[str]) -> None:
    """Try the named mutants, as far as the time allows."""
    end = time.monotonic() + bounds.seconds
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", f"{bounds.children}", *names]
    with folder.joinpath("output.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
        try:
            while process.poll() is None and (left := end - time.monotonic()) > 0:
                try:
                    process.wait(min(left, LOOK))
                except subprocess.TimeoutExpired:
                    print(f"{package}: {_progress(folder, names)}", file=sys.stderr, flush=True)
        finally:
            _end(process)  # what was not tried is counted as such


def _end(process: subprocess.Popen[bytes]) -> None:
    """End mutmut and its children; it may write its results first."""
    for way in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.poll() is None:
                os.killpg(process.pid, way)
            process.wait(10.0)


def _progress(folder: Path, names: list[str]) -> str:
    if names == [NOBODY]:
        return "mutants are made, and the tests that reach them are looked for"
    known = statuses(folder)
    return f"{sum(known.get(name) is not None for name in names)} of {len(names)} tried"


def statuses(folder: Path) -> dict[str, int | None]:
    """The exit status of every mutant; None: it was not tried. Files that are being written are left out."""
    found: dict[str, int | None] = {}
    for meta in folder.glob("mutants/**/*.meta"):
        with contextlib.suppress(orjson.JSONDecodeError):
            found |= orjson.loads(meta.read_bytes())["exit_code_by_key"]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A mutant that was made, and what came of it."""

    name: str
    kind: str  # text, killed, survived, no test, not tried
    original: ast.AST
    changed: ast.AST


def mutants(folder: Path) -> Iterator[Mutant]:
    """Every mutant of a folder."""
    for meta in sorted(folder.glob("mutants/**/*.meta")):
        variants = functions(meta.with_suffix(""))
        for name, status in orjson.loads(meta.read_bytes())["exit_code_by_key"].items():
            function, _, number = name.rpartition(".")[2].rpartition("__mutmut_")
            original, changed = variants[f"{function}__mutmut_orig"], variants[f"{function}__mutmut_{number}"]
            kind = "text" if without_texts(original) == without_texts(changed) else outcome(status)
            yield Mutant(name=name, kind=kind, original=original, changed=changed)


def to_try(folder: Path) -> set[str]:
    """The mutants that a run tries: not those of texts, nor those that are known to be killed."""
    return {one.name for one in mutants(folder) if one.kind not in ("text", "killed")}


def results(folder: Path) -> tuple[Counter[str], list[str]]:
    """How many mutants came to what, and each survivor as a change."""
    counts: Counter[str] = Counter()
    survivors: list[str] = []
    for one in mutants(folder):
        counts[one.kind] += 1
        if one.kind in ("survived", "no test"):
            survivors.append("\n".join([f"{one.name} ({one.kind})", *changed_lines(one.original, one.changed)]))
    return counts, survivors


def copy_project(folder: Path) -> None:
    """Copy the files of this project that are tracked, in place of an earlier copy.

    mutmut keeps what it knows of functions that are as they were, and looks again which tests reach them.
    """
    for earlier in set(folder.glob("*")) - {folder / "mutants"}:
        shutil.rmtree(earlier) if earlier.is_dir() else earlier.unlink()
    shutil.rmtree(folder / "mutants" / "tests", ignore_errors=True)
    folder.joinpath("mutants", "mutmut-stats.json").unlink(missing_ok=True)
    names = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(Path(name).read_bytes())


def outcome(status: int | None) -> str:
    """What an exit status of mutmut stands for."""
    if status == SURVIVED:
        return "survived"
    if status in KILLED:
        return "killed"
    return "no test" if status in UNTESTED else "not tried"


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
