from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import PostgresBackend


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[PostgresBackend]:
    """An empty database."""
    backend = PostgresBackend(tmp_path)
    yield backend
    backend.close()


@pytest.fixture(scope="session", autouse=True)
def server_ends() -> Iterator[None]:
    """One server of PostgreSQL serves all tests of a session that want one."""
    yield
    PostgresBackend.end()
