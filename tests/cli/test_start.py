"""What a command loads before it does anything: the dear libraries are left to whoever uses them."""

import subprocess
import sys

import pytest

DEAR = {"aiohttp", "apprise", "apscheduler", "fastapi", "httpx", "jinja2", "jsonpath", "numpy", "pydantic", "rich"}
DEAR |= {"pygments", "slack_sdk", "sqlite_utils", "structlog", "uvicorn"}


def loaded(*words: str) -> set[str]:
    """The dear libraries that a command line has loaded."""
    code = "import sys; from poller.cli import invoke; invoke(sys.argv[1:]); sys.stderr.write(' '.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return DEAR & {name.partition(".")[0] for name in ran.stderr.split()}


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_and_version_load_no_dear_library(words: tuple[str, ...]) -> None:
    assert loaded(*words) == set()


def test_a_sweep_loads_neither_the_server_nor_sinks_that_nobody_uses() -> None:
    assert not loaded("once", "--help") & {"aiohttp", "apprise", "fastapi", "slack_sdk", "uvicorn"}


@pytest.mark.parametrize("command", ["events", "once", "status"])
def test_no_command_loads_what_colours_code(command: str) -> None:
    assert not loaded(command, "--help") & {"pygments"}
