"""The address guard: what is public, what is not, and that nothing slips past it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from poller.sinks.connections import GuardedResolver, connector, guarded_socket
from poller.sinks.ssrf import AddressRefused, literal_address, why_refused

REFUSED = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("10.1.2.3", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("169.254.169.254", "link-local"),  # AWS, Azure, Google, Oracle metadata
    ("169.254.170.2", "link-local"),  # AWS container credentials
    ("100.100.100.200", "reserved"),  # Alibaba metadata, in the carriers' shared range
    ("100.64.0.1", "reserved"),
    ("168.63.129.16", "internal"),  # Azure platform
    ("192.0.0.192", None),  # Oracle classic metadata
    ("198.18.0.1", "private"),
    ("192.0.2.1", "private"),
    ("192.88.99.1", "internal"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("240.0.0.1", "private"),
    ("255.255.255.255", "private"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "private"),  # AWS metadata
    ("fec0::1", "internal"),
    ("ff02::1", "multicast"),
    ("2001:db8::1", "private"),
    ("5f00::1", None),
    ("::ffff:127.0.0.1", "loopback inside IPv6"),
    ("::ffff:7f00:1", "loopback inside IPv6"),
    ("::ffff:169.254.169.254", "link-local inside IPv6"),
    ("::127.0.0.1", "loopback inside IPv6"),
    ("::ffff:0:127.0.0.1", None),
    ("2002:7f00:1::", "loopback inside IPv6"),
    ("2002:a9fe:a9fe::1", "link-local inside IPv6"),
    ("64:ff9b::10.0.0.1", "private inside IPv6"),
    ("64:ff9b::7f00:1", "loopback inside IPv6"),
    ("64:ff9b:1::1", None),
    ("2001:0:4136:e378:8000:63bf:f5ff:fffe", "private inside IPv6"),  # Teredo for 10.0.0.1
    ("2606:4700::5efe:10.0.0.1", "private inside IPv6"),  # ISATAP
    ("2606:4700:0:0:200:5efe:c0a8:101", "private inside IPv6"),
    ("localhost", "not an IP address"),
    ("", "not an IP address"),
]


@pytest.mark.parametrize(("address", "reason"), REFUSED)
def test_addresses_of_the_inside_are_refused(address: str, reason: str | None) -> None:
    assert why_refused(address)
    if reason is not None:
        assert why_refused(address) == reason


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "2002:101:101::1"],
)
def test_public_addresses_pass(address: str) -> None:
    assert why_refused(address) is None


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_judged_alike_in_every_form_that_leads_to_it(number: int) -> None:
    plain = why_refused(str(IPv4Address(number)))

    for wrapped in (
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x0064FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
    ):
        assert (why_refused(str(wrapped)) is None) == (plain is None)


class Names(AbstractResolver):
    """A resolver that answers from a list: the next answer at each question."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers.pop(0)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        pass


async def test_a_name_keeps_only_its_public_addresses() -> None:
    found = await GuardedResolver(Names(["10.0.0.1", "1.1.1.1"])).resolve("mixed.example", 80)

    assert [result["host"] for result in found] == ["1.1.1.1"]


async def test_a_name_without_public_addresses_is_refused_by_name() -> None:
    with pytest.raises(AddressRefused, match=r"router\.example is 192\.168\.0\.1, which is private"):
        await GuardedResolver(Names(["192.168.0.1"])).resolve("router.example", 80)


@pytest.fixture
async def inside() -> AsyncIterator[tuple[int, list[str]]]:
    """A server on loopback that must not be reached, and what reached it."""
    reached: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response(text="the crown jewels")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1], reached
    await runner.cleanup()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
    ],
)
async def test_no_spelling_of_loopback_is_reached(inside: tuple[int, list[str]], host: str) -> None:
    port, reached = inside
    async with aiohttp.ClientSession(connector=connector()) as session:
        with pytest.raises((aiohttp.ClientError, ValueError)):
            await session.get(f"http://{host}:{port}/")

    assert reached == []


async def test_a_name_that_turns_inside_after_it_was_looked_up_is_not_reached(inside: tuple[int, list[str]]) -> None:
    port, reached = inside

    class Rebinding(Names):
        """Passes the look-up unseen, as a cache that was poisoned would: only the socket is left to notice."""

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=Rebinding(["127.0.0.1"]), socket_factory=guarded_socket)
    )
    async with session:
        with pytest.raises(aiohttp.ClientConnectorError) as failure:
            await session.get(f"http://rebinding.example:{port}/")

    assert str(failure.value.__cause__) == "127.0.0.1 is loopback"
    assert reached == []


async def test_a_name_that_answers_otherwise_the_second_time_is_refused_then(inside: tuple[int, list[str]]) -> None:
    port, reached = inside
    resolver = GuardedResolver(Names(["1.1.1.1"], ["127.0.0.1"]))
    await resolver.resolve("rebinding.example", port)

    with pytest.raises(AddressRefused):
        await resolver.resolve("rebinding.example", port)
    assert reached == []


async def test_private_addresses_are_reached_where_they_are_allowed(inside: tuple[int, list[str]]) -> None:
    port, reached = inside
    session = aiohttp.ClientSession(connector=connector(allow_private=True))
    async with session, session.get(f"http://127.0.0.1:{port}/hook") as response:
        assert response.status == 200

    assert reached == ["/hook"]


def test_a_socket_is_made_for_a_public_address() -> None:
    with guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("1.1.1.1", 443))) as made:
        assert made.family == socket.AF_INET


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0x7F000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("crm.example", None),
        ("127.0.0.1.nip.io", None),
        ("1.2.3.4.5", None),
        ("0xfgh", None),
        ("", None),
    ],
)
def test_an_address_is_one_in_every_form_that_resolvers_take(host: str, address: str | None) -> None:
    assert literal_address(host) == address


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "{:#x}", "{:#o}"]))
def test_every_number_is_the_address_that_it_stands_for(number: int, form: str) -> None:
    written = form.format(number).replace("0o", "0")

    assert literal_address(written) == str(IPv4Address(number))
