"""`poller.toml`: whatever is wrong is told with file, key and what to do; and no key lacks its line in the docs."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from poller.config.load import load
from poller.config.models import BudgetConfig, EndpointConfig, Settings, SourceConfig, SubscriptionConfig
from poller.hooks.loading import Plugins, load_plugins
from poller.options.problems import ConfigError
from tests.support.command_line import Run

SHOP = """
[sources.shop]
plugin = "rest"
base_url = "https://shop.example/api"
[sources.shop.endpoints.items]
path = "/items"
"""
ACME = """
[sources.acme]
plugin = "nutcache"
access_token = "t"
"""
CONSOLE = """
[[subscriptions]]
name = "out"
plugin = "console"
"""
HOOK = """
[[subscriptions]]
name = "hook"
plugin = "http"
url = "https://crm.example/hook"
"""
MAIL = """
[[subscriptions]]
name = "mail"
plugin = "email"
from = "a@example.com"
to = ["b@example.com"]
"""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


def problems(folder: Path, text: str, plugins: Plugins) -> list[str]:
    file = folder / "poller.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, plugins)
    return [problem.line("poller.toml") for problem in caught.value.problems]


def shop(key: str) -> str:
    """A shop with one more key in the source's own table."""
    return SHOP.replace("[sources.shop.e", f"{key}\n[sources.shop.e")


WRONG = [
    # The file as a whole.
    ('[poller]\nstate = "a', "", "not valid TOML", "quotes"),
    ("[poller]\nstate = 'a'\nstate = 'b'", "", "not valid TOML", "may appear only once"),
    ("pollr = 1", "pollr", "unknown table", "did you mean 'poller'?"),
    ("poller = 1", "poller", "not a table", "write [poller]"),
    ("sources = 1", "sources", "not a table of tables", "write [sources.NAME]"),
    ("[subscriptions]\nname = 'a'", "subscriptions", "not a list of tables", "write [[subscriptions]]"),
    # [poller]
    ("[poller]\nstat = 'a'", "poller.stat", "unknown key", "did you mean 'state'?"),
    ("[poller]\nstate = 5", "poller.state", "path", ""),
    ("[poller]\nstate = 'mysql://h/d'", "poller.state", "a database", "poller.db"),
    ("[poller]\nlisten = 'all'", "poller.listen", "HOST:PORT", "127.0.0.1:8765"),
    ("[poller]\nlisten = '0.0.0.0:80'", "poller", "lets other machines connect", "set poller.token"),
    ("[poller]\ntoken = { env = 'NOT_SET' }", "poller.token", "NOT_SET is not set", "export NOT_SET="),
    ("[poller]\ntoken = { file = 'none' }", "poller.token", "cannot be read", "write the secret into that file"),
    ("[poller]\ntoken = { credential = 'x' }", "poller.token", "CREDENTIALS_DIRECTORY", "LoadCredential=x:PATH"),
    ("[poller]\ntoken = { environment = 'X' }", "poller.token", "{ env =", ""),
    ("[poller]\nretention = '90'", "poller.retention", "a duration is", '"3d"'),
    ("[poller]\nretention = 90", "poller.retention", "a duration is", '"3d"'),
    ("[poller]\ntimezone = 'Mars/Base'", "poller.timezone", "Mars/Base", "Europe/Berlin"),
    ("[poller]\nlog_level = 'loud'", "poller.log_level", "'debug', 'info'", ""),
    ("[poller]\nlog_format = 'xml'", "poller.log_format", "'json'", ""),
    ("[poller]\nallowed_hosts = 'a'", "poller.allowed_hosts", "not a list", "write a list"),
    # [budgets.NAME]
    ("[budgets.a]\nlimits = ['5/x']", "budgets.a.limits[0]", "a rate is", '"200/min"'),
    ("[budgets.a]\nlimits = '5/s'", "budgets.a.limits", "not a list", "write a list"),
    ("[budgets.a]\nlimits = []", "budgets.a.limits", "at least 1", ""),
    ("[budget.a]\nlimits = ['5/s']", "budget", "unknown table", "did you mean 'budgets'?"),
    ("[budgets.a]\nlimit = ['5/s']", "budgets.a.limit", "unknown key", "did you mean 'limits'?"),
    ("[budgets.a]\nshare = 2", "budgets.a.share", "at most 1", ""),
    ("[budgets.a]\nshare = 'half'", "budgets.a.share", "number", ""),
    ("[budgets.a]\nconcurrency = 0", "budgets.a.concurrency", "at least 1", ""),
    # [sources.NAME]
    ("[sources.a]\nplugin = 'rst'", "sources.a.plugin", "no source plugin 'rst'", "'rest'"),
    ("[sources.a]\nbase_url = 'http://x'", "sources.a.plugin", "required, but missing", "add it"),
    (
        "[sources.'a b']\nplugin = 'rest'\nbase_url = 'http://x'\nendpoints.x.path = '/'",
        "sources.a b.name",
        "is not a valid name",
        "",
    ),
    (SHOP + "pth = 1", "sources.shop.endpoints.items.pth", "unknown key", "did you mean 'path'?"),
    (shop("weigth = 1"), "sources.shop.weigth", "unknown key", ""),
    (SHOP + "weigth = 1", "sources.shop.endpoints.items.weigth", "unknown key", "did you mean 'weight'?"),
    (SHOP + "weight = 0", "sources.shop.endpoints.items.weight", "more than 0", ""),
    (SHOP + "weight = '5'", "sources.shop.endpoints.items.weight", "not a number", "without quotes"),
    (SHOP + "weight = 'much'", "sources.shop.endpoints.items.weight", "number", ""),
    (SHOP + "max_staleness = '10'", "sources.shop.endpoints.items.max_staleness", "a duration is", ""),
    (SHOP + "ignore = ['seen']", "sources.shop.endpoints.items.ignore[0]", 'begins with "/"', "/last_viewed"),
    (SHOP + "baseline = 'loud'", "sources.shop.endpoints.items.baseline", "'silent' or 'emit'", ""),
    (shop("timeout = '0s'"), "sources.shop.timeout", "at least 1ms", ""),
    ("[poller]\nretention = '0d'\n" + SHOP, "poller.retention", "at least 1m", ""),
    (HOOK + "timeout = '2m'", "subscriptions.hook.timeout", "between 1ms and 1m", ""),
    (SHOP + "deletes = 1", "sources.shop.endpoints.items.deletes", "neither true nor false", "write true or false"),
    (SHOP + "deleted_when = 'object.x =='", "sources.shop.endpoints.items.deleted_when", "CEL", ""),
    (SHOP + "pagination = { type = 'pages' }", "sources.shop.endpoints.items.pagination", "'page'", ""),
    (
        SHOP + "pagination = { type = 'page', siz = 1 }",
        "sources.shop.endpoints.items.pagination.siz",
        "unknown",
        "size",
    ),
    (
        SHOP + "pagination = { type = 'link', size = 1 }",
        "sources.shop.endpoints.items.pagination.size",
        "unknown key",
        "known: in, param, rebase, total, total_header, type",
    ),
    (SHOP + "items = '$.['", "sources.shop.endpoints.items.items", "", ""),
    (SHOP + "id = 1", "sources.shop.endpoints.items.id", "this is not a text", "in quotes"),
    (SHOP + "body = { a = 1 }", "sources.shop.endpoints.items.body", "a GET has none", 'method = "POST"'),
    (shop("namespace = 'two words'"), "sources.shop.namespace", "a namespace is one word", "letters"),
    (CONSOLE + "template_file = 'none'", "subscriptions.out.template_file", "cannot be read", ""),
    (SHOP + "item_path = '/items'", "sources.shop.endpoints.items.item_path", "{id}", "/items/{id}"),
    (
        SHOP.replace('/items"', '/{parent.id}"') + "parent = 'itms'",
        "sources.shop",
        'there is no endpoint "itms"',
        '"items"?',
    ),
    (SHOP.replace("https:", "gopher:"), "sources.shop.base_url", "http", ""),
    (
        shop("budget = 'big'"),
        "sources.shop.budget",
        "the budget 'big' does not exist",
        "[bud",
    ),
    (
        shop("timeout = '1 fortnight'"),
        "sources.shop.timeout",
        "duration",
        "",
    ),
    (
        shop("max_answer = '1 box'"),
        "sources.shop.max_answer",
        "a size is",
        "",
    ),
    (shop("ca_file = 'no.pem'"), "sources.shop.ca_file", "no.pem", ""),
    (shop("proxy = 'nowhere'"), "sources.shop.proxy", "http://", ""),
    (shop("auth = {type='magic'}"), "sources.shop.auth", "'bearer'", ""),
    (
        shop("auth = {type='bearer'}"),
        "sources.shop.auth.token",
        "missing",
        "",
    ),
    (ACME + "[sources.acme.endpoints.projets]", "sources.acme.endpoints", 'did you mean "projects"?', ""),
    (ACME.replace("access_token", "acces_token"), "sources.acme.acces_token", "unknown key", "'access_token'"),
    (ACME.replace('access_token = "t"', ""), "sources.acme", "credentials are missing", "NUTCACHE_TOKEN"),
    # [[subscriptions]]
    ("[[subscriptions]]\nplugin = 'console'", "subscriptions[0].name", "required, but missing", "add it"),
    ("[[subscriptions]]\nname = 'a'", "subscriptions.a.plugin", "required, but missing", "add it"),
    (CONSOLE.replace('"console"', '"consol"'), "subscriptions.out.plugin", "no sink plugin 'consol'", "'console'"),
    (CONSOLE + CONSOLE, "subscriptions.out", "another subscription already has this name", "a unique name"),
    (CONSOLE + "typs = ['*']", "subscriptions.out.typs", "unknown key", "did you mean 'types'?"),
    (CONSOLE + "types = []", "subscriptions.out.types", "at least 1", ""),
    (CONSOLE + "sources = ['shop']", "subscriptions.out.sources", "the source 'shop' does not exist", ""),
    (CONSOLE + "where = 'data.x =='", "subscriptions.out.where", "CEL", ""),
    (CONSOLE + "start = 'soon'", "subscriptions.out.start", '"now", "beginning"', ""),
    (CONSOLE + "start = '2026-13-01'", "subscriptions.out.start", "", ""),
    (CONSOLE + "start = '2026-11-01T00:00:00'", "subscriptions.out.start", "needs its offset", "Z"),
    (CONSOLE + "start = -1", "subscriptions.out.start", "", ""),
    (CONSOLE + "digest = 'often'", "subscriptions.out.digest", "duration", ""),
    (CONSOLE + "digest = '61 * * * *'", "subscriptions.out.digest", "", "crontab"),
    (CONSOLE + "retry = ['5']", "subscriptions.out.retry[0]", "a duration is", ""),
    (CONSOLE + "concurrency = 'all'", "subscriptions.out.concurrency", "not a whole number", "without quotes"),
    (CONSOLE + "enabled = 'yes'", "subscriptions.out.enabled", "neither true nor false", "write true or false"),
    (CONSOLE + "format = 'xml'", "subscriptions.out.format", "'text' or 'json'", ""),
    (CONSOLE + "template = '{{ nope'", "subscriptions.out.template", "", ""),
    (HOOK.replace("https:", "ftp:"), "subscriptions.hook.url", "https://", ""),
    (HOOK.replace('url = "https://crm.example/hook"', ""), "subscriptions.hook.url", "required", "add it"),
    (HOOK + "secret = 'a!c'", "subscriptions.hook.secret", "whsec_", ""),
    (HOOK + "secret = { env = 'NOT_SET' }", "subscriptions.hook.secret", "NOT_SET is not set", "export NOT_SET="),
    (HOOK + "mode = 'both'", "subscriptions.hook.mode", "'structured' or 'batched'", ""),
    (MAIL.replace('"a@example.com"', '"nobody"'), "subscriptions.mail.from", "@", ""),
    (MAIL + "tls = 'yes'", "subscriptions.mail.tls", "'starttls'", ""),
    ("[[subscriptions]]\nname='s'\nplugin='slack'", "subscriptions.s", "give webhook_url, or token and channel", ""),
    ("[[subscriptions]]\nname='j'\nplugin='jsonl'", "subscriptions.j.path", "required", "add it"),
    # In words of the file, not of the library that reads it.
    ("[poller]\nlisten = 8765", "poller.listen", "this is not a text", "in quotes"),
    ("[poller]\nlog_level = 'loud'", "poller.log_level", "this must be 'debug', 'info'", ""),
    ("[budgets.a]\nshare = 90", "budgets.a.share", "this must be at most 1", ""),
    ("[budgets.a]\nconcurrency = 0", "budgets.a.concurrency", "this must be at least 1", ""),
    (SHOP + "weight = -1", "sources.shop.endpoints.items.weight", "this must be more than 0", ""),
    (SHOP + "weight = nan", "sources.shop.endpoints.items.weight", "not a number that can be counted with", ""),
    (SHOP + "ignore = '/a'", "sources.shop.endpoints.items.ignore", "this is not a list", "write a list"),
    (SHOP + "pagination = 'page'", "sources.shop.endpoints.items.pagination", "this is not a table", "{ key = value }"),
    (
        SHOP + "pagination = { type = 'pages' }",
        "sources.shop.endpoints.items.pagination",
        "`type` must be one of 'page', 'offset', 'cursor', 'link', 'none', not 'pages'",
        "",
    ),
]


@pytest.mark.parametrize(("text", "key", "what", "hint"), WRONG, ids=[f"{i} {row[1]}" for i, row in enumerate(WRONG)])
def test_what_is_wrong_is_told_with_its_key_and_what_to_do(
    tmp_path: Path, plugins: Plugins, text: str, key: str, what: str, hint: str
) -> None:
    (line, *others) = problems(tmp_path, text, plugins)

    assert others == []
    assert re.match(rf"poller\.toml(:\d+)?: {re.escape(key)}: " if key else "poller.toml: ", line)
    assert what in line
    assert hint in line
    assert "\n" not in line


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path, plugins: Plugins) -> None:
    found = problems(
        tmp_path, "[poller]\nstat = 1\n[budgets.a]\nshare = 9\n" + SHOP + "weigth = 1" + CONSOLE + "x = 1", plugins
    )

    assert len(found) == 4


def test_a_wrong_secret_is_never_shown(tmp_path: Path, plugins: Plugins) -> None:
    text = HOOK + "secret = 'hunter2'\n" + ACME.replace('"t"', "['hunter2']") + "password = 'hunter2'"

    assert not any("hunter2" in line for line in problems(tmp_path, text, plugins))


def test_on_the_command_line_it_is_one_line_and_status_2(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "poller.toml").write_text("[poller]\nstat = 'a'")
    ran = poller("check")

    assert ran.status == 2
    assert ran.err == "Error: poller.toml:2: poller.stat: unknown key; did you mean 'state'?\n"


# Where it is found.


def test_the_file_named_by_the_environment_comes_before_the_one_here(
    poller: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poller.toml").write_text("[poller]\n")
    other = tmp_path / "other.toml"
    other.write_text("[poller]\nnope = 1")
    monkeypatch.setenv("POLLER_CONFIG", str(other))

    assert "other.toml" in poller("check").err
    assert poller("check", "--config", tmp_path / "poller.toml").status == 0
    assert poller("--config", tmp_path / "poller.toml", "check").status == 0


def test_relative_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "key").write_text("secret\n")
    file = tmp_path / "deep" / "poller.toml"
    file.write_text('[poller]\nstate = "s.db"\ntoken = { file = "key" }')
    settings = load(file, plugins).poller

    assert settings.state == tmp_path / "deep" / "s.db"
    assert settings.token is not None
    assert settings.token.reveal() == "secret"


# The reference: docs/configuration.md has the engine's keys, docs/sources.md and docs/sinks.md those of the plugins.

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS.parent / "examples"


def keys_in(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def sections(page: str) -> dict[str, str]:
    """The page's text by heading."""
    text = (DOCS / page).read_text()
    parts = re.split(r"^#{2,3} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(
    ("heading", "model", "internal"),
    [
        ("`[poller]`", Settings, set()),
        ("`[budgets.NAME]`", BudgetConfig, set()),
        ("`[sources.NAME]`", SourceConfig, {"name", "cls", "options", "endpoints"}),
        ("`[sources.NAME.endpoints.X]`", EndpointConfig, set()),
        ("`[[subscriptions]]`", SubscriptionConfig, {"cls", "options"}),
    ],
)
def test_every_key_of_the_engine_is_documented_and_no_other(heading: str, model: Any, internal: set[str]) -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|", sections("configuration.md")[heading], flags=re.MULTILINE)

    assert sorted(rows) == sorted(keys_in(model) - internal)


def test_every_key_of_a_sink_is_documented(plugins: Plugins) -> None:
    text = sections("sinks.md")
    lacking = {
        f"{name}.{key}"
        for name, cls in plugins.sinks.items()
        for key in keys_in(cls.Options)
        if not re.search(rf"`{key}\b", text.get(name, "")) and f"`{key}`" not in text.get("Templates", "")
    }
    assert lacking == set()


def test_every_key_of_a_source_is_documented(plugins: Plugins) -> None:
    text = (DOCS / "sources.md").read_text()
    lacking = {
        f"{name}.{key}"
        for name, cls in plugins.sources.items()
        for key in keys_in(cls.Options)
        if f"`{key}`" not in text
    }

    assert lacking <= {"nutcache.endpoints", "rest.endpoints"}


def test_the_examples_and_what_init_writes_are_valid(
    poller: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in ("nutcache", "rest"):
        poller("init", "--force", "--source", source)
        assert poller("check").status == 0
    for example in EXAMPLES.glob("*/poller.toml"):
        text = example.read_text()
        for name in re.findall(r'env = "([A-Z_]+)"', text):
            monkeypatch.setenv(name, "whsec_" + "a" * 32)
        for name in re.findall(r'file = "(\w+)"', text):
            (tmp_path / name).write_text("secret")
        (tmp_path / "poller.toml").write_text(text)
        assert poller("check").status == 0, example


def test_the_time_zone_reaches_the_texts_of_every_sink(tmp_path: Path, plugins: Plugins) -> None:
    file = tmp_path / "poller.toml"
    file.write_text('[poller]\ntimezone = "Europe/Berlin"\n' + SHOP + CONSOLE + HOOK + MAIL)

    zones = [str(getattr(one.options, "zone", None)) for one in load(file, plugins).subscriptions]
    assert zones == ["Europe/Berlin"] * 3
