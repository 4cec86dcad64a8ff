"""The keys of an `email` subscription."""

from __future__ import annotations

import re
import socket
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import getaddresses
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, model_validator
from pydantic_core import PydanticCustomError

from poller.options.files import CaFile
from poller.options.forms import TextForm
from poller.options.secrets import Secret
from poller.rendering.templates import Templated, TemplateText

LITERAL: Final = "[127.0.0.1]"  # the EHLO name of a host without a full name (RFC 5321 4.1.3)
_SUBJECT: Final = "[{{ event.account }}] {{ event.title if total == 1 else total ~ ' events' }}"
_FULL_NAME: Final = re.compile(
    r"(?=.{4,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]+"
)
_ADDRESS_LITERAL: Final = re.compile(r"\[(?:[0-9.]{7,15}|IPv6:[0-9A-Fa-f:.]{2,45})\]")
_UNSUBSCRIBE: Final = TextForm(
    r"^(https://|mailto:)[\x21-\x3b\x3d\x3f-\x7e]+$", "this must be an address that begins with https:// or mailto:"
)
_PORTS: Final = {"tls": 465, "starttls": 587}


def parsed_address(text: str) -> Address:
    """An address with or without a name: `Ana Roy <ana@maple.example>`."""
    [(name, spec), *more] = getaddresses([text]) or [("", "")]
    try:
        parsed = Address(display_name=name, addr_spec=spec)
    except (HeaderParseError, ValueError, IndexError):
        parsed = Address()
    if not spec.isascii():
        raise PydanticCustomError("address", "an address has ASCII characters only: write its domain as xn--...")
    if more or not (parsed.username and parsed.domain) or re.search(r"[\x00-\x1f\x7f]", text):
        raise PydanticCustomError(
            "address",
            "not one address: write ana@maple.example, Ana Roy <ana@maple.example>, or a list of them; a name with a "
            "comma needs quotes: '\"Roy, Ana\" <ana@maple.example>'",
        )
    return parsed


def _checked_address(text: str) -> str:
    parsed_address(text)
    return text


def _checked_helo(text: str) -> str:
    if not (_FULL_NAME.fullmatch(text) or _ADDRESS_LITERAL.fullmatch(text)):
        raise PydanticCustomError("helo", "a full host name (poller.maple.example) or an address literal ([192.0.2.1])")
    return text


def _listed(given: object) -> object:
    return (given,) if isinstance(given, str) else given


MailAddress = Annotated[str, AfterValidator(_checked_address)]
MailAddresses = Annotated[tuple[MailAddress, ...], BeforeValidator(_listed)]


class EmailOptions(Templated):
    """`[[subscriptions]]` with `plugin = "email"`."""

    host: str = "localhost"
    port: StrictInt = Field(default=25, ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] | None = None  # None: STARTTLS if the server offers it
    helo: Annotated[str, AfterValidator(_checked_helo)] | None = None  # None: own_name()
    username: str | None = None
    password: Secret | None = None
    ca_file: CaFile | None = None
    sender: MailAddress = Field(alias="from")
    to: MailAddresses = Field(min_length=1)
    cc: MailAddresses = ()
    subject: TemplateText = _SUBJECT
    list_unsubscribe: Annotated[str, _UNSUBSCRIBE] | None = None

    @model_validator(mode="after")
    def _login(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise PydanticCustomError("email", "give both username and password, or neither")
        return self

    @property
    def is_opportunistic(self) -> bool:
        """Whether any encryption is better than none: `tls` is not set, and no password is sent."""
        return self.tls is None and self.username is None


def own_name(found: str | None = None) -> str:
    """The name of this host in EHLO: its fully qualified name, else an address literal.

    Servers refuse short names with "504 need fully-qualified hostname". Blocks, because it may query the DNS.
    """
    name = socket.getfqdn() if found is None else found
    is_name = _FULL_NAME.fullmatch(name) and not name.endswith(".arpa") and not name.startswith("localhost.")
    return name if is_name else LITERAL


def tls_hint(options: EmailOptions) -> str:
    """What to try if the connection or the TLS handshake fails: each kind of TLS has its port (RFC 8314)."""
    usual = _PORTS.get(options.tls or "")
    if options.port == 465 and options.tls != "tls":
        return 'port 465 is for tls = "tls"'
    if options.tls == "tls" and options.port in (25, 587):
        return f'port {options.port} is for tls = "starttls"; tls = "tls" usually goes with port 465'
    if usual is not None and options.port != usual:
        return f'tls = "{options.tls}" usually goes with port {usual}'
    return "is it the right port, and does the server's certificate name this host?"
