import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from poller.options.secrets import MASK, Secret, SecretError


class Options(BaseModel):
    token: Secret


def secret(given: object, root: Path | str = ".", **context: object) -> Secret:
    return Options.model_validate({"token": given}, context={"root": Path(root), **context}).token


def write(path: Path, text: str) -> None:
    """Replace the file, so that its stamp is another one whatever the clock's grain."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    os.replace(fresh, path)


def test_a_string_is_its_own_value():
    assert secret("s3cret").reveal() == "s3cret"


def test_a_value_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "from-env")

    assert secret({"env": "SHOP_TOKEN"}).reveal() == "from-env"


def test_a_relative_file_is_taken_from_the_configuration_files_directory(tmp_path):
    (tmp_path / "token").write_text("from-file\n")

    assert secret({"file": "token"}, tmp_path).reveal() == "from-file"


def test_a_credential_comes_from_systemds_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "shop").write_text("from-systemd")

    assert secret({"credential": "shop"}).reveal() == "from-systemd"


def test_a_changed_file_is_read_again(tmp_path):
    write(tmp_path / "token", "old")
    token = secret({"file": "token"}, tmp_path)
    assert token.reveal() == "old"

    write(tmp_path / "token", "new")

    assert token.reveal() == "new"


@pytest.mark.parametrize("broken", [None, ""], ids=["gone", "empty"])
def test_a_file_that_breaks_later_keeps_its_last_value(tmp_path, broken):
    path = tmp_path / "token"
    write(path, "old")
    token = secret({"file": "token"}, tmp_path)

    path.unlink() if broken is None else write(path, broken)

    assert token.reveal() == "old"


@pytest.mark.parametrize("given", ["hush-hush", {"env": "HUSH"}])
def test_the_value_is_never_shown(given, monkeypatch):
    monkeypatch.setenv("HUSH", "hush-hush")
    options = Options.model_validate({"token": given})

    shown = [repr(options), str(options), str(options.token), options.model_dump_json(), str(options.model_dump())]

    assert "hush-hush" not in "".join(shown)
    assert str(options.token) == MASK


def test_json_says_where_the_value_is_kept(monkeypatch):
    monkeypatch.setenv("HUSH", "hush-hush")

    assert json.loads(Options.model_validate({"token": {"env": "HUSH"}}).model_dump_json()) == {
        "token": {"env": "HUSH"}
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"env": "NOWHERE_SET"}, "export NOWHERE_SET=..."),
        ({"file": "absent"}, "write the secret into that file"),
        ({"credential": "shop"}, "LoadCredential=shop:PATH"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_to_do(given, says, tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    with pytest.raises(ValidationError, match=r"(?s)token.*" + says.replace(".", r"\.")):
        secret(given, tmp_path)


def test_what_is_not_there_may_be_left_for_later():
    token = secret({"env": "NOWHERE_SET"}, secrets="later")

    with pytest.raises(SecretError, match="NOWHERE_SET is not set") as raised:
        token.reveal()
    assert raised.value.hint


@pytest.mark.parametrize(
    "given",
    ["", 7, {}, {"env": ""}, {"env": "A", "file": "b"}, {"vault": "x"}, {"credential": "../etc/passwd"}],
    ids=repr,
)
def test_anything_else_is_refused(given):
    with pytest.raises(ValidationError, match="a secret is a string"):
        secret(given)


def test_a_file_that_is_not_text_is_refused_without_showing_it(tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ValidationError, match="not UTF-8"):
        secret({"file": "token"}, tmp_path)


def test_secrets_from_the_same_place_are_equal():
    assert secret("a") == secret("a") != secret("b")
