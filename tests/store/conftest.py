from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import BACKENDS, Backend, PostgresBackend, opened_backend


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A state of each kind, empty."""
    with opened_backend(request.param, tmp_path) as backend:
        yield backend


@pytest.fixture(scope="session", autouse=True)
def server_ends() -> Iterator[None]:
    """One server of PostgreSQL serves all tests of a session that want one."""
    yield
    PostgresBackend.end()
