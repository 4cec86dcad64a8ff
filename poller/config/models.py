"""Models of the tables of `poller.toml`, frozen. docs/configuration.md describes every key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import httpx
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    field_validator,
    model_validator,
)

from poller.documents.diff import compile_rules
from poller.hooks.source_adapter import SourceAdapter
from poller.late import late
from poller.options.files import CaFile, RootedPath, StatePlace
from poller.options.quantities import Duration, Rate, Size, lasting, parse_duration
from poller.options.secrets import Secret, SecretError
from poller.sinks.calls import parsed_proxy, parsed_url
from poller.sinks.protocol import Sink
from poller.sources.protocol import Endpoint
from state.place import Place

if TYPE_CHECKING:
    import apscheduler.triggers.cron as cron
else:
    cron = late("apscheduler.triggers.cron")

RETRY: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


def checked_name(text: str) -> str:
    """The name of a source, a budget or a subscription. Raises ValueError."""
    if not re.fullmatch(NAME, text):
        raise ValueError(
            f"{text[:120]!r} is not a valid name: 1 to 100 letters, digits and . _ -, the first a letter or digit"
        )
    return text


def _pointer(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError('a JSON Pointer begins with "/", for example "/last_viewed" or "/lines/*/position"')
    compile_rules((text,), (), ())
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise ValueError("a namespace is one word: letters, digits, _ and -, the first a letter or digit")
    return text


def _proxy(url: str) -> str:
    try:
        parsed_proxy(url)
        httpx.Proxy(url)
    except (ValueError, httpx.InvalidURL):
        raise ValueError('a proxy is a URL such as "http://proxy.example:3128"') from None
    return url


def _revealed(secret: Secret | None) -> str | None:
    """A secret's text; None if it cannot be read, which is an error of its own unless the command only looks."""
    try:
        return None if secret is None else secret.reveal()
    except SecretError:
        return None


Name = Annotated[str, AfterValidator(checked_name)]
Pointer = Annotated[str, AfterValidator(_pointer)]
Start = Literal["now", "beginning"] | int | float  # an int is a sequence number, a float a time in Unix seconds


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Settings(_Table):
    """`[poller]`"""

    state: StatePlace = Field(default=Path("poller.db"), validate_default=True)
    listen: str = "127.0.0.1:8765"
    token: Secret | None = None
    allowed_hosts: tuple[str, ...] = Field(default=(), validate_default=True)
    plugins_dir: RootedPath | None = None
    retention: Annotated[Duration, lasting(60.0)] = 90 * 86400.0
    timezone: str = "UTC"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json", "journal"] = "auto"
    heartbeat: Secret | None = None

    @field_validator("state")
    @classmethod
    def _a_file(cls, state: Place) -> Place:
        if isinstance(state, Path) and state.is_dir():
            raise ValueError(f"{state} is a folder; name a file in it, for example {state / 'poller.db'}")
        return state

    @field_validator("token")
    @classmethod
    def _sendable(cls, token: Secret | None) -> Secret | None:
        if (text := _revealed(token)) is not None and not re.fullmatch(r"[\x21-\x7e]+", text):
            raise ValueError(
                "a token is one line of visible ASCII characters, without spaces: clients send it in a header"
            )
        return token

    @field_validator("heartbeat")
    @classmethod
    def _callable(cls, heartbeat: Secret | None) -> Secret | None:
        if (text := _revealed(heartbeat)) is not None:
            parsed_url(text)
        return heartbeat

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if listen and not (host and port.isdecimal() and int(port) < 65536):
            raise ValueError('listen is HOST:PORT, for example "127.0.0.1:8765", or "" to switch it off')
        return listen

    @field_validator("timezone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise ValueError(f'{name!r} is not a time zone; write an IANA name such as "Europe/Berlin"') from error
        except KeyError as error:
            raise ValueError(
                f'the time zone {name!r} is not known; write an IANA name such as "Europe/Berlin"'
            ) from error
        return name

    @model_validator(mode="after")
    def _guarded(self) -> Settings:
        if self.address is not None and self.token is None and not is_loopback(self.address[0]):
            raise ValueError(
                f"listening on {self.listen} lets other machines connect; set poller.token, or listen on 127.0.0.1"
            )
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None if the HTTP server is switched off."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port)) if self.listen else None

    @property
    def hosts(self) -> frozenset[str]:
        """The accepted `Host` names, in lower case, without ports."""
        listening = (self.address[0],) if self.address else ()
        return frozenset(name.strip("[]").lower() for name in self.allowed_hosts or (*LOOPBACK, *listening))

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of digests and of displayed times."""
        return ZoneInfo(self.timezone)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class BudgetConfig(_Table):
    """`[budgets.NAME]`"""

    limits: tuple[Rate, ...] = Field(default=(), min_length=1)  # never empty after loading
    share: float = Field(default=0.9, gt=0, le=1, strict=True)
    concurrency: StrictInt = Field(default=4, ge=1, le=64)


class EndpointConfig(_Table):
    """Keys of `[sources.NAME.endpoints.X]` that the engine accepts for every plugin."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False, strict=True)
    max_staleness: Duration | None = None
    ignore: tuple[Pointer, ...] = ()
    exclude: tuple[Pointer, ...] = ()
    unordered: tuple[Pointer, ...] = ()
    deletes: StrictBool = True
    deleted_when: str | None = None
    conditional: StrictBool = True  # False: neither ETag nor Last-Modified is sent back
    absent_for: Duration | None = None  # None: 10 s for an object with its own URL, else a minute
    unlisted: Literal["keep", "updated", "deleted"] = "keep"  # objects that left the list, but answer at their own URL
    turnover: StrictBool = False  # objects come and go: many deletions are no reason to hold it
    baseline: Literal["silent", "emit"] = "silent"


class _PluginTable(_Table):
    """A table of a plugin: the engine's keys, and the plugin's own keys as `options`."""

    name: Name = ""
    plugin: str
    cls: Any = None  # the plugin's class: type[Source] or type[Sink]
    options: Any = None  # the plugin's own Options


class SourceConfig(_PluginTable):
    """`[sources.NAME]`"""

    budget: str = ""  # after loading, the name of a budget in Config.budgets
    namespace: Annotated[str, AfterValidator(_word)] = ""  # never empty after loading
    timeout: Annotated[Duration, lasting(0.001)] = 30.0
    max_answer: Size = 32_000_000
    max_depth: StrictInt = Field(default=64, ge=1, le=1000)
    ca_file: CaFile | None = None
    proxy: Annotated[str, AfterValidator(_proxy)] | None = None
    verify: StrictBool = True
    endpoints: Mapping[str, EndpointConfig] = Field(default_factory=dict)  # empty: all endpoints of the plugin

    def build(self) -> SourceAdapter:
        """Build the source with its plugin. Raises PageError if it cannot be built."""
        return SourceAdapter.build(self.plugin, lambda: self.cls(self.name, self.options))

    def chosen(self, offered: Sequence[Endpoint]) -> list[Endpoint]:
        """The offered endpoints that the configuration names; all of them if it names none."""
        return [endpoint for endpoint in offered if self.watches(endpoint.name)]

    def watches(self, endpoint: str) -> bool:
        """Whether the source polls an endpoint of this name, provided the plugin offers it."""
        return not self.endpoints or endpoint in self.endpoints

    def endpoint(self, name: str) -> EndpointConfig:
        """The configuration of an endpoint; the defaults if it has none."""
        return self.endpoints.get(name) or EndpointConfig()


def _start(given: Any) -> Any:
    if isinstance(given, datetime) or (isinstance(given, str) and given[:4].isdigit()):
        when = given if isinstance(given, datetime) else _instant(given)
        if when.tzinfo is None:
            raise ValueError('a time needs its offset, for example "2026-11-23T08:00:00Z"')
        return when.timestamp()
    if given in ("now", "beginning") or (isinstance(given, int | float) and not isinstance(given, bool) and given >= 0):
        return given
    raise ValueError('start is "now", "beginning", a sequence number or a time such as "2026-11-23T08:00:00Z"')


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f'{text!r} is not a time: {error}; "2026-11-23T08:00:00Z" is valid') from error


def _digest(given: Any) -> Any:
    if not isinstance(given, str) or len(given.split()) != 5:
        return parse_duration(given)
    try:
        cron.CronTrigger.from_crontab(given)
    except ValueError as error:
        raise ValueError(f'{given!r} is not a crontab line: {error}; "0 9 * * mon-fri" is valid') from error
    return given


class SubscriptionConfig(_PluginTable):
    """`[[subscriptions]]`"""

    name: Name
    types: tuple[str, ...] = Field(default=("*",), min_length=1)
    sources: tuple[str, ...] = ()  # empty: all sources
    where: str | None = None
    start: Annotated[Any, BeforeValidator(_start)] = "now"  # Start
    enabled: StrictBool = True
    concurrency: StrictInt = Field(default=8, ge=1, le=256)
    retry: tuple[Duration, ...] = RETRY
    digest: Annotated[Any, BeforeValidator(_digest)] = None  # seconds (float) or a crontab line (str)

    def build(self) -> Sink:
        """Build the sink with its plugin, without opening it. The plugin may raise any exception."""
        made: Sink = self.cls(self.name, self.options)
        return made


class Config(_Table):
    """Configuration of a `poller.toml`, checked and complete."""

    path: Path
    digest: str = ""  # SHA-256 of the file that was read
    read_at: float = 0.0  # Unix seconds
    poller: Settings = Settings()
    budgets: Mapping[str, BudgetConfig] = Field(default_factory=dict)
    sources: Mapping[str, SourceConfig] = Field(default_factory=dict)
    subscriptions: tuple[SubscriptionConfig, ...] = ()
    # By "budget/NAME" or "subscription/NAME": the secret that is not here, so that it is left to other workers.
    lacks: Mapping[str, str] = Field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The directory at which relative paths start."""
        return self.path.parent
