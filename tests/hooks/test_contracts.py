"""What a plugin breaks of its contract is one line that names it, and takes nothing else down."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.hooks.loading import Plugins, installed
from poller.hooks.source_adapter import SourceAdapter
from poller.sources.protocol import PageError
from tests.support.command_line import Run, Shop

SOURCE = """
import asyncio, httpx
from pydantic import BaseModel
from poller import Endpoint, Limit, Page, Position, Receipt, hookimpl

class Empty(BaseModel):
    pass

class Wiki:
    Options = Empty
    limits = (Limit(60, 60.0),)
    auth = None
    def __init__(self, name, options): pass
    def endpoints(self): return [Endpoint(name="things")]
    def request(self, endpoint, at): return httpx.Request("GET", "https://wiki.example/")
    def page(self, endpoint, at, response): return Page([])

class Notes:
    Options = Empty
    def __init__(self, name, options): pass
    async def __aenter__(self): return self
    async def __aexit__(self, kind, error, trace): pass
    async def deliver(self, events, attempt) -> Receipt: return Receipt("ok")

@hookimpl
def register_sources(register): register("wiki", Wiki)

@hookimpl
def register_sinks(register): register("notes", Notes)
"""
AT_LOAD = {  # what is added to the file: what is said
    "Wiki.limits = '60/min'": "'wiki': `limits` is '60/min', not a tuple of Limits such as (Limit(60, 60.0),)",
    "Wiki.limits = 7": "'wiki': `limits` is 7, not a tuple of Limits",
    "Wiki.limits = (Limit(0, 60.0),)": "'wiki': `limits` is (Limit(calls=0",
    "Wiki.limits = (Limit(1, float('nan')),)": "'wiki': `limits` is (Limit(calls=1",
    "Wiki.Options = dict": "'wiki': Wiki has no `Options` class derived from pydantic.BaseModel",
    "Wiki.Options = None": "'wiki': Wiki has no `Options` class",
    "Wiki.Options = BaseModel": "'wiki': Wiki has no `Options` class",
    "del Wiki.page": "'wiki': Wiki has no `page`",
    "Wiki.page = 'page'": "'wiki': `page` is 'page', not a method",
    "Wiki.request = lambda self: None": "'wiki': `request` must take 2 arguments besides self",
    "Wiki.item_request = lambda self, endpoint: None": "'wiki': `item_request` must take 2 arguments",
    "async def page(self, endpoint, at, response): pass\nWiki.page = page": "'wiki': `page` is async",
    "async def discover(self): yield 1\nWiki.discover = discover": "'wiki': `discover` is async",
    "Wiki.namespace = 'two words'": "'wiki': `namespace` is 'two words'",
    "Wiki = Wiki('a', None)": "is not a class",
    "def deliver(self, events, attempt): pass\nNotes.deliver = deliver": "'notes': `deliver` is not async",
    "async def deliver(self, events): pass\nNotes.deliver = deliver": "'notes': `deliver` must take 2 arguments",
    "async def deliver(self, events, attempt) -> None: 0\nNotes.deliver = deliver": "'notes': `deliver` returns None",
    "async def deliver(self, events, attempt): yield\nNotes.deliver = deliver": "'notes': `deliver` has a `yield`",
    "Wiki.__init__ = lambda self: None": "'wiki': Wiki(name, options) cannot be called (too many",
    "def build(self): pass\nNotes.__init__ = build": "'notes': Notes(name, options) cannot be called (too many",
    "del Notes.deliver": "'notes': Notes has no `deliver`",
    "del Notes.__aexit__": "'notes': it has no `__aexit__`: a sink is opened with `async with`",
    "def enter(self): return self\nNotes.__aenter__ = enter": "'notes': `__aenter__` is not async",
    "@hookimpl\nasync def transform_event(event): pass": "`transform_event` is async",
    "@hookimpl\nasync def template_environment(env): pass": "`template_environment` is async",
    "@hookimpl\ndef polls_finished(poll): pass": "there is no hook 'polls_finished'; did you mean 'poll_finished'?",
    "@hookimpl\ndef poll_finished(polled): pass": "`poll_finished` takes (poll), not 'polled'",
    "@hookimpl(wrapper=True)\ndef poll_finished(poll): yield": "`poll_finished` is a hook wrapper",
    "@hookimpl\ndef register_sinks(register): register('rest/x', Notes)": "'rest/x' is not a name for a sink",
    "@hookimpl\ndef register_sinks(register): register(7, Notes)": "7 is not a name for a sink",
    "@hookimpl\ndef register_sinks(register): register('http', Notes)": "the name 'http' is taken by plugins.http",
    "raise SystemExit(0)": "SystemExit: 0 (line ",
    "raise KeyboardInterrupt": "KeyboardInterrupt: no message",
    "raise GeneratorExit": "GeneratorExit: no message",
    "raise asyncio.CancelledError": "CancelledError: no message",
    "raise BaseExceptionGroup('two', [SystemExit(1), ValueError()])": "BaseExceptionGroup: two (2 sub-exceptions)",
    "@hookimpl\ndef register_sources(register): raise SystemExit('bye')": "SystemExit: bye (line ",
}


def failures_of(folder: Path, **files: str) -> list[tuple[str, str]]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    plugins = Plugins(installed())
    plugins.load_folder(folder)
    return [(failed.name, failed.error) for failed in plugins.failed]


def test_a_plugin_that_keeps_the_contract_is_loaded(tmp_path: Path) -> None:
    assert failures_of(tmp_path, mine=SOURCE) == []


@pytest.mark.parametrize("breach", AT_LOAD, ids=lambda breach: breach.splitlines()[-1])
def test_a_breach_is_one_line_and_other_plugins_are_loaded(tmp_path: Path, breach: str) -> None:
    other = SOURCE.replace('"wiki"', '"other"').replace('"notes"', '"others"')

    [(name, error)] = failures_of(tmp_path, mine=f"{SOURCE}\n{breach}\n", other=other)

    assert name == "mine"
    assert AT_LOAD[breach] in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "def register_sinks(register): pass",
            "it has no hook: mark a function such as `register_sinks` with @hookimpl",
        ),
        ("def f(:", "SyntaxError: invalid syntax (mine.py, line 1)"),
        ("x = '\0'", "source code string cannot contain null bytes"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere' (line 1 of mine.py)"),
    ],
)
def test_a_file_that_brings_nothing_says_so_without_lines_that_are_not_its_own(
    tmp_path: Path, text: str, told: str
) -> None:
    [(_, error)] = failures_of(tmp_path, mine=text)

    assert told in error
    assert "importlib" not in error


def test_a_file_that_others_import_is_mentioned_by_check_alone(poller: Run, shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "plugins.d"
    folder.mkdir()
    (folder / "helper.py").write_text("def shout(text): return text.upper()\n")
    path = shop.configure(tmp_path)
    path.write_text(path.read_text().replace("[poller]", '[poller]\nplugins_dir = "plugins.d"'))

    assert failures_of(folder) == []
    assert "helper" not in poller("once").err
    assert "helper" not in poller("doctor").out
    assert "Warning: plugin helper: it has no hook, so it does nothing by itself (" in poller("check").err
    assert [one["name"] for one in poller("plugins", "--json").lines if not one["hooks"]] == ["helper"]


def test_a_file_that_gets_its_hooks_later_is_loaded_at_the_next_reload(tmp_path: Path) -> None:
    plugins = Plugins(installed())
    (tmp_path / "mine.py").write_text("")
    plugins.load_folder(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)

    plugins.load_folder(tmp_path)

    assert "notes" in plugins.sinks
    assert [one.name for one in plugins.loaded] == ["mine"]


def test_a_plugin_that_fails_because_a_name_is_taken_leaves_no_hook_behind(tmp_path: Path) -> None:
    """It must not switch off the hooks of the plugin that has the name either."""
    first = f"{SOURCE}\n@hookimpl\ndef template_environment(env): env.append('first')\n"
    (tmp_path / "notes.py").write_text(first)
    (tmp_path / "other.py").write_text(first.replace("'first'", "'second'").replace('"wiki"', '"other"'))
    plugins = Plugins(installed())
    plugins.load_folder(tmp_path)
    called: list[str] = []

    plugins.call("template_environment", env=called)

    assert [one.name for one in plugins.failed] == ["other"]
    assert called == ["first"]


@pytest.mark.parametrize("name", ["rest", "http", "nutcache"])
def test_an_installed_plugin_keeps_its_name_also_where_it_is_loaded_later(tmp_path: Path, name: str) -> None:
    [(failed, error)] = failures_of(tmp_path, **{name: SOURCE})

    assert (failed, error) == (name, f"another plugin is named '{name}': rename this one")


def test_the_second_of_two_plugins_with_one_source_fails(tmp_path: Path) -> None:
    [(failed, error)] = failures_of(tmp_path, a=SOURCE, b=SOURCE)

    assert failed == "b"
    assert error == "the name 'wiki' is taken by poller_plugin_a"


ENDPOINTS = {
    "['things']": "endpoints() gave a list with 'things', not an Endpoint, in it",
    "'things'": "endpoints() gave 'things', not a list of Endpoints",
    "None": "endpoints() gave None, not a list of Endpoints",
    "[Endpoint(name='')]": "endpoint '': this is not a valid name",
    "[Endpoint(name=7)]": "endpoint 7: this is not a valid name",
    "[Endpoint(name='a'), Endpoint(name='a')]": "two endpoints are named 'a'",
    "[Endpoint(name='a', parent='b')]": "endpoint 'a': its parent 'b' is not offered",
    "[Endpoint(name='a', since_field='m..x')]": "endpoint 'a': 'm..x' has an empty step",
    "[Endpoint(name='a', id=7)]": "endpoint 'a': `id` is not a path or a tuple",
    "[Endpoint(name='a', id='$..[')]": "endpoint 'a': ",
    "[Endpoint(name='a', first=3)]": "endpoint 'a': `first` is not a Position",
    "[Endpoint(name='a', order='up')]": "endpoint 'a': `order` is not one of id, newest, any",
    "[Endpoint(name='a', overlap='2m')]": "endpoint 'a': `overlap` is not a number of seconds",
    "[Endpoint(name='a', ignore=('/a~b',))]": "endpoint 'a': '/a~b': '~' must be followed by 0 or 1",
    "[Endpoint(name='a', ignore='/a')]": "endpoint 'a': `ignore` is '/a', not a tuple of texts",
    "[Endpoint(name='a', deleted_when='object.')]": "endpoint 'a': 'object.' is ",
    "[Endpoint(name='a', normalise=3)]": "endpoint 'a': `normalise` cannot be called",
    "[Endpoint(name='a', page_headers=(1,))]": "endpoint 'a': `page_headers` is (1,), not a tuple of texts",
}


def source_of(folder: Path, more: str) -> SourceAdapter:
    (folder / "mine.py").write_text(f"{SOURCE}\n{more}\n")
    plugins = Plugins()
    plugins.load_folder(folder)
    assert plugins.failed == []
    cls = plugins.sources["wiki"]
    return SourceAdapter.build("wiki", lambda: cls("a", None))  # type: ignore[call-arg]


@pytest.mark.parametrize("given", ENDPOINTS)
def test_endpoints_are_checked_when_the_source_is_built(tmp_path: Path, given: str) -> None:
    source = source_of(tmp_path, f"Wiki.endpoints = lambda self: {given}")

    with pytest.raises(PageError) as refused:
        source.endpoints()

    assert str(refused.value).startswith("the plugin 'wiki': ")
    assert ENDPOINTS[given] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("def init(self, name, options): self.limits = '60/min'\nWiki.__init__ = init", "`limits` is '60/min'"),
        ("def init(self, name, options): self.auth = 'token'\nWiki.__init__ = init", "`auth` is 'token'"),
        ("Wiki.limits = property(lambda self: 1 / 0)", "failed in limits(): ZeroDivisionError"),
        (
            "def init(self, name, options): raise SystemExit(3)\nWiki.__init__ = init",
            "failed in __init__(): SystemExit: 3",
        ),
    ],
)
def test_what_a_source_builds_is_checked(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(PageError) as refused:
        source_of(tmp_path, more)

    assert str(refused.value).startswith("the plugin 'wiki'")
    assert says in str(refused.value)


def configure(shop: Shop, folder: Path, more: str, *, source: bool) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "mine.py").write_text(f"{SOURCE}\n{more}\n")
    named = '\n[sources.wiki]\nplugin = "wiki"\n' if source else ""
    config = shop.configure(folder, more=named)
    config.write_text(config.read_text().replace("[poller]", '[poller]\nplugins_dir = "mine"'))


def test_a_plugin_that_nobody_uses_fails_alone(poller: Run, shop: Shop, tmp_path: Path) -> None:
    configure(shop, tmp_path, "Wiki.limits = '60/min'", source=False)

    assert poller("once").status == 0
    checked = poller("check")
    assert checked.status == 0
    [line] = [line for line in checked.err.splitlines() if line.startswith("Warning: plugin mine: ")]
    assert "'wiki': `limits` is '60/min'" in line
    [failed] = [line for line in poller("plugins", "--json").lines if line["state"] == "failed"]
    assert (failed["name"], failed["error"][:14]) == ("mine", "'wiki': `limit")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("Wiki.limits = '60/min'", "sources.wiki.plugin: there is no source plugin 'wiki'"),
        ("Wiki.endpoints = lambda self: ['things']", "sources.wiki: the plugin 'wiki': endpoints() gave a list with"),
        ("Wiki.endpoints = lambda self: 1 / 0", "sources.wiki: the plugin 'wiki' failed in endpoints(): ZeroDivisionE"),
        (
            "from pydantic import model_validator\nclass Options(BaseModel):\n    @model_validator(mode='before')\n"
            "    def check(cls, values): raise SystemExit(0)\nWiki.Options = Options",
            "sources.wiki: its plugin failed to read its options: SystemExit: 0",
        ),
    ],
)
def test_a_source_of_a_plugin_that_breaks_the_contract_is_refused_in_one_line(
    poller: Run, shop: Shop, tmp_path: Path, more: str, says: str
) -> None:
    configure(shop, tmp_path, more, source=True)

    for command in ("check", "once"):
        ran = poller(command)
        assert ran.status == 2, command
        assert says in ran.err
        assert "Traceback" not in ran.out + ran.err
    assert len(ran.err.splitlines()) <= 2
    assert poller("plugins").status == 0
