"""What `run` would refuse, or could never use, `check` refuses: in one line, with the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.config.load import ConfigError, load
from poller.hooks.loading import Plugins, load_plugins

BEGIN = '[sources.a]\nplugin = "rest"\nbase_url = "https://a.example"\n'
SOURCE = f'{BEGIN}endpoints.x = {{ path = "/x" }}\n'
ENDPOINT = f'{BEGIN}[sources.a.endpoints.x]\npath = "/x"\n'
SINK = '[[subscriptions]]\nname = "s"\nplugin = "http"\nurl = "https://b.example"\n'
MAIL = '[[subscriptions]]\nname = "s"\nplugin = "email"\nfrom = "a@b.example"\nto = ["c@d.example"]\n'
REFUSED = {  # the file: the key, what is said of it
    '[poller]\nstate = "."': ("poller.state", "is a folder"),
    '[poller]\ntoken = "two words"': ("poller.token", "visible ASCII"),
    '[poller]\ntoken = "line\\n"': ("poller.token", "visible ASCII"),
    '[poller]\ntoken = "schlüssel"': ("poller.token", "visible ASCII"),
    '[poller]\ntoken = { file = "odd" }': ("poller.token", "not UTF-8"),
    '[poller]\ntoken = { file = "spaced" }': ("poller.token", "visible ASCII"),
    '[poller]\nheartbeat = "ftp://a.example"': ("poller.heartbeat", "https://"),
    f'{SOURCE}ca_file = "spaced"': ("sources.a.ca_file", "does not contain certificates in PEM format"),
    f'{SOURCE}ca_file = "none"': ("sources.a.ca_file", "does not exist"),
    f'{SOURCE}proxy = "http://"': ("sources.a.proxy", "a proxy is a URL"),
    f'{SOURCE}proxy = "http://a.example:port"': ("sources.a.proxy", "a proxy is a URL"),
    f'{SOURCE}proxy = "socks5://a.example"': ("sources.a.proxy", "a proxy is a URL"),
    f'{ENDPOINT}ignore = ["/a~b"]': ("sources.a.endpoints.x.ignore[0]", "must be followed by 0 or 1"),
    f'{ENDPOINT}exclude = ["/a~"]': ("sources.a.endpoints.x.exclude[0]", "must be followed by 0 or 1"),
    f'{ENDPOINT}unordered = ["a"]': ("sources.a.endpoints.x.unordered[0]", "JSON Pointer"),
    f'{ENDPOINT}deleted_when = "object."': ("sources.a.endpoints.x.deleted_when", "is not a usable CEL expression"),
    f'{ENDPOINT}deleted_when = "1 + 1"': ("sources.a.endpoints.x.deleted_when", "neither true nor false but 2"),
    f"{ENDPOINT}deleted_when = \"'yes'\"": ("sources.a.endpoints.x.deleted_when", "neither true nor false but 'yes'"),
    f'{ENDPOINT}id = "$..["': ("sources.a.endpoints.x.id", ""),
    f"{SINK}where = 'type'": ("subscriptions.s.where", "neither true nor false but 'shop.items.updated'"),
    f"{SINK}where = 'size(data.changes)'": ("subscriptions.s.where", "neither true nor false but 0"),
    f"{SINK}where = 'data.object.amount + 1'": ("subscriptions.s.where", "neither true nor false but 2"),
    f"{SINK}where = 'size(data.object.tags)'": ("subscriptions.s.where", "neither true nor false but 4"),
    f"{ENDPOINT}deleted_when = 'object.state.name + object.note'": (
        "sources.a.endpoints.x.deleted_when",
        "neither true nor false but",
    ),
    f"{SINK}where = 'data.object'": ("subscriptions.s.where", "neither true nor false but {}"),
    f'{SINK}ca_file = "spaced"': ("subscriptions.s.ca_file", "does not contain certificates in PEM format"),
    f'{SINK}template = "{{{{ event.type"': ("subscriptions.s.template", "is not valid Jinja2"),
    f'{SINK}digest = "* * * * x"': ("subscriptions.s.digest", "crontab"),
    f'{MAIL}ca_file = "spaced"': ("subscriptions.s.ca_file", "does not contain certificates in PEM format"),
}
TAKEN = [
    '[poller]\ntoken = { file = "ended" }',
    f"{ENDPOINT}deleted_when = 'object.archived'",
    f"{SINK}where = 'data.object.amount'",
    f"{SINK}where = 'has(data.object.x) && data.object.x > 1'",
    '\ufeff[poller]\nlisten = ""',
]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    (tmp_path / "spaced").write_text("a token \n")
    (tmp_path / "ended").write_text("a-token\n")
    return tmp_path / "poller.toml"


@pytest.mark.parametrize("text", REFUSED)
def test_it_is_refused_with_its_key(path: Path, plugins: Plugins, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    key, what = REFUSED[text]

    with pytest.raises(ConfigError) as refused:
        load(path, plugins)

    [problem] = refused.value.problems
    assert problem.key == key
    assert what in problem.what
    assert "\n" not in problem.line(path)


@pytest.mark.parametrize("text", TAKEN)
def test_what_can_be_used_is_taken(path: Path, plugins: Plugins, text: str) -> None:
    path.write_text(text, encoding="utf-8")

    load(path, plugins)


@pytest.mark.parametrize("text", ["", "\ufeff", "# all commented out\n\n"])
def test_a_file_without_a_single_key_is_refused_as_what_a_full_disk_or_an_editor_leaves(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "poller.toml").write_text(text)

    with pytest.raises(ConfigError, match="it is empty"):
        load(tmp_path / "poller.toml", load_plugins(lazily=True))
