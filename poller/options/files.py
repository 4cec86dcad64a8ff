"""File options as annotated types for pydantic. Relative paths start at the configuration's directory."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from poller.redaction import SECRETS
from state.place import DatabaseUrl, Place


def _rooted(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("root") or ".") / path.expanduser()


def _certificates(path: Path) -> Path:
    if not path.is_file():
        raise PydanticCustomError("ca_file", "the file {path} does not exist", {"path": str(path)})
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        what = "{path} does not contain certificates in PEM format ({why})"
        raise PydanticCustomError("ca_file", what, {"path": str(path), "why": str(error)}) from error
    return path


def _place(given: object, info: ValidationInfo) -> Place:
    if isinstance(given, Path | DatabaseUrl):
        return given if isinstance(given, DatabaseUrl) else _rooted(given, info)
    if not isinstance(given, str):
        raise PydanticCustomError("state", "input is not a valid path")
    if "://" not in given:
        return _rooted(Path(given), info)
    if given.partition("://")[0] not in ("postgresql", "postgres"):
        raise PydanticCustomError(
            "state", 'a state is a file such as "poller.db", or a database: "postgresql://user@host/name"'
        )
    if password := urlsplit(given).password:
        SECRETS.add(password)
    return DatabaseUrl(given)


RootedPath = Annotated[Path, AfterValidator(_rooted)]
StatePlace = Annotated[Place, PlainValidator(_place), WithJsonSchema({"type": "string"})]  # a file, or a database
CaFile = Annotated[RootedPath, AfterValidator(_certificates)]
