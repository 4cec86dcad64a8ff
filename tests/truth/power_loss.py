"""A short run on a virtual clock, whose power goes at every sync and in between."""

import math
from pathlib import Path

import pytest

from tests.proofs.power.__main__ import Tried, try_losses
from tests.proofs.power.run import Recording, record_sweeps
from tests.proofs.power.vfs import is_possible


async def recording(folder: Path, *, lives: int = 2) -> Recording:
    """The run."""
    if not is_possible():
        pytest.skip("this Python hides its SQLite")
    run = folder / "run"
    run.mkdir()
    return await record_sweeps(run, lives=lives, sweeps=1, seed=1)


async def losses(run: Recording, folder: Path) -> Tried:
    """What breaks a promise, after any loss."""
    return await try_losses(run, folder / "bench", samples=1, seed=1, until=math.inf, every=25)
