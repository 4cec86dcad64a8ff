"""What a command loads before it does anything: the dear libraries are left to whoever uses them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import running_daemon, wait_for
from tests.support.loopback import Handler, serving_handler

DEAR = {"aiohttp", "apprise", "apscheduler", "fastapi", "httpx", "jinja2", "jsonpath", "numpy", "pydantic", "rich"}
DEAR |= {"pygments", "slack_sdk", "sqlite_utils", "structlog", "uvicorn"}
CONFIG = """
[poller]
listen = ""
[sources.site]
plugin = "rest"
base_url = "{url}"
[sources.site.endpoints.page]
path = "/page"
"""


class Nothing(Handler):
    """A list of nothing."""

    def do_GET(self) -> None:
        """Answer."""
        self.answer(200, b"[]")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """A configuration with one source, which answers."""
    with serving_handler(Nothing) as address:
        path = tmp_path / "poller.toml"
        path.write_text(CONFIG.format(url=f"http://{address}"))
        yield path


PRINTING = "import sys; from poller.cli import invoke; invoke(sys.argv[1:])"
PRINTING += "; sys.stderr.write('\\n' + ' '.join(sys.modules))"


def loaded(*words: str) -> set[str]:
    """The dear libraries that a command line has loaded."""
    return dear(subprocess.run([sys.executable, "-c", PRINTING, *words], capture_output=True, text=True).stderr)


def dear(printed: str) -> set[str]:
    """The dear libraries among the modules on the last line."""
    return DEAR & {name.partition(".")[0] for name in printed.splitlines()[-1].split()}


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_and_version_load_no_dear_library(words: tuple[str, ...]) -> None:
    assert loaded(*words) == set()


def test_a_sweep_loads_neither_the_server_nor_sinks_that_nobody_uses() -> None:
    assert not loaded("once", "--help") & {"aiohttp", "apprise", "fastapi", "slack_sdk", "uvicorn"}


def test_a_daemon_that_nobody_asks_loads_nothing_that_answers(config: Path) -> None:
    words = [sys.executable, "-c", PRINTING, "run", "--config", str(config)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as daemon:
        wait_for("its socket", (config.with_name("poller.db.sock")).exists)
        daemon.terminate()
        _, printed = daemon.communicate()

    found = dear(printed)
    assert "httpx" in found
    assert not found & {"aiohttp", "apprise", "fastapi", "jinja2", "pygments", "rich", "slack_sdk", "uvicorn"}


def test_a_status_without_a_daemon_needs_neither_planner_nor_log_nor_terminal(config: Path) -> None:
    assert loaded("once", "--config", str(config)) >= {"httpx", "numpy"}

    assert loaded("status", "--config", str(config)) <= {"httpx", "pydantic"}


def test_a_sweep_of_a_state_that_is_up_to_date_makes_no_migration(config: Path) -> None:
    assert "sqlite_utils" in loaded("once", "--config", str(config))

    assert "sqlite_utils" not in loaded("once", "--config", str(config))


def test_a_status_beside_a_daemon_needs_no_configuration(config: Path) -> None:
    with running_daemon(config):
        assert loaded("status", "--config", str(config)) <= {"httpx"}


def test_what_is_hidden_while_a_library_is_imported_can_be_imported_afterwards() -> None:
    code = (
        "import poller.lean as lean; lean.begin(); import structlog, httpx, rich.traceback, httpx._main; lean.begin()"
    )
    code += "; import sys; print(sum(type(one).__name__ == '_LeanFinder' for one in sys.meta_path))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout == "1\n"


@pytest.mark.parametrize("command", ["events", "once", "status"])
def test_no_command_loads_what_colours_code(command: str) -> None:
    assert not loaded(command, "--help") & {"pygments"}
