"""What several tests are given."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from poller.cli import invoke
from poller.redaction import SECRETS
from tests.support.command_line import Ran, Run, Shop, open_shop

hypothesis.settings.register_profile("unhurried", deadline=None)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Modules that test every command load the command line, which silences the log until it is set up."""
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_secrets() -> None:
    """Secrets of one test are no secrets of the next."""
    SECRETS.__init__()  # type: ignore[misc]


def log_as_before() -> Iterator[None]:
    """A command that a test or a fixture calls sets up the log, or silences it: not for the next test."""
    was_set_up = structlog.is_configured()
    yield
    if structlog.is_configured() and not was_set_up:
        structlog.reset_defaults()


log_of_a_test = pytest.fixture(autouse=True)(log_as_before)
log_of_a_module = pytest.fixture(autouse=True, scope="module")(log_as_before)


@pytest.fixture
def poller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`poller(*words)` in an empty folder: what it printed, and its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLLER_CONFIG", raising=False)

    def run_words(*words: object) -> Ran:
        capfd.readouterr()
        status = invoke([str(word) for word in words])
        out, err = capfd.readouterr()
        return Ran(status=status, out=out, err=err)

    yield run_words
    structlog.reset_defaults()  # it writes to a stream that ends with the test


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop
