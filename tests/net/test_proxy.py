"""A real proxy that opens tunnels, a real private authority, and hosts that only the proxy can find."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import subprocess

import aiohttp
import pytest

from runner.errors import ConfigError
from runner.net import auth
from runner.net.addresses import AddressDeniedError, GuardedResolver
from runner.net.client import Deadlines, ProviderClient
from runner.net.downloader import DownloadedFile, Downloader
from runner.net.proxy import company_context, parse_proxy
from runner.net.transport import tls_context
from runner.net.upload import Uploader
from runner.net.webhooks import Monitor, Notification
from runner.providers.requests import NoAnswer, NotSent, Reply, Request
from tests.loopback import LoopbackServer
from tests.odd_gateway import PNG

KEY = "sk-canary-1234567890"
SUBMIT = Request("submit", "POST", "/v1/images", "submit", {"prompt": "cup"})
QUERY = Request("query", "GET", "/v1/images/7", "query")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Make a private authority. Return its file, and a server's TLS context with a certificate of it."""
    here = tmp_path_factory.mktemp("ca")
    (here / "names").write_text("subjectAltName=DNS:api.example.com,DNS:files.example.com,IP:127.0.0.1,DNS:localhost\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    signed = ["-extfile", "names", "-out", "api.pem"]
    for command in (
        ["req", "-x509", *key, "-days", "2", "-subj", "/CN=Company", "-keyout", "ca.key", "-out", "ca.pem"],
        ["req", *key, "-subj", "/CN=api", "-keyout", "api.key", "-out", "api.csr"],
        [
            "x509",
            "-req",
            "-in",
            "api.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            *signed,
        ],
    ):
        subprocess.run(["openssl", *command], cwd=here, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(here / "api.pem", here / "api.key")
    return str(here / "ca.pem"), context


@contextlib.asynccontextmanager
async def closing(writer):
    """Close a connection at the end of the block, whatever ends it."""
    try:
        with contextlib.suppress(asyncio.CancelledError, OSError):
            yield
    finally:
        writer.close()
        with contextlib.suppress(asyncio.CancelledError, OSError, ssl.SSLError):
            await writer.wait_closed()


class Tunnels(LoopbackServer):
    """A proxy that leads every tunnel to one port, and keeps what it was asked for and the bytes that passed."""

    def __init__(self, target, *, tls=None, status="200 Connection established", password=None):
        self._target, self.tls, self._status, self._password = target, tls, status, password
        self.asked, self.passed, self.logins = [], b"", []

    async def _serve(self, reader, writer):
        async with closing(writer):
            await self._lead(reader, writer)

    async def _lead(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split("\r\n")[0])
        self.passed += head.encode()
        login = next((line for line in head.split("\r\n") if line.lower().startswith("proxy-authorization:")), None)
        self.logins.append(login)
        wants = self._password is not None and (login or "").rpartition(" ")[2] != self._password
        writer.write(f"HTTP/1.1 {'407 Who are you' if wants else self._status}\r\n\r\n".encode())
        await writer.drain()
        if wants or not self._status.startswith("200"):
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        async with closing(back):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer), return_exceptions=True)

    async def _pump(self, source, sink):
        while data := await source.read(65536):
            self.passed += data
            sink.write(data)
            await sink.drain()
        sink.close()


class Api(LoopbackServer):
    """A TLS server that answers each request on a connection, and counts connections."""

    def __init__(self, tls, body=b'{"code": 0}', kind="application/json"):
        self.tls, self._answer, self.connections, self.requests = tls, (body, kind), 0, []

    @property
    def port(self):
        return self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        async with closing(writer):
            await self._answer_all(reader, writer)

    async def _answer_all(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        body, kind = self._answer
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            size = next((int(x[15:]) for x in head.split("\r\n") if x.lower().startswith("content-length:")), 0)
            await reader.readexactly(size)
            self.requests.append(head)
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            await writer.drain()
        writer.close()


class Unknown(aiohttp.abc.AbstractResolver):
    """A resolver of a network that knows no public name, or only those of `known`."""

    def __init__(self, **known):
        self.known, self.asked = known, []

    async def resolve(self, host, port=0, family=0):
        self.asked.append(host)
        if host not in self.known:
            raise OSError(None, "no such name")
        return [{"hostname": host, "host": self.known[host], "port": port, "family": 2, "proto": 6, "flags": 0}]

    async def close(self):
        pass


def client(proxy, ca, base="https://api.example.com", **options):
    options = {"deadlines": Deadlines(3, 3, 6), "context": tls_context(ca), "proxy": parse_proxy(proxy)} | options
    return ProviderClient(base, auth.bearer(KEY), **options)


async def test_requests_go_through_tunnels_and_show_the_proxy_nothing(authority):
    ca, tls = authority
    async with Api(tls) as api, Tunnels(api.port) as proxy:
        ours = client(proxy.url, ca)
        try:
            outcomes = [await ours.send(each) for each in (QUERY, SUBMIT, QUERY, SUBMIT)]
        finally:
            await ours.aclose()
    assert all(isinstance(each, Reply) and each.body == {"code": 0} for each in outcomes)
    assert set(proxy.asked) == {"CONNECT api.example.com:443 HTTP/1.1"}
    assert KEY.encode() not in proxy.passed
    assert b"prompt" not in proxy.passed
    assert any(KEY in head for head in api.requests), "the provider got it"
    assert api.connections == 3, "each submit has a connection of its own; the questions share one"


async def test_certificate_of_another_host_is_not_believed(authority):
    ca, tls = authority
    async with Api(tls) as api, Tunnels(api.port) as proxy:
        ours = client(proxy.url, ca, "https://other.example.com")
        outcome = await ours.send(SUBMIT)
        stranger = client(proxy.url, ca, context=tls_context())
        unknown = await stranger.send(SUBMIT)
        await ours.aclose()
        await stranger.aclose()
    assert api.requests == []
    for each in (outcome, unknown):
        assert isinstance(each, NotSent)
        assert each.terminal
        assert "certificate" in each.error


@pytest.mark.parametrize(
    ("status", "terminal"), [("407 Login", True), ("403 Forbidden", True), ("503 Busy", False), ("504 Late", False)]
)
async def test_refused_tunnel_was_not_sent(authority, status, terminal):
    ca, tls = authority
    async with Api(tls) as api, Tunnels(api.port, status=status) as proxy:
        ours = client(proxy.url, ca)
        outcome = await ours.send(SUBMIT)
        await ours.aclose()
    assert isinstance(outcome, NotSent)
    assert outcome.terminal is terminal
    assert f"the proxy of RUNNER_PROXY refused the tunnel with HTTP {status[:3]}" in outcome.error


async def test_proxy_that_is_away_was_not_sent(authority, closed_port):
    ours = client(f"http://127.0.0.1:{closed_port}", authority[0])
    outcome = await ours.send(SUBMIT)
    await ours.aclose()
    assert outcome == NotSent("ConnectError: the proxy of RUNNER_PROXY: Connection refused")


async def test_tunnel_that_ends_after_the_request_is_a_doubt(authority):
    """The bytes went into the tunnel: the provider may have them."""
    ca, tls = authority

    class Cut(Api):
        async def _answer_all(self, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

    async with Cut(tls) as api, Tunnels(api.port) as proxy:
        ours = client(proxy.url, ca)
        outcome = await ours.send(SUBMIT)
        await ours.aclose()
    assert isinstance(outcome, NoAnswer)


@pytest.mark.parametrize("encrypted", [True, False], ids=["https", "http on this machine"])
async def test_password_of_a_proxy_is_sent_where_nobody_reads_it(authority, encrypted):
    ca, tls = authority
    login = base64.b64encode("ann:pä:ss".encode()).decode()
    async with Api(tls) as api, Tunnels(api.port, tls=tls if encrypted else None, password=login) as proxy:
        ours = client(proxy.url.replace("://", "://ann:p%C3%A4%3Ass@"), ca)
        outcome = await ours.send(SUBMIT)
        await ours.aclose()
    assert isinstance(outcome, Reply)
    assert proxy.logins == [f"Proxy-Authorization: Basic {login}"]
    assert all("proxy-authorization" not in head.lower() for head in api.requests)


async def test_what_stays_on_this_machine_needs_no_proxy(authority, closed_port):
    ca, tls = authority
    async with Api(tls) as api:
        ours = client(f"http://127.0.0.1:{closed_port}", ca, f"https://localhost:{api.port}")
        assert isinstance(await ours.send(SUBMIT), Reply)
        await ours.aclose()


# files


async def test_files_uploads_and_notices_go_through_it(authority, tmp_path):
    ca, tls = authority
    names, context = Unknown(), tls_context(ca)
    async with Api(tls, PNG, "image/png") as api, Tunnels(api.port) as proxy:
        options = {"context": context, "proxy": parse_proxy(proxy.url)}
        files = Downloader(names=names, **options)
        uploads = Uploader(names=names, **options)
        try:
            found = await files.fetch("https://files.example.com/1.png?sig=x", tmp_path / "1.part")
            put = await uploads.put("https://files.example.com/up", b"x" * 10, "image/png", {})
        finally:
            await files.aclose()
            await uploads.aclose()
        monitor = Monitor("https://api.example.com/ping", "rid", **options)
        assert await monitor.notify(Notification(0, "t", "b")) is None
    assert isinstance(found, DownloadedFile)
    assert put is None
    assert len(proxy.asked) == 3
    assert names.asked, "it was looked up here first"


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/1.png",
        "https://inside.example.com/1.png",
        "https://intranet/1.png",
        "https://files.corp/1.png",
        "https://metadata.google.internal/1.png",
        "https://169.254.169.254/latest",
    ],
)
async def test_proxy_opens_no_way_to_private_hosts(authority, tmp_path, url):
    ca, tls = authority
    names = Unknown(**{"inside.example.com": "192.168.0.7"})
    async with Api(tls) as api, Tunnels(api.port) as proxy:
        files = Downloader(names=names, context=tls_context(ca), proxy=parse_proxy(proxy.url))
        outcome = await files.fetch(url, tmp_path / "1.part")
        await files.aclose()
    assert proxy.asked == []
    assert not isinstance(outcome, DownloadedFile)
    assert (
        "private network" in str(outcome)
        or "must not be reached" in str(outcome)
        or "no public" in str(outcome)
        or "not a public" in str(outcome)
    )


async def test_names_of_private_networks_are_refused_by_their_form():
    resolver = GuardedResolver(loopback=False, names=Unknown())
    for name in ("nas", "nas.", "nas.local", "a.b.lan.", "x.home.arpa"):
        with pytest.raises(AddressDeniedError):
            await resolver.check_host(name)
    await resolver.check_host("files.example.com")
    await GuardedResolver(loopback=True, private=True).check_host("gateway.corp")


# the settings


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
        ("proxy.corp:8080/", "http://proxy.corp:8080"),
        ("https://u:secret-pw@proxy.corp:3129", "https://proxy.corp:3129"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("http://u:secret-pw@127.0.0.1:3128", "http://127.0.0.1:3128"),
    ],
)
def test_proxy_shows_no_password(text, shown):
    proxy = parse_proxy(text)
    assert str(proxy) == shown
    assert "secret" not in repr(proxy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://u:secret-pw@proxy.corp:3128", "plain text"),
        ("u:secret-pw@proxy.corp:3128", "plain text"),
        ("socks5://u:secret-pw@proxy.corp:1080", "SOCKS"),
        ("http://proxy.corp:3128/path", "more than scheme, host and port"),
        ("ftp://proxy.corp:21", "no address"),
        ("http://:3128", "no address"),
        ("http://proxy.corp:port", "no address"),
    ],
)
def test_proxy_that_cannot_be_used_is_refused(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_proxy(text)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 7


def test_authorities_that_cannot_be_read_are_refused(tmp_path, authority):
    (tmp_path / "none.pem").write_text("no certificate")
    for path, why in ((tmp_path / "none.pem", "no certificate"), (tmp_path / "gone.pem", "No such file")):
        with pytest.raises(ConfigError, match=f"RUNNER_CA_FILE: .*{why}") as caught:
            company_context(str(path))
        assert caught.value.exit_code == 7
    roots = company_context(authority[0]).cert_store_stats()["x509_ca"]
    assert roots == tls_context().cert_store_stats()["x509_ca"] + 1
