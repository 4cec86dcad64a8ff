"""What `make prove-tests` counts, and what it tries again in a folder that an earlier run has left."""

from pathlib import Path

import orjson
import pytest

from tests.proofs.mutants import copy_project, results, to_try

FUNCTION = """
def x_price__mutmut_{name}(n):
    if n {compare} 3:
        raise ValueError("{text}")
    return n
"""


def left_by_a_run(folder: Path, **statuses: int | None) -> Path:
    """A folder with a mutant for each status, by the name of the mutant; one that is named `text` differs in a text."""
    file = folder / "mutants" / "state" / "price.py"
    file.parent.mkdir(parents=True)
    original = FUNCTION.format(name="orig", compare="<", text="too few")
    variants = [
        FUNCTION.format(name=name, compare="<" if name == "text" else "<=", text="XX" if name == "text" else "too few")
        for name in statuses
    ]
    file.write_text("".join([original, *variants]))
    codes = {f"state.price.x_price__mutmut_{name}": status for name, status in statuses.items()}
    file.with_suffix(".py.meta").write_bytes(orjson.dumps({"exit_code_by_key": codes}))
    return folder


def test_every_mutant_is_counted_once_and_survivors_are_shown_as_changes(tmp_path):
    counts, survivors = results(left_by_a_run(tmp_path, killed=1, slow=-24, text=0, missed=0, unreached=33, new=None))

    assert counts == {"killed": 2, "text": 1, "survived": 1, "no test": 1, "not tried": 1}
    assert survivors == [
        "state.price.x_price__mutmut_missed (survived)\n  - if n < 3:\n  + if n <= 3:",
        "state.price.x_price__mutmut_unreached (no test)\n  - if n < 3:\n  + if n <= 3:",
    ]


def test_a_run_that_goes_on_tries_what_was_not_killed_and_is_no_text(tmp_path):
    left_by_a_run(tmp_path, killed=1, slow=-24, text=None, missed=0, unreached=33, new=None)

    assert {name.rpartition("_")[2] for name in to_try(tmp_path)} == {"missed", "unreached", "new"}


@pytest.mark.skipif(not Path(".git").exists(), reason="the files that are tracked are copied")
def test_a_copy_replaces_an_earlier_one_and_leaves_what_is_known_of_mutants(tmp_path):
    left_by_a_run(tmp_path, killed=1)
    for name in ("tests/test_gone.py", "mutants/tests/test_gone.py", "mutants/mutmut-stats.json"):
        tmp_path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(name).touch()
    copy_project(tmp_path)

    assert (tmp_path / "poller" / "__init__.py").exists()
    assert [path.name for path in tmp_path.rglob("*") if path.name in ("test_gone.py", "mutmut-stats.json")] == []
    assert results(tmp_path)[0] == {"killed": 1}
