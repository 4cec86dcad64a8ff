"""File options as annotated types for pydantic. Relative paths start at the configuration's directory."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError


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


RootedPath = Annotated[Path, AfterValidator(_rooted)]
CaFile = Annotated[RootedPath, AfterValidator(_certificates)]
