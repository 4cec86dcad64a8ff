"""What a valid configuration says that can hardly be meant is a warning with its key; what is meant is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.config.load import load
from poller.hooks.loading import Plugins, load_plugins
from poller.operations.advice import advice
from state.sqlite import connection
from tests.support.command_line import Run

PARTS = {
    "source": '[sources.shop]\nplugin = "rest"\nbase_url = "https://shop.example"\n'
    'endpoints.items = { path = "/items" }\n',
    "sink": '[[subscriptions]]\nname = "crm"\nplugin = "http"\nurl = "https://crm.example"\n',
}
WHOLE = PARTS["source"] + PARTS["sink"]
WARNED = {  # the file: the beginning of what is said of it
    PARTS["source"]: "configuration: no subscription",
    PARTS["sink"]: "configuration: no source",
    WHOLE + 'types = ["shop.item.*"]': "subscriptions.crm.types: 'shop.item.*' matches no event of its sources",
    WHOLE + 'types = ["*.items.*", "acme.*"]': "subscriptions.crm.types: 'acme.*' matches no event of its sources",
    WHOLE + '[budgets.office]\nlimits = ["1/s"]': "budgets.office: no source uses it",
    WHOLE.replace("https://crm.example", "http://127.0.0.1:8000/"): "subscriptions.crm.url: 127.0.0.1 is loopback",
    WHOLE.replace("https://crm.example", "http://localhost/"): "subscriptions.crm.url: localhost is loopback",
    WHOLE.replace("https://crm.example", "http://2130706433/"): "subscriptions.crm.url: 2130706433 is loopback",
    WHOLE.replace("https://crm.example", "http://[::ffff:10.0.0.1]/"): "subscriptions.crm.url: ::ffff:10.0.0.1 is ",
    '[poller]\nstate = "none/poller.db"\n' + WHOLE: "poller.state: the folder ",
    WHOLE + '[[subscriptions]]\nname = "f"\nplugin = "jsonl"\npath = "none/out"': "subscriptions.f.path: the folder ",
    WHOLE.replace('plugin = "rest"', 'plugin = "rest"\nproxy = "http://me:word@p.example"'): "sources.shop.proxy: this",
    WHOLE.replace("https://crm.example", "https://crm.example/?api_key=x"): "subscriptions.crm.url: this",
    WHOLE.replace('"/items"', '"/items", params = { token = "x" }'): "sources.shop.endpoints.items.params.token: this",
    WHOLE + 'headers = { Authorization = "Bearer x" }': "subscriptions.crm.headers.Authorization: this",
    WHOLE + 'proxy = "http://me:word@proxy.example:3128"': "subscriptions.crm.proxy: this looks like a secret",
    WHOLE + 'secret = "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh"': "subscriptions.crm.secret: this secret looks",
    WHOLE + 'secret = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"': "subscriptions.crm.secret: this secret looks",
    WHOLE.replace(
        "https://crm.example", "https://${HOST}/x"
    ): "subscriptions.crm.url: ${HOST} is used as it is written",
    WHOLE.replace(
        '"/items"', '"/items", params = { shop = "$SHOP_ID" }'
    ): "sources.shop.endpoints.items.params.shop: $",
    WHOLE.replace(
        "https://shop.example", 'https://shop.example"\nverify = false\nnamespace = "shop'
    ): "source shop: cert",
}
MEANT = [
    WHOLE,
    WHOLE + 'secret = "whsec_3Jz5Qm1vT0sXnC9bK7fRwE2yHdUaLpGi"',
    WHOLE + 'types = ["*", "poller.*"]',
    WHOLE + 'sources = ["shop"]\ntypes = ["*.deleted", "shop.items.created"]',
    WHOLE.replace("https://crm.example", 'http://127.0.0.1:8000/"\nallow_private = true\nmethod = "POST'),
    WHOLE + 'template = "US${{ total }} $x $.a"',
    WHOLE.replace('"/items"', '"/items", items = "$.items", params = { keyword = "x", sort_key = "2" }'),
]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


def warnings(folder: Path, plugins: Plugins, text: str) -> list[str]:
    path = folder / "poller.toml"
    path.write_text(text)
    path.chmod(0o644)
    return [f"{finding.about}: {finding.what}" for finding in advice(load(path, plugins))]


@pytest.mark.parametrize("text", WARNED)
def test_it_is_warned_of(tmp_path: Path, plugins: Plugins, text: str) -> None:
    [warning] = warnings(tmp_path, plugins, text)

    assert warning.startswith(WARNED[text])


@pytest.mark.parametrize("text", MEANT)
def test_what_is_meant_is_not(tmp_path: Path, plugins: Plugins, text: str) -> None:
    assert warnings(tmp_path, plugins, text) == []


def test_an_sqlite_with_which_nothing_would_start_is_warned_of(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OLDEST", (9, 12, 0))
    (tmp_path / "poller.toml").write_text(WHOLE)

    found = [one for one in advice(load(tmp_path / "poller.toml", plugins)) if "9.12.0" in one.what]

    assert [(one.about, one.hint is not None) for one in found] == [("poller.state", True)]


def test_a_private_file_may_hold_secrets(tmp_path: Path, plugins: Plugins) -> None:
    text = WHOLE + 'proxy = "http://me:word@proxy.example:3128"'
    path = tmp_path / "poller.toml"
    path.write_text(text)
    path.chmod(0o600)

    assert list(advice(load(path, plugins))) == []


def test_check_warns_and_succeeds_and_doctor_says_the_same(poller: Run, tmp_path: Path) -> None:
    (tmp_path / "poller.toml").write_text(WHOLE + '[budgets.office]\nlimits = ["1/s"]')
    checked, examined = poller("check"), poller("doctor", "--json")

    assert checked.status == 0
    assert 'Warning: budgets.office: no source uses it; write budget = "office" in a source' in checked.err
    assert ("budgets.office", "warn") in [(line["about"], line["level"]) for line in examined.lines]
