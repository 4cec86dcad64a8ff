"""Help of commands, the manual page, and completion of names."""

from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from poller.cli import COMMANDS, cli
from poller.cli.context import CliContext
from poller.cli.names import named
from tests.support.command_line import Run

CONFIG = """
[budgets.office]
[sources.shop]
plugin = "rest"
[sources.shop.endpoints.items]
[[subscriptions]]
name = "crm"
[[subscriptions]]
name = "chat"
"""


def completed(folder: Path, kinds: tuple[str, ...], typed: str) -> list[str]:
    """What a shell is offered, with a configuration that is not even valid."""
    (folder / "poller.toml").write_text(CONFIG)
    context = click.Context(cli, obj=CliContext(path=folder / "poller.toml"))
    return named(*kinds)(context, click.Argument(["name"]), typed)


@pytest.mark.parametrize(
    ("kinds", "typed", "offered"),
    [
        (("subscription",), "c", ["chat", "crm"]),
        (("subscription",), "cr", ["crm"]),
        (("subscription", "budget"), "", ["chat", "crm", "office"]),
        (("endpoint",), "sh", ["shop/items"]),
        (("source",), "", ["shop"]),
    ],
)
def test_names_of_the_configuration_are_completed(
    kinds: tuple[str, ...], typed: str, offered: list[str], tmp_path: Path
) -> None:
    assert completed(tmp_path, kinds, typed) == offered


def test_without_a_configuration_nothing_is_completed(tmp_path: Path) -> None:
    context = click.Context(cli, obj=CliContext(path=tmp_path / "none.toml"))
    assert named("subscription")(context, click.Argument(["name"]), "") == []


def test_help_shows_what_help_of_the_command_shows(poller: Run) -> None:
    assert poller("help", "deliveries", "show").out == poller("deliveries", "show", "--help").out
    assert poller("help").out == poller("--help").out


def test_help_of_what_is_no_command_is_wrong_usage(poller: Run) -> None:
    assert poller("help", "nonsense").status == 2


def test_the_manual_page_names_every_command(poller: Run) -> None:
    page = poller("help", "--man").out

    assert page.startswith(".TH POLLER 1\n")
    assert all(f"\\fB{name}\\fR".replace("-", "\\-") in page for name in COMMANDS)


def test_the_manual_page_shows_commands_within_commands_and_what_options_take(poller: Run) -> None:
    page = poller("help", "--man").out.replace("\\-", "-")

    assert "\\fBdeliveries show\\fR [OPTIONS] ID\n" in page
    assert "\\fB--for\\fR \\fIDURATION\\fR\n" in page
    assert "\\fB--json\\fR\n" in page


def offered(words: str) -> list[str]:
    *given, typed = words.split(" ")
    return [one.value for one in BashComplete(cli, {}, "poller", "_POLLER_COMPLETE").get_completions(given, typed)]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("pause ", ["chat", "crm"]),
        ("redeliver --subscription ", ["chat", "crm"]),
        ("deliveries --subscription cr", ["crm"]),
        ("events --source ", ["shop"]),
        ("show ", ["shop/items"]),
        ("hold sh", ["shop/items"]),
        ("rename old ", ["chat", "crm", "shop"]),
        ("help compl", ["completion"]),
    ],
)
def test_a_shell_is_offered_names_wherever_a_command_takes_one(
    words: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poller.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLLER_CONFIG", raising=False)

    assert offered(words) == names


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_a_shell(shell: str, poller: Run) -> None:
    assert "_POLLER_COMPLETE" in poller("completion", shell).out


def test_top_is_for_a_terminal(poller: Run) -> None:
    ran = poller("top")

    assert (ran.status, "poller status --json" in ran.err) == (2, True)
