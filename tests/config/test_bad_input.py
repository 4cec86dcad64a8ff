"""What a user sees of an API that answers badly: a message that says what and where, and what to do."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Ran, Run, Shop, open_shop
from tests.support.daemon import running_daemon, wait_for

HTML, JSON, TEXT = "text/html", "application/json", "text/plain"
BAD = {  # name: the answer, what is said of it, what is to be done
    "unauthorised": ((401, b"who?", TEXT), "401 Unauthorized: who?", "are the credentials right"),
    "forbidden": ((403, b"not yours", TEXT), "403 Forbidden: not yours", "may not see it"),
    "missing": ((404, b"", TEXT), "404 Not Found", "base_url followed by path"),
    "moved": ((302, b"", TEXT), "302 Found", "a login page is not an API"),
    "page": ((200, b"<html>Please log in</html>", HTML), "the answer is HTML", ""),
    "truncated": ((200, b'[{"id": 1, "na', JSON), "not JSON", ""),
    "empty": ((200, b"", JSON), "not JSON", ""),
    "no_list": ((200, b'{"error": "x"}', JSON), "the answer contains no list", "items"),
    "no_objects": ((200, b"[1, 2]", JSON), "given as a number", ""),
    "no_ids": ((200, b'[{"name": "x"}]', JSON), "without an id", "set `id`"),
}
PASSING = {
    "broken": ((500, b"<html>Oops</html>", HTML), "500 Internal Server Error: <html>Oops</html>", ""),
    "busy": ((429, b"slow down", TEXT), "429 Too Many Requests", "a daemon waits for it"),
}
ODD = {"doubles": ((200, b'[{"id": 1, "a": 1}, {"id": 1, "a": 2}, {"id": 2}]', JSON), "shown more than once", "")}
ALL = {**BAD, **PASSING, **ODD}

SOURCE = """
[sources.{name}]
plugin = "rest"
base_url = "{url}"
[sources.{name}.endpoints.items]
path = "/{name}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A configuration with one source for each bad answer, one that nobody answers, and a server of those answers."""
    folder = tmp_path_factory.mktemp("bad")
    with open_shop() as shop, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        shop.answers = {f"/{name}": answer for name, (answer, _, _) in ALL.items()}
        sources = "".join(SOURCE.format(name=name, url=shop.url) for name in ALL)
        sources += SOURCE.format(name="nobody", url=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        shop.configure(folder, listen="127.0.0.1:0", more=sources)
        yield folder


@pytest.fixture
def checked(poller: Run, folder: Path) -> Ran:
    return poller("check", "--online", "--config", folder / "poller.toml")


def line_of(ran: Ran, name: str) -> str:
    """What is said of a source."""
    return next(line for line in ran.err.splitlines() if f" {name}/items: " in line)


def test_check_online_says_what_is_wrong_and_what_to_do(checked: Ran) -> None:
    assert checked.status == 1
    for name, (_, what, hint) in BAD.items():
        line = line_of(checked, name)
        assert line.startswith(f"Error: {name}/items: ")
        assert what in line
        assert not hint or hint in line, name


def test_what_passes_by_itself_is_a_warning(checked: Ran) -> None:
    for name, (_, what, _) in (PASSING | ODD).items():
        line = line_of(checked, name)
        assert line.startswith("Warning: ")
        assert what in line


def test_an_unreachable_host_is_named(checked: Ran) -> None:
    line = line_of(checked, "nobody")

    assert "http://127.0.0.1:" in line
    assert "no answer" in line


def test_each_is_a_visible_note_on_its_endpoint(poller: Run, folder: Path) -> None:
    config = folder / "poller.toml"
    with running_daemon(config) as daemon:
        wait_for("every source to be asked", lambda: daemon.log.count("poll.failed") > len(BAD | PASSING))
        text = poller("status", "--config", config).out

    for name, (_, what, _) in (BAD | PASSING).items():
        notes = [line for line in text.splitlines() if line.startswith((f"! {name}/items: ", f"! {name} is "))]
        assert any(what in line for line in notes), name
    assert any("no answer" in line for line in text.splitlines() if line.startswith("! nobody/items: "))


def test_objects_that_cannot_be_told_apart_are_set_aside_and_the_rest_is_taken(
    poller: Run, shop: Shop, tmp_path: Path
) -> None:
    shop.answer = ODD["doubles"][0]
    shop.configure(tmp_path)
    ran = poller("once")

    assert ran.status == 0
    assert "shown more than once" in ran.err
    assert poller("status", "--json").json["endpoints"][0]["objects"] == 1


@pytest.mark.parametrize("name", ["unauthorised", "forbidden"])
def test_once_ends_with_what_could_not_be_seen(poller: Run, shop: Shop, tmp_path: Path, name: str) -> None:
    shop.answer, what, _ = BAD[name]
    shop.configure(tmp_path)
    ran = poller("once")

    assert ran.status == 1
    error, hint = ran.err.splitlines()[-2:]
    assert error.startswith("Error: shop/items: http://127.0.0.1:")
    assert what in error
    assert "poller check --online" in hint


def test_a_plugin_that_fails_to_import_is_told_and_takes_nothing_else_down(
    poller: Run, shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.py").write_text("import nothing_of_that_name\n")
    config = shop.configure(tmp_path)
    config.write_text(config.read_text().replace("[poller]", '[poller]\nplugins_dir = "mine"'))

    assert poller("once").status == 0
    (failed,) = [line for line in poller("plugins", "--json").lines if line["state"] == "failed"]
    assert failed["name"] == "broken"
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name' (line 1 of broken.py)" in failed["error"]


def test_a_source_of_a_plugin_that_failed_says_so(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.py").write_text("1 / 0\n")
    (tmp_path / "poller.toml").write_text('[poller]\nplugins_dir = "mine"\n[sources.a]\nplugin = "broken"')
    ran = poller("check")

    assert ran.status == 2
    assert "sources.a.plugin: the plugin 'broken' could not be loaded: ZeroDivisionError" in ran.err
    assert "poller plugins" in ran.err
