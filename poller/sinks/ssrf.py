"""Which addresses a callback may connect to.

A callback URL may be written by one person and called from another person's network: without a guard it reaches
routers, databases and the metadata service of the cloud (server-side request forgery). The decision is made when the
socket is opened, on the address that it is about to connect to. That covers names that resolve differently a moment
later (DNS rebinding), and IP literals, which are never resolved. The resolver checks first so that the message can name
the host.

Sources: the IANA special-purpose registries (RFC 6890) as `ipaddress.is_global` has them; embedded IPv4 by RFC 4291
2.5.5 (mapped, compatible), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 6052 and 8215 (NAT64), RFC 5214 (ISATAP).
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_FORBIDDEN: Final = tuple(
    ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's platform address; public by the registry, but internal
        "192.0.0.0/24",  # protocol assignments; older Pythons call part of it global
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "fec0::/10",  # site-local, deprecated but routed
        "64:ff9b:1::/48",  # local NAT64: the embedded address depends on the site
        "5f00::/16",  # segment routing inside a domain (RFC 9602)
    )
)
_NAT64: Final = ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ip_network("::/96")
_NUMERIC: Final = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+)){0,3}")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


class AddressRefused(OSError):
    """A connection to an address that callbacks must not reach."""


def why_refused(address: str) -> str | None:
    """What is wrong with an IP address as a destination, in a word or two; None if it is public."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return "not an IP address"
    return _why(parsed)


def _why(address: IPv4Address | IPv6Address) -> str | None:
    if isinstance(address, IPv6Address) and (inner := _embedded(address)) is not None:
        reason = _why(inner)
        return f"{reason} inside IPv6" if reason else None
    kinds = {
        "unspecified": address.is_unspecified,
        "loopback": address.is_loopback,
        "link-local": address.is_link_local,  # the metadata services of most clouds (169.254.169.254) too
        "multicast": address.is_multicast,
        "private": address.is_private,
        "reserved": address.is_reserved or not address.is_global,
        "internal": any(address.version == net.version and address in net for net in _FORBIDDEN),
    }
    return next((kind for kind, applies in kinds.items() if applies), None)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address embeds, which is where its packets go."""
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address.teredo:
        return address.teredo[1]
    last = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (address in _COMPATIBLE and last > 1):
        return IPv4Address(last)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(last)
    return None


def literal_address(host: str) -> str | None:
    """The address that a host is, in any form that a resolver or a proxy accepts as one; None for a name.

    Besides the usual forms these are 127.1, 2130706433, 0x7f.1, 0177.0.0.1 (inet_aton(3)), each also with a final dot.
    """
    host = host.strip("[]").rstrip(".")
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    if not _NUMERIC.fullmatch(host):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None
