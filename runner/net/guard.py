"""Which addresses may be reached: https and public ones, save where the provider itself is on this machine.

    link or redirect   https, public address        http and loopback only where the provider is on loopback
    API base           https, private ones as well  http on loopback only

`ipaddress.is_global` of Python 3.11.7 has holes (224.0.0.1, 192.0.0.8, 64:ff9b::7f00:1, 2002:7f00:1::), so what it
calls global is denied again by name, and addresses that carry another one are unwrapped first (attacks.md X13, X14).
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver

from runner.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

    Address = IPv4Address | IPv6Address

_DENIED = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)
_LAST_PORT = 65535
_NAT64 = ip_network("64:ff9b::/96")


class Denied(OSError):  # noqa: N818 - reads as what it says
    """An address that must not be reached; an OSError, so that aiohttp takes it for a failed name look-up."""


def check_url(url: httpx.URL | str, *, loopback: bool) -> httpx.URL:
    """The parsed link of a download, or Denied; only what is returned may be connected to."""
    checked = _parsed(url)
    local = loopback and is_loopback(checked.host)
    if checked.scheme != "https" and not (checked.scheme == "http" and local):
        raise Denied(f"{checked.scheme or 'no scheme'} is not https")
    literal = _literal(checked.host)
    if literal is not None and not may_reach(literal, loopback=loopback):
        raise Denied(f"{checked.host} is not a public address")
    return checked


def check_base(url: str) -> httpx.URL:
    """The parsed base URL of an API, or ConfigError; company gateways on private addresses are welcome."""
    try:
        checked = _parsed(url)
        if checked.query or checked.fragment:
            raise Denied("it has a query or a fragment")
        if checked.scheme == "https" or (checked.scheme == "http" and is_loopback(checked.host)):
            return checked
        raise Denied("keys would travel in plain text")
    except Denied as error:
        hint = "Use an https:// address; http:// is for 127.0.0.1, [::1] and localhost."
        raise ConfigError(f"The base URL cannot be used: {error}.", hint=hint) from None


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine by its very spelling."""
    literal = _literal(host)
    return host == "localhost" if literal is None else literal.is_loopback


def may_reach(address: str | Address, *, loopback: bool, private: bool = False) -> bool:
    """Whether one address may be connected to; what it wraps is judged as well."""
    parsed = ip_address(address)
    inner = _unwrapped(parsed)
    if inner:
        return all(may_reach(each, loopback=loopback, private=private) for each in inner)
    if parsed.is_loopback:
        return loopback or private
    if parsed.is_multicast or parsed.is_unspecified or parsed.is_link_local:
        return False
    return private or _public(parsed)


def _public(address: Address) -> bool:
    listed = any(address.version == net.version and address in net for net in _DENIED)
    return address.is_global and not address.is_private and not address.is_reserved and not listed


def _unwrapped(address: Address) -> tuple[Address, ...]:
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped or address.sixtofour:
        return tuple(each for each in (address.ipv4_mapped, address.sixtofour) if each)
    if address.teredo:
        return address.teredo
    return (IPv4Address(int(address) & 0xFFFFFFFF),) if address in _NAT64 else ()


def _parsed(url: httpx.URL | str) -> httpx.URL:
    text = str(url)
    if any(char <= " " or char in "\\\x7f" for char in text):
        raise Denied("the address holds a space, a backslash or a control character")
    try:
        parsed = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise Denied("the address cannot be read") from None
    if parsed.userinfo or "%" in parsed.host or not parsed.host or not 0 < (parsed.port or 1) <= _LAST_PORT:
        raise Denied("the address holds user info, no plain host or no port")
    return parsed


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


class GuardedResolver(AbstractResolver):
    """Looks a name up once and hands on its addresses only if every one of them may be reached.

    `private` admits company networks (API hosts); `names` is the look-up itself, the system's by default.
    """

    def __init__(self, *, loopback: bool, private: bool = False, names: AbstractResolver | None = None) -> None:
        self._loopback = loopback
        self._private = private
        self._names = names

    def __repr__(self) -> str:
        return f"GuardedResolver(loopback={self._loopback}, private={self._private})"

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self._names = self._names or aiohttp.ThreadedResolver()
        found = await self._names.resolve(host, port, family)
        for each in found:
            if not may_reach(each["host"], loopback=self._loopback, private=self._private):
                raise Denied(f"{host} leads to an address that must not be reached")
        return found

    async def close(self) -> None:
        if self._names is not None:
            await self._names.close()
