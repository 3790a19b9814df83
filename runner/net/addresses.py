"""Address checks against server-side request forgery: only https and public addresses may be reached.

    link or redirect   https, public address       http and loopback only if the provider is on loopback
    API base URL       https, also private ones    http on loopback only

`ipaddress.is_global` of Python 3.11.7 has gaps (224.0.0.1, 192.0.0.8, 64:ff9b::7f00:1, 2002:7f00:1::). So a list of
networks is denied in addition, and an IPv4 address embedded in an IPv6 address is checked as well.
"""

from __future__ import annotations

import asyncio
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

#: networks that are denied although `is_global` calls some of their addresses global
_DENIED_NETWORKS = tuple(
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
#: ends of names that no public host has
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".corp", ".home", ".home.arpa", ".private")
#: seconds of a look-up before a proxy is asked, and names that are remembered as unknown here
_LONGEST_CHECK, _MOST_UNKNOWN = 3.0, 1_000
#: IPv6 addresses that end in an IPv4 address (RFC 6052)
_NAT64 = ip_network("64:ff9b::/96")


class AddressDeniedError(OSError):
    """Address that must not be reached; an OSError, so that aiohttp treats it as a failed name resolution."""


def check_url(url: httpx.URL | str, *, loopback: bool) -> httpx.URL:
    """Return the parsed link of a download; only the returned URL may be connected to. Raises AddressDeniedError."""
    checked = _parse_url(url)
    local = loopback and is_loopback(checked.host)
    if checked.scheme != "https" and not (checked.scheme == "http" and local):
        raise AddressDeniedError(f"{checked.scheme or 'no scheme'} is not https")
    literal = _parse_address(checked.host)
    if literal is not None and not may_reach(literal, loopback=loopback):
        raise AddressDeniedError(f"{checked.host} is not a public address")
    return checked


def read_link(text: str) -> str:
    """Return a link as a browser would request it. A link that needs no change stays as it is, to the letter.

    Blanks around it are dropped, blanks in it are quoted, and `&amp;` is undone where every `&` was written so, as in
    HTML. A link without a scheme (`//host`) is https. Control characters stay, and are refused later.
    """
    link = text.strip(" ")
    if link.startswith("//"):
        link = f"https:{link}"
    scheme, separator, rest = link.partition("://")
    authority, slash, path = rest.partition("/")
    if "&amp;" in path and path.count("&") == path.count("&amp;"):
        path = path.replace("&amp;", "&")
    return f"{scheme}{separator}{authority}{slash}{path.replace(' ', '%20')}"


def check_base(url: str) -> httpx.URL:
    """Return the parsed base URL of an API, which may be a company gateway on a private address. Raises ConfigError."""
    try:
        checked = _parse_url(url)
        if checked.query or checked.fragment:
            raise AddressDeniedError("it has a query or a fragment")
        if checked.scheme == "https" or (checked.scheme == "http" and is_loopback(checked.host)):
            return checked
        raise AddressDeniedError("keys would travel in plain text")
    except AddressDeniedError as error:
        hint = "Use an https:// address; http:// is for 127.0.0.1, [::1] and localhost."
        raise ConfigError(f"The base URL cannot be used: {error}.", hint=hint) from None


def is_loopback(host: str) -> bool:
    """Return True if the host of a URL is `localhost` or a loopback address, without name resolution."""
    literal = _parse_address(host)
    return host == "localhost" if literal is None else literal.is_loopback


def may_reach(address: str | Address, *, loopback: bool, private: bool = False) -> bool:
    """Return True if a connection to the address, and to every address embedded in it, is allowed.

    `loopback` allows this machine, `private` also allows private networks.
    """
    parsed = ip_address(address)
    embedded = _embedded_addresses(parsed)
    if embedded:
        return all(may_reach(each, loopback=loopback, private=private) for each in embedded)
    if parsed.is_loopback:
        return loopback or private
    if parsed.is_multicast or parsed.is_unspecified or parsed.is_link_local:
        return False
    if private:
        return True
    listed = any(parsed.version == net.version and parsed in net for net in _DENIED_NETWORKS)
    return parsed.is_global and not parsed.is_private and not parsed.is_reserved and not listed


class GuardedResolver(AbstractResolver):
    """Resolver that returns the addresses of a name only if every one of them may be reached.

    One resolution serves both the check and the connection. `private` allows company networks, for API hosts. `names`
    is the underlying resolver, by default the system's.
    """

    def __init__(self, *, loopback: bool, private: bool = False, names: AbstractResolver | None = None) -> None:
        self._loopback = loopback
        self._private = private
        self._names = names
        #: names that this machine cannot look up
        self._unknown: set[str] = set()

    def __repr__(self) -> str:
        return f"GuardedResolver(loopback={self._loopback}, private={self._private})"

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises AddressDeniedError if one of them must not be reached."""
        self._names = self._names or aiohttp.ThreadedResolver()
        try:
            results = await self._names.resolve(host, port, family)
        except RuntimeError as error:  # the interpreter ends and takes no work for threads; nothing has left
            raise OSError(None, f"{host} cannot be looked up: {error}") from None
        for result in results:
            if not may_reach(result["host"], loopback=self._loopback, private=self._private):
                raise AddressDeniedError(f"{host} leads to an address that must not be reached")
        return results

    async def check_host(self, host: str) -> None:
        """Check the host of a link that a proxy will look up. Raises AddressDeniedError if it must not be reached.

        A name that this machine can look up is checked as for a connection of its own. What it cannot look up is left
        to the proxy, unless the name belongs to a network of its own by its form.
        """
        if self._private or _parse_address(host) is not None:  # an address was checked with its link
            return
        if "." not in host.rstrip(".") or host.rstrip(".").endswith(_LOCAL_NAMES):
            raise AddressDeniedError(f"{host} is a name of a private network")
        if host in self._unknown:
            return
        try:
            async with asyncio.timeout(_LONGEST_CHECK):
                await self.resolve(host)
        except AddressDeniedError:
            raise
        except (OSError, TimeoutError):
            if len(self._unknown) < _MOST_UNKNOWN:
                self._unknown.add(host)

    async def close(self) -> None:
        """Close the underlying resolver."""
        if self._names is not None:
            await self._names.close()


def _embedded_addresses(address: Address) -> tuple[Address, ...]:
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped or address.sixtofour:
        return tuple(each for each in (address.ipv4_mapped, address.sixtofour) if each)
    if address.teredo:
        return address.teredo
    return (IPv4Address(int(address) & 0xFFFFFFFF),) if address in _NAT64 else ()


def _parse_url(url: httpx.URL | str) -> httpx.URL:
    text = str(url)
    if any(char <= " " or char in "\\\x7f" for char in text):
        raise AddressDeniedError("the address holds a space, a backslash or a control character")
    try:
        parsed = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise AddressDeniedError("the address cannot be read") from None
    if parsed.userinfo or "%" in parsed.host or not parsed.host or not 0 < (parsed.port or 1) <= _LAST_PORT:
        raise AddressDeniedError("the address holds user info, no plain host or no port")
    return parsed


def _parse_address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
