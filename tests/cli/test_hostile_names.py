"""Whatever others wrote (ids, fields, answers, names, plugins), no command lets it steer a terminal or forge a line."""

import ast
import json
import re
from pathlib import Path

import pytest

import poller.cli
from tests.support.command_line import Run, Shop

HOSTILE = "\x1b[31mE\x1b]0;pwn\x07\x9b5mC\u202ebidi\u2066\r\n<0>forged\nmore\u2028sep\x85nel"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
FORGED = re.compile("^(<0>|forged|more|sep|nel)", re.MULTILINE)
SUBSCRIPTIONS = """
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{url}/hook"
allow_private = true
types = ["*", {glob}]
retry = ["1h"]
[[subscriptions]]
name = "text"
plugin = "console"
[[subscriptions]]
name = "json"
plugin = "console"
format = "json"
[[subscriptions]]
name = "template"
plugin = "console"
template = "{{{{ event.subject }}}} {{{{ event.data.object.name }}}}"
"""
COMMANDS = [
    ["check"],
    ["plugins"],
    ["once", "--wait", "1s"],
    ["try", "shop/items"],
    ["check", "--online"],
    ["status"],
    ["events"],
    ["events", "--json"],
    ["deliveries"],
    ["deliveries", "show", "1"],
    ["doctor"],
    ["show", "shop/items", f"1{HOSTILE}"],
    ["plan"],
    ["ledger"],
    *(["preview", name] for name in ("hook", "text", "json", "template")),
    ["ping", "hook"],
    ["hold", "shop/items"],
    ["resume", HOSTILE],
    ["redeliver", "--subscription", HOSTILE],
    ["events", "--type", HOSTILE],
    ["backup", HOSTILE],
    ["--config", HOSTILE, "check"],
    [HOSTILE],
]


def is_harmless(text: str) -> bool:
    return not OBEYED.search(text) and not FORGED.search(text)


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 503])
def test_no_command_prints_what_a_terminal_obeys_or_the_journal_takes_for_a_line(
    poller: Run, shop: Shop, tmp_path: Path, status: int
) -> None:
    glob = json.dumps(f"{HOSTILE}*")
    shop.configure(tmp_path, more=SUBSCRIPTIONS.format(url=shop.url, glob=glob)).write_text(
        (tmp_path / "poller.toml")
        .read_text()
        .replace('listen = ""', 'listen = ""\nplugins_dir = "plugins"')
        .replace('path = "/items"', 'path = "/items"\nbaseline = "emit"')
    )
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text(f"raise RuntimeError({HOSTILE!r})")
    (tmp_path / "plugins" / "\x1b[31m.py").write_text("raise RuntimeError")
    shop.items = [{"id": f"1{HOSTILE}", "name": f"name{HOSTILE}", f"key{HOSTILE}": 1}]
    if status != 200:
        shop.answer = (status, (HOSTILE * 3).encode(), "text/plain")

    ran = {words[0]: poller(*words) for words in COMMANDS}

    assert "Traceback" not in "".join(one.err for one in ran.values())
    assert [name for name, one in ran.items() if not is_harmless(one.out + one.err)] == []


def test_a_budget_is_named_like_a_source(poller: Run, shop: Shop, tmp_path: Path) -> None:
    shop.configure(tmp_path, more=f'[budgets.{json.dumps(HOSTILE)}]\nlimits = ["1/s"]\n')

    ran = poller("check")

    assert ran.status == 2
    assert "is not a valid name" in ran.err
    assert is_harmless(ran.err)


def test_commands_print_through_what_escapes() -> None:
    direct = {
        f"{path.name}:{node.lineno}"
        for path in Path(poller.cli.__file__).parent.glob("*.py")
        if path.name != "output.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "click.secho", "print")
        if not ast.unparse(node.args[0]).startswith("printable")
    }

    assert direct == set()
