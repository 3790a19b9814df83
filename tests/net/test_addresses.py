"""Addresses that attackers write in links, and addresses that they make resolvers return."""

import httpx
import pytest
from aiohttp.abc import AbstractResolver

from runner.errors import ConfigError
from runner.net.addresses import (
    AddressDeniedError,
    GuardedResolver,
    check_base,
    check_url,
    is_loopback,
    may_reach,
    read_link,
)

PRIVATE = (  # noqa: SIM905 - a table, not fifty lines
    "127.0.0.1 127.1.2.3 ::1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.127.255.254 0.0.0.0 "
    "0.1.2.3 :: 224.0.0.1 239.1.1.1 ff02::1 192.0.0.8 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 240.0.0.1 "
    "255.255.255.255 fe80::1 fc00::1 fd12::1 fec0::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 "
    "::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1:: 2001:0:a00:1::1 "
    "::127.0.0.1 2001:0:4136:e378:8000:63bf:80ff:fffe 192.88.99.1 100::1 5f00::1 3fff::1 "
).split()
PUBLIC = ["1.1.1.1", "8.8.8.8", "223.5.5.5", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_denied(address):
    assert not may_reach(address, loopback=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address):
    assert may_reach(address, loopback=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_allowed_on_request(address):
    assert may_reach(address, loopback=True)


def test_metadata_address_is_denied_to_private_apis():
    assert may_reach("10.1.2.3", loopback=False, private=True)
    assert not may_reach("169.254.169.254", loopback=True, private=True)


@pytest.mark.parametrize("url", [f"https://{f'[{each}]' if ':' in each else each}/x.png" for each in PRIVATE])
def test_links_to_private_addresses_are_denied(url):
    with pytest.raises(AddressDeniedError):
        check_url(url, loopback=False)


MALFORMED = [
    "http://cdn.example.com/x.png",
    "file:///etc/passwd",
    "ftp://cdn.example.com/x",
    "//cdn.example.com/x",
    "/x.png",
    "",
    "https://",
    "https:///x",
    "https://user@cdn.example.com/x",
    "https://user:pass@cdn.example.com/x",
    "https://cdn.good.com\\@127.0.0.1/",
    "https://cdn.good.com%00.evil/",
    "https://cdn.example.com/\n",
    "https://cdn.example.com/a b",
    "https://cdn.example.com/\x7f",
    "https://[::1%25eth0]/x",
    "https://[::ffff:7f00:1]/",
    "javascript:alert(1)",
    "https://exa mple.com/",
    "https://cdn.example.com:99999/",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_malformed_links_are_denied(url):
    with pytest.raises(AddressDeniedError):
        check_url(url, loopback=False)


def test_valid_link_is_returned_parsed():
    url = check_url("https://cdn.example.com:8443/x.png?sig=a%2Fb", loopback=False)
    assert url == httpx.URL("https://cdn.example.com:8443/x.png?sig=a%2Fb")


def test_http_needs_allowed_loopback():
    assert check_url("http://localhost:1/x", loopback=True)
    assert check_url("http://127.0.0.1:1/x", loopback=True)
    for url in ("http://localhost:1/x", "http://127.0.0.1:1/x"):
        with pytest.raises(AddressDeniedError):
            check_url(url, loopback=False)
    with pytest.raises(AddressDeniedError):
        check_url("http://cdn.example.com/x", loopback=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_hosts(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.evil.com", "example.com", "10.0.0.1", "0.0.0.0", "127.1"])
def test_other_hosts_are_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1", "https://10.0.0.1", "http://127.0.0.1:8", "http://[::1]:8"]
)
def test_valid_base_urls(url):
    assert str(check_base(url)) == url


@pytest.mark.parametrize("url", ["http://api.example.com", "http://10.0.0.1", "https://k@x", "https://x?y=1", "x"])
def test_invalid_base_urls(url):
    with pytest.raises(ConfigError) as caught:
        check_base(url)
    assert caught.value.hint


class Names(AbstractResolver):
    """Resolver that returns other addresses with each call."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    async def resolve(self, host, port=0, family=0):
        self.asked += 1
        return [
            {"hostname": host, "host": each, "port": port, "family": 2, "proto": 0, "flags": 0}
            for each in self.answers.pop(0)
        ]

    async def close(self):
        pass


async def test_one_private_address_denies_the_whole_name():
    resolver = GuardedResolver(loopback=False, names=Names(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(AddressDeniedError):
        await resolver.resolve("cdn.example.com", 443)


async def test_returned_addresses_are_the_checked_ones():
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    resolver = GuardedResolver(loopback=False, names=names)
    assert [each["host"] for each in await resolver.resolve("cdn.example.com", 443)] == ["8.8.8.8"]
    assert names.asked == 1
    with pytest.raises(AddressDeniedError):
        await resolver.resolve("cdn.example.com", 443)


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "017700000001"])
async def test_unusual_spellings_of_loopback_are_denied(host):
    with pytest.raises(OSError):  # noqa: PT011 - denied, or unknown to this system
        await GuardedResolver(loopback=False).resolve(host, 443)


@pytest.mark.parametrize(
    ("link", "read"),
    [
        ("https://cdn.example.com/a%20b.png?X-Sig=a%2Fb%3D&amp=1&x=", None),
        ("https://cdn.example.com/a b.png?t=x y", "https://cdn.example.com/a%20b.png?t=x%20y"),
        ("//cdn.example.com/x.png", "https://cdn.example.com/x.png"),
        (" https://cdn.example.com/x?a=1&amp;b=2 ", "https://cdn.example.com/x?a=1&b=2"),
        ("https://cdn.example.com/x?a=1&amp;b=2&c=3", None),
        ("https://good.example @evil.example/x", None),
        ("https://cdn.example.com/\tx", None),
    ],
)
def test_link_is_read_like_a_browser_reads_it(link, read):
    assert read_link(link) == (link if read is None else read)
