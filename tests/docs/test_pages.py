"""Every code block of the documentation is read as what it says it is, and every link leads somewhere."""

import ast
import contextlib
import inspect
import re
import shlex
import subprocess
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import click
import orjson
import pytest

from poller.cli import cli
from poller.config.load import load
from poller.hooks.loading import load_plugins
from tests.docs.fences import ROOT, Fence, fences, pages

FENCES = [fence for page in pages() for fence in fences(page) if fence.text]
SECRETS = {"SECRET": "whsec_" + "c2VjcmV0" * 6, "WEBHOOK": "https://hooks.example/x", "_URL": "json://notify.example/x"}
BEFORE = {"sudo", "time"}
READ_AS_TEXT = {"text", "http", "diff", "ini", "js", "yaml", "dockerfile", "sql", "html", "promql"}


def of(*languages: str) -> list[object]:
    return [pytest.param(fence, id=str(fence)) for fence in FENCES if fence.language in languages]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_names_its_language(page: Path) -> None:
    known = READ_AS_TEXT | {"toml", "json", "python", "console", "sh"}

    assert {str(fence): fence.language for fence in fences(page) if fence.language not in known} == {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("fence", of("toml"))
def test_every_toml_block_is_valid(fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tomllib.loads(fence.text)
    if not tables.keys() <= {"poller", "budgets", "sources", "subscriptions"} or fence.mark("run by") is not None:
        return  # keys of one table, another program's file, or a plugin that another test loads
    for name in re.findall(r'(?:env|credential) = "(\w+)"', fence.text):
        monkeypatch.setenv(name, next((value for part, value in SECRETS.items() if part in name), "secret"))
    for name in re.findall(r'(?:file|template_file|ca_file) = "([\w./-]+)"', fence.text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("secret")
    config = tmp_path / "poller.toml"
    config.write_text(fence.text)

    load(config, load_plugins(config))


@pytest.mark.parametrize("fence", of("json"))
def test_every_json_block_is_json(fence: Fence) -> None:
    orjson.loads(fence.text)


@pytest.mark.parametrize("fence", of("python"))
async def test_every_python_block_is_run_or_says_why_not(fence: Fence) -> None:
    code = compile(fence.text, str(fence), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if fence.mark("file") is None and fence.mark("not run") is None and fence.mark("run by") is None:
        run = types.FunctionType(code, {})()
        if inspect.isawaitable(run):
            await run


@pytest.mark.parametrize("fence", of("toml", "python", "console", "sh"))
def test_a_block_that_another_test_runs_names_it(fence: Fence) -> None:
    if (test := fence.mark("run by")) is not None:
        assert (ROOT / test).exists()


def commands(fence: Fence) -> Iterator[str]:
    """The shell commands of a block, without prompt and output."""
    lines = iter(fence.text.splitlines())
    for line in lines:
        if fence.language == "console":
            if not line.startswith("$ "):
                continue
            line = line[2:]
        while line.endswith("\\"):
            line = line[:-1] + next(lines).removeprefix("> ")
        if (end := re.search(r"<<'?(\w+)'?$", line)) is not None:
            while next(lines) != end[1]:
                pass
        yield line


@pytest.mark.parametrize("fence", of("console", "sh"))
def test_every_poller_command_exists_with_its_options(fence: Fence) -> None:
    for line in commands(fence):
        for part in re.split(r"&&|\||;|&(?:\s|$)|\s>+\s", line.split("  #")[0]):
            words = shlex.split(part.split(" # ")[0])
            program = next((place for place, word in enumerate(words) if word not in BEFORE and "=" not in word), None)
            if program is not None and words[program] == "poller":
                parsed(words[program + 1 :])


def parsed(words: list[str]) -> None:
    """Raises click's errors where a command, an option or an argument does not exist."""
    with contextlib.suppress(click.exceptions.Exit):  # --help and --version
        context = cli.make_context("poller", list(words))
        while isinstance(context.command, click.Group) and (rest := [*context._protected_args, *context.args]):
            name, command, rest = context.command.resolve_command(context, rest)
            assert command is not None
            context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("fence", of("sh"))
def test_every_shell_block_is_read_by_a_shell(fence: Fence) -> None:
    subprocess.run(["bash", "-n"], input=fence.text, text=True, check=True)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+\s+(.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []
