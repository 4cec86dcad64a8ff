"""Every command explains itself, and the reference page says the same."""

import click
import pytest

from poller.cli import COMMANDS, invoke
from poller.cli.reference import PAGE, commands, context_of, page
from tests.support.command_line import Run

EVERY = dict(commands())
LOOKING = {"init", "check", "status", "plan", "events", "deliveries", "plugins", "show", "ledger", "backup", "doctor"}
DESIGNED = LOOKING | {"run", "once", "poll", "redeliver", "replay", "ping", "pause", "resume", "hold", "release"}
DESIGNED |= {"rebaseline", "simulate", "demo", "sandbox"}


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_help_with_an_example_that_is_its_own(name: str) -> None:
    text = EVERY[name].help or ""

    assert text.strip()[0].isupper()
    assert f"Example: poller {name}" in text


@pytest.mark.parametrize("name", EVERY)
def test_every_example_is_understood(name: str) -> None:
    """The words of the example are options and arguments that the command knows."""
    example = (EVERY[name].help or "").split("Example: ")[1].splitlines()[0]
    words = [word.strip('"') for word in example.split()][1 + len(name.split()) :]
    with context_of(name, EVERY[name]) as context:
        EVERY[name].parse_args(context, words)


@pytest.mark.parametrize("name", EVERY)
def test_every_option_says_what_it_is(name: str) -> None:
    options = [option for option in EVERY[name].params if isinstance(option, click.Option)]

    assert [option.name for option in options if not option.help] == []


def test_every_command_of_the_design_is_there() -> None:
    assert set(EVERY) >= DESIGNED


def test_the_reference_page_is_what_help_says() -> None:
    assert PAGE.read_text() == page(), "make docs writes it anew"


def test_the_list_of_commands_fits_a_terminal(poller: Run) -> None:
    ran = poller("--help")

    assert ran.status == 0
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    assert all(f"\n  {name} " in ran.out for name in COMMANDS)


@pytest.mark.parametrize(
    "words", [("nonsense",), ("status", "--nonsense"), ("poll",), ("events", "--limit", "x"), ("events", "--type")]
)
def test_wrong_usage_is_status_2_and_names_the_help(poller: Run, words: tuple[str, ...]) -> None:
    ran = poller(*words)

    command = f" {words[0]}" if words[0] in COMMANDS else ""
    assert ran.status == 2
    assert f"see poller{command} --help" in ran.err
    assert "Traceback" not in ran.err


def test_a_misspelt_command_names_the_nearest(poller: Run) -> None:
    assert poller("statsu").err == "Error: no command 'statsu': did you mean 'status'?\n"


def test_poller_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([]) == 0
    assert capsys.readouterr().out.startswith("Usage: poller ")
