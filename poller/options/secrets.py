"""Secrets of the configuration: literal, or read from the environment, a file or a systemd credential."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from poller.redaction import SECRETS
from state.errors import PollerError

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
MASK: Final = "**********"
Kind = Literal["text", "env", "file", "credential"]
_Stamp = tuple[int, int, int]  # inode, mtime in ns, size; a different stamp means a different file or content


class SecretError(PollerError):
    """A secret cannot be read from the configured place."""


@dataclass(slots=True, eq=False)
class _Read:
    """Content last read from a file, kept so that the file is read again only after a change."""

    stamp: _Stamp | None = None
    value: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Secret value that is never shown: `repr`, `str` and JSON show a mask, only `reveal` returns the value.

    Pydantic validates it from a string, `{ env = NAME }`, `{ file = PATH }` or `{ credential = NAME }`. A relative path
    starts at `root` of the validation context (the configuration file's directory). A secret that cannot be read is a
    validation error, unless the context has `{"secrets": "later"}`: then `reveal` raises.
    """

    kind: Kind
    place: str  # the text itself, or the name of the variable, file or credential
    _last: _Read = field(default_factory=_Read, compare=False, hash=False)

    def reveal(self) -> str:
        """The value. A changed file is read again. Raises SecretError with a hint.

        From then on, the value is masked wherever another party echoes it.
        """
        value = self.read()
        SECRETS.add(value)
        return value

    def read(self) -> str:
        """The value of something that need not be masked, such as a user name. Raises SecretError."""
        return _READERS[self.kind](self)

    def __repr__(self) -> str:
        return f"Secret({MASK})" if self.kind == "text" else f"Secret({self.kind}={self.place!r})"

    def __str__(self) -> str:
        return MASK

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            _validated, serialization=core_schema.plain_serializer_function_ser_schema(_shown)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        places = [
            {"type": "object", "properties": {kind: {"type": "string"}}, "required": [kind]}
            for kind in ("env", "file", "credential")
        ]
        return {"anyOf": [{"type": "string"}, *places]}


def secrets_in(value: Any) -> Iterator[Secret]:
    """Every secret in a model, a table or a list, whatever it is called."""
    match value:
        case Secret():
            yield value
        case BaseModel():
            for name in type(value).model_fields:
                yield from secrets_in(getattr(value, name))
        case Mapping():
            for inner in value.values():
                yield from secrets_in(inner)
        case list() | tuple():
            for inner in value:
                yield from secrets_in(inner)


def _shown(secret: Secret) -> str | dict[str, str]:
    return MASK if secret.kind == "text" else {secret.kind: secret.place}


def _validated(given: Any, info: ValidationInfo) -> Secret:
    context: Mapping[str, Any] = info.context or {}
    secret = _parsed(given, Path(context.get("root") or "."))
    if context.get("secrets") != "later":
        try:
            secret.read()
        except SecretError as exc:
            raise PydanticCustomError("secret", "{why}", {"why": f"{exc}: {exc.hint}"}) from None
    return secret


def _parsed(given: Any, root: Path) -> Secret:
    match given:
        case Secret():
            return given
        case str() if given:
            return Secret("text", given)
        case {"env": str(name)} if len(given) == 1 and name:
            return Secret("env", name)
        case {"file": str(path)} if len(given) == 1 and path:
            return Secret("file", str(root / Path(path).expanduser()))
        case {"credential": str(name)} if len(given) == 1 and name and Path(name).name == name:
            return Secret("credential", name)
    # The error does not quote the value, because a mistyped secret is still a secret.
    raise PydanticCustomError(
        "secret", 'a secret is a string, { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }'
    )


def _from_env(secret: Secret) -> str:
    value = os.environ.get(secret.place, "")
    if not value:
        raise SecretError(
            f"the environment variable {secret.place} is not set", hint=f"export {secret.place}=... before starting"
        )
    return value


def _from_file(secret: Secret) -> str:
    return _read(secret, Path(secret.place), hint="write the secret into that file, readable by this user")


def _from_credential(secret: Secret) -> str:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise SecretError(
            f"the credential {secret.place} cannot be read: $CREDENTIALS_DIRECTORY is not set",
            hint=f"start Poller with systemd and LoadCredential={secret.place}:PATH, or use {{ file = ... }}",
        )
    return _read(secret, Path(directory, secret.place), hint=f"add LoadCredential={secret.place}:PATH to the unit")


def _read(secret: Secret, path: Path, *, hint: str) -> str:
    """The file's text without its last line break. If the file disappears, its last value is kept."""
    last = secret._last
    try:
        stat = path.stat()
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp == last.stamp:
            return last.value
        value = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        if last.stamp:
            return last.value
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise SecretError(f"the secret file {path} cannot be read: {reason}", hint=hint) from exc
    if not value:
        if last.stamp:  # the file was read between being truncated and being written
            return last.value
        raise SecretError(f"the secret file {path} is empty", hint=hint)
    last.stamp, last.value = stamp, value
    return value


_READERS: Final[Mapping[Kind, Callable[[Secret], str]]] = {
    "text": lambda secret: secret.place,
    "env": _from_env,
    "file": _from_file,
    "credential": _from_credential,
}


def refuse_lines(text: str) -> None:
    """Raise ValueError, which does not repeat the text, if no header can carry it."""
    if _CONTROLS.search(text):
        raise ValueError("this has a line break, or another control character, which no HTTP header may contain")


def checked(secret: Secret, parse: Callable[[str], object]) -> Secret:
    """The secret, if `parse` takes its text. Raises PydanticCustomError with what `parse` says in a ValueError."""
    try:
        parse(secret.reveal())
    except SecretError:  # the secret could not be read, which its own check has accepted for this command
        return secret
    except ValueError as exc:
        raise PydanticCustomError("secret", "{why}", {"why": str(exc)}) from None
    return secret


def _one_line(secret: Secret) -> Secret:
    return checked(secret, refuse_lines)


HeaderSecret = Annotated[Secret, AfterValidator(_one_line)]  # the value of a header
