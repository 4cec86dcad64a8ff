"""The JSON schema takes what Poller takes and refuses what it refuses, as far as a schema can."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from poller.config.schema import schema_of
from poller.hooks.loading import load_plugins
from tests.support.command_line import Run

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/poller.toml"))
SOURCE = '[sources.a]\nplugin = "rest"\nbase_url = "https://a.example"\nendpoints.x = { path = "/x", weight = 2 }\n'
SINK = '[[subscriptions]]\nname = "s"\nplugin = "http"\nurl = "https://b.example"\n'
TAKEN = [
    "",
    '[poller]\nlisten = ""\nretention = "90d"\ntoken = { file = "token" }',
    '[budgets.a]\nlimits = ["5/s"]\nshare = 0.5',
    SOURCE + 'timeout = "5s"\nmax_answer = "1MB"\nauth = { type = "bearer", token = { env = "T" } }',
    SINK + 'retry = ["1s"]\ndigest = "15m"\nstart = 12\nsecret = ["whsec_a", { env = "B" }]',
    '[[subscriptions]]\nname = "m"\nplugin = "email"\nfrom = "a@b.example"\nto = ["c@d.example"]',
]
REFUSED = [
    "[pollr]",
    '[poller]\nretentoin = "9d"',
    "[poller]\nretention = 90",
    '[budgets.a]\nconcurrency = "4"',
    SOURCE.replace("weight", "wieght"),
    SOURCE + 'base = "x"',
    SOURCE.replace('"rest"', '"rset"'),
    SINK + "enabled = 1",
    SINK.replace('url = "https://b.example"\n', ""),
]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = schema_of(load_plugins())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def wrong(validator: Draft202012Validator, text: str) -> list[Any]:
    return [error.message for error in validator.iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize("text", TAKEN)
def test_what_is_right_is_taken(validator: Draft202012Validator, text: str) -> None:
    assert wrong(validator, text) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_is_taken(validator: Draft202012Validator, path: Path) -> None:
    assert wrong(validator, path.read_text()) == []


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_is_refused(validator: Draft202012Validator, text: str) -> None:
    assert wrong(validator, text)


def test_check_prints_it(poller: Run) -> None:
    printed = poller("check", "--schema").json

    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
