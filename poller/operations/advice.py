"""Warnings about a valid configuration that is probably not what was meant, for `poller check` and `poller doctor`."""

from __future__ import annotations

import base64
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import BaseModel

from poller.config.models import Config, SourceConfig, SubscriptionConfig
from poller.events.filters import matcher
from poller.hooks.ownership import distrust
from poller.operations.doctor import Finding, of_config, warn
from poller.operations.file_systems import REPLACED, REPLACED_HINT, has_other_place, remote_file_system, was_replaced
from poller.options.problems import dotted
from poller.options.secrets import Secret, SecretError
from poller.sinks.ssrf import literal_address, why_refused
from poller.sources.protocol import PageError
from state.errors import StateError
from state.open import refuse_old_sqlite

_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH
_SECRET_NAME: Final = re.compile(r"(?i)^(key|sig|pwd|.*(api[_-]?key|token|secret|password|passwd|signature))$")
_SECRET_HEADER: Final = re.compile(r"(?i)^(authorization|cookie|proxy-authorization)$")
_VARIABLE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|\A\$[A-Z][A-Z0-9_]+\Z")
_SIGNING: Final = "whsec_"
_FEW: Final = 10  # distinct bytes; 24 random bytes practically always have more
_LONG: Final = 32  # a text of at least so many bytes may be the digits of a random number
_PLACES: Final = ("params", "headers", "body")  # tables whose texts are sent


def advice(config: Config) -> Iterator[Finding]:
    """Every warning, in the order of the file."""
    yield from of_config(config)
    yield from _folders(config)
    yield from _budgets(config)
    types = {name: _types(source) for name, source in config.sources.items()}
    for name, found in types.items():
        if not found:
            yield warn(f"source {name}", "its plugin offers no endpoint: nothing is polled", "check its options")
    for subscription in config.subscriptions:
        yield from _unmatched(subscription, types)
        yield from _private_address(subscription)
        yield from _weak_secret(subscription)
    yield from _unexpanded(config.path)
    yield from _open_secrets(config.path)
    if was_replaced(config.path):
        yield warn(str(config.path), REPLACED, REPLACED_HINT)


def _folders(config: Config) -> Iterator[Finding]:
    state = config.poller.state
    if isinstance(state, Path) and not (folder := state.parent).is_dir():
        yield warn(
            "poller.state", f"the folder {folder} does not exist yet: it will be created", "is it the right one?"
        )
    if isinstance(state, Path) and (kind := remote_file_system(state)) is not None:
        told = f"{state} is on {kind}, where SQLite's write-ahead log is not safe: it needs a local disk"
        yield warn("poller.state", told, "move it to a local disk, or use PostgreSQL (docs/scale.md)")
    if isinstance(state, Path) and (why := has_other_place(state)) is not None:
        told = f"{state} {why}: the latest events are in {state.name}-wal beside it, and would be lost without it"
        yield warn("poller.state", told, f"mount or link its folder {state.parent} instead")
    if isinstance(state, Path):
        try:
            refuse_old_sqlite()
        except StateError as error:
            yield warn("poller.state", str(error), error.hint)
    for subscription in config.subscriptions:
        for key, path in _paths(subscription.options):
            if not path.parent.is_dir():
                about = f"subscriptions.{subscription.name}.{key}"
                yield warn(about, f"the folder {path.parent} does not exist", f"mkdir -p {path.parent}")


def _paths(options: Any) -> Iterator[tuple[str, Path]]:
    for name in type(options).model_fields if isinstance(options, BaseModel) else ():
        if isinstance(value := getattr(options, name), Path):
            yield name, value


def _budgets(config: Config) -> Iterator[Finding]:
    used = {source.budget for source in config.sources.values()}
    for name in config.budgets.keys() - used:
        yield warn(f"budgets.{name}", "no source uses it", f'write budget = "{name}" in a source, or remove it')


def _types(source: SourceConfig) -> list[str]:
    """All event types that a source can have."""
    try:
        offered = source.chosen(source.build().endpoints())
    except PageError:
        return []
    kinds = ("created", "updated", "deleted")
    return [f"{source.namespace}.{endpoint.name}.{kind}" for endpoint in offered for kind in kinds]


def _unmatched(subscription: SubscriptionConfig, types: Mapping[str, list[str]]) -> Iterator[Finding]:
    """Globs and sources of a subscription that no event can match."""
    about = f"subscriptions.{subscription.name}"
    heard = {name: found for name, found in types.items() if not subscription.sources or name in subscription.sources}
    known = [one for found in heard.values() for one in found]
    if not known:
        return  # another warning says that no source offers anything
    for glob in subscription.types:
        if not glob.startswith("poller.") and not any(map(matcher([glob]), known)):
            example = ", ".join(sorted({one.rpartition(".")[0] + ".*" for one in known})[:5])
            yield warn(f"{about}.types", f"{glob!r} matches no event of its sources", f"existing types: {example}")
    for name in subscription.sources:
        wanted = matcher(subscription.types)
        if (found := types.get(name)) and not any(map(wanted, found)):
            yield warn(
                f"{about}.sources", f"no event of {name!r} matches its types", f"existing types: {found[0]}, ..."
            )


def _private_address(subscription: SubscriptionConfig) -> Iterator[Finding]:
    options = subscription.options
    if getattr(options, "allow_private", None) is not False:
        return
    for key in type(options).model_fields:
        for text in _texts(getattr(options, key)):
            host = _split(text).hostname or ""
            why = "loopback" if host.lower() == "localhost" else why_refused(literal_address(host) or "192.0.1.1")
            if host and why:
                about = f"subscriptions.{subscription.name}.{key}"
                yield warn(about, f"{host} is {why}: every delivery will be refused", "set allow_private = true")


def _weak_secret(subscription: SubscriptionConfig) -> Iterator[Finding]:
    """Signing secrets that look typed by hand, which can be guessed."""
    about = f"subscriptions.{subscription.name}.secret"
    for text in _texts(getattr(subscription.options, "secret", None)):
        if text.startswith(_SIGNING) and _is_typed(text.removeprefix(_SIGNING)):
            made = f'echo "{_SIGNING}$(head -c 32 /dev/urandom | base64)"'
            yield warn(about, "this secret looks typed by hand, so it can be guessed", made)


def _is_typed(encoded: str) -> bool:
    """Whether a key is a short text or repeats a few bytes, unlike random bytes."""
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False  # the plugin refuses it
    return len(set(key)) < _FEW or (len(key) < _LONG and key.isascii() and key.decode().isprintable())


def _texts(value: Any) -> Iterator[str]:
    match value:
        case Secret():
            try:
                yield value.reveal()
            except SecretError:
                return
        case tuple() | list():
            for one in value:
                yield from _texts(one)


def _unexpanded(file: Path) -> Iterator[Finding]:
    """Texts that look as if a variable of the environment were to be put into them, which nothing does."""
    for key, text in _keyed_texts(_read(file)):
        if found := _VARIABLE.search(text):
            told = f"{found[0]} is used as it is written: variables are not replaced in texts"
            yield warn(dotted(key), told, 'a secret may be { env = "NAME" }, without anything around it')


def _read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8-sig"))


def _open_secrets(file: Path) -> Iterator[Finding]:
    """Secrets in a file that others can read, and a file that others can write."""
    if (why := distrust(file)) is not None:
        yield warn(str(file), f"{why[0]}: it could be made to run code or to send secrets elsewhere", why[1])
    if file.stat().st_mode & _OTHERS:
        for key, text in _keyed_texts(_read(file)):
            if _looks_secret(text, key):
                told = f"this looks like a secret, and {file} can be read by others"
                yield warn(dotted(key), told, f"chmod 600 {file}")


def _keyed_texts(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text of a file, with its place; a table of a list is named by its name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _keyed_texts(inner, (*at, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            name = inner.get("name") if isinstance(inner, dict) else None
            yield from _keyed_texts(inner, (*at, name if isinstance(name, str) else place))
    elif isinstance(value, str):
        yield at, value


def _looks_secret(text: str, at: tuple[str | int, ...]) -> bool:
    url = _split(text)
    if url.password or any(_SECRET_NAME.match(name) and value for name, value in parse_qsl(url.query)):
        return True
    sent = len(at) > 1 and at[-2] in _PLACES
    name = str(at[-1]) if at else ""
    return bool(text) and sent and bool(_SECRET_NAME.match(name) or _SECRET_HEADER.match(name))


def _split(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
    except ValueError:
        return urlsplit("")
    return url if url.scheme in ("http", "https") else urlsplit("")
