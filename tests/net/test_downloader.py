"""Downloads from a server that lies, breaks connections and redirects."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import os
import random
import stat

import anyio
import pytest
from PIL import Image

from runner.errors import DiskError
from runner.net.addresses import AddressDeniedError
from runner.net.downloader import DeadLink, DownloadedFile, Downloader, DownloadLimits, RetryLater
from runner.net.partial_file import publish
from runner.net.transport import tls_context


def png(side=40):
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(side).randbytes(side * side * 3)).save(file, "PNG")
    return file.getvalue()


PNG = png()
LARGE = png(1100)


@contextlib.asynccontextmanager
async def downloader(**options):
    options.setdefault("loopback", True)
    options.setdefault("limits", DownloadLimits(read=0.5, deadline=3))
    files = Downloader(**options)
    try:
        yield files
    finally:
        await files.aclose()


@pytest.fixture
def part(tmp_path):
    return tmp_path / "parts" / "7-1.part"


def complete(data):
    """Return the outcome of a complete download."""
    return DownloadedFile(len(data), hashlib.sha256(data).hexdigest(), "image/png", "png")


@pytest.mark.parametrize("data", [PNG, LARGE], ids=["small", "several MiB"])
async def test_file_is_downloaded(wires, part, data):
    async with wires.Wire(wires.always(wires.answer(data))) as wire, downloader() as client:
        assert await client.fetch(wire.url + "/x.php?sig=1", part) == complete(data)
        assert {"authorization", "access_token", "cookie"}.isdisjoint(wire.seen[0].headers)
    assert part.read_bytes() == data
    assert stat.S_IMODE(part.stat().st_mode) == 0o600
    assert stat.S_IMODE(part.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_dead_links(wires, part, status):
    async with wires.Wire(wires.always(wires.answer("gone", status))) as wire, downloader() as client:
        outcome = await client.fetch(wire.url, part)
    assert isinstance(outcome, DeadLink)
    assert outcome.error.code == str(status)


RETRY_AFTER = {"7": 7.0, "0": 0.5, "999999": 900.0, "": None, "-1": None, "1e20": None, "７": None, "1.5": None}


@pytest.mark.parametrize("value", RETRY_AFTER)
async def test_retry_after_is_returned_within_bounds(wires, part, value):
    """Only whole ASCII seconds count, and they are limited to 0.5 to 900."""
    reply = wires.answer("", 429, retry_after=value.encode().decode("latin-1")).decode().encode("latin-1")
    async with wires.Wire(wires.always(reply)) as wire, downloader() as client:
        outcome = await client.fetch(wire.url, part)
    assert isinstance(outcome, RetryLater)
    assert outcome.wait == RETRY_AFTER[value]


@pytest.mark.parametrize("status", [408, 418, 429, 500, 502, 503, 504])
async def test_server_errors_may_be_retried(wires, part, status):
    async with wires.Wire(wires.always(wires.answer("<html>", status))) as wire, downloader() as client:
        assert isinstance(await client.fetch(wire.url, part), RetryLater)


async def test_refused_connection_may_be_retried(closed_port, part):
    async with downloader() as client:
        assert isinstance(await client.fetch(f"http://127.0.0.1:{closed_port}/", part), RetryLater)


def cutting(wires, data, *, tags, cut=2_000_000, honest=True):
    """Return an `act` that cuts the first answer, then serves ranges for its present tag."""

    async def act(wire, seen, writer):
        tag = tags[min(len(wire.seen), len(tags)) - 1]
        first = len(wire.seen) == 1
        begin = 0
        if "range" in seen.headers and seen.headers["if-range"] == tag:
            begin = int(seen.headers["range"].removeprefix("bytes=").removesuffix("-"))
        wrong = 0 if honest else 1
        span = f"bytes {begin + wrong}-{len(data) - 1}/{len(data)}" if begin else None
        extra = {"content_range": span} if span else {}
        raw = wires.answer(data[begin:], 206 if begin else 200, etag=tag, **extra)
        writer.write(raw[:cut] if first else raw)
        await writer.drain()
        if first:
            writer.close()

    return act


async def test_cut_file_is_resumed_with_the_same_tag(wires, part):
    async with wires.Wire(cutting(wires, LARGE, tags=['"v1"'])) as wire, downloader() as client:
        first = await client.fetch(wire.url, part)
        assert first.error.reason == "network"
        size = part.stat().st_size
        assert size > 1_900_000
        assert await client.fetch(wire.url, part) == complete(LARGE)
        assert wire.seen[1].headers["range"] == f"bytes={size}-"
    assert part.read_bytes() == LARGE


@pytest.mark.parametrize("tags", [['"v1"', '"v2"'], ['W/"v1"'], ["v1"], [""]], ids=["changed", "weak", "bare", "none"])
async def test_download_restarts_without_the_same_strong_tag(wires, part, tags):
    async with wires.Wire(cutting(wires, LARGE, tags=tags)) as wire, downloader() as client:
        assert isinstance(await client.fetch(wire.url, part), RetryLater)
        assert await client.fetch(wire.url, part) == complete(LARGE)
        assert ("range" in wire.seen[1].headers) == (tags[0] == '"v1"')
    assert part.read_bytes() == LARGE


async def test_wrong_content_range_restarts_the_download(wires, part):
    async with wires.Wire(cutting(wires, LARGE, tags=['"v1"'], honest=False)) as wire, downloader() as client:
        outcomes = [await client.fetch(wire.url, part) for _ in range(3)]
        assert [type(each) for each in outcomes] == [RetryLater, RetryLater, DownloadedFile]
        assert "range" not in wire.seen[2].headers
    assert part.read_bytes() == LARGE


async def test_tampered_partial_file_is_detected(wires, part):
    async with wires.Wire(cutting(wires, LARGE, tags=['"v1"'])) as wire, downloader() as client:
        await client.fetch(wire.url, part)
        part.write_bytes(b"x" * 100)
        assert isinstance(await client.fetch(wire.url, part), RetryLater)
        assert await client.fetch(wire.url, part) == complete(LARGE)


NO_MEDIA = {"html": "<!DOCTYPE html>", "json": '{"error": "x"}', "svg": "<svg/>", "empty": "", "cut png": PNG[:-20]}


@pytest.mark.parametrize("name", NO_MEDIA)
async def test_incomplete_or_non_media_content_may_be_retried(wires, part, name):
    async with wires.Wire(wires.always(wires.answer(NO_MEDIA[name]))) as wire, downloader() as client:
        assert isinstance(await client.fetch(wire.url, part), RetryLater)


async def test_three_redirects_are_followed_without_cookies(wires, part):
    async def act(wire, seen, writer):
        remaining = int(seen.path[1:])
        location = f"/{remaining - 1}"
        reply = wires.answer(PNG) if not remaining else wires.answer("", 302, location=location, set_cookie="a=b")
        writer.write(reply)

    async with wires.Wire(act) as wire, downloader() as client:
        assert await client.fetch(wire.url + "/3", part) == complete(PNG)
        assert all("cookie" not in seen.headers for seen in wire.seen)
        assert isinstance(await client.fetch(wire.url + "/4", part), DeadLink)
        assert isinstance(await client.fetch(wire.url + "/50", part), DeadLink)


PRIVATE = ["http://10.0.0.1/", "https://169.254.169.254/latest", "file:///etc/passwd", "https://a@b/", "http://x.com/"]
PRIVATE += ["https://cdn.good.com\\@127.0.0.1/", "", "https://[::ffff:a00:1]/"]


@pytest.mark.parametrize("location", PRIVATE)
async def test_redirects_to_private_addresses_are_denied(wires, part, location):
    async with wires.Wire(wires.always(wires.answer("", 302, location=location))) as wire, downloader() as client:
        outcome = await client.fetch(wire.url, part)
    assert isinstance(outcome, DeadLink)
    assert outcome.error.reason == "redirect_denied"


async def test_loopback_is_denied_for_remote_providers(wires, part):
    async with wires.Wire(wires.always(wires.answer(PNG))) as wire, downloader(loopback=False) as client:
        for url in (wire.url, wire.url.replace("http:", "https:"), "https://localhost:1/", "https://10.0.0.1/"):
            assert isinstance(await client.fetch(url, part), DeadLink | RetryLater)
        assert wire.connections == 0


async def test_plain_http_link_is_requested_as_https_only(wires, part):
    """Anybody on the way could change the file; the message says why it does not come."""
    async with wires.Wire(wires.always(wires.answer(PNG))) as wire, downloader(loopback=False) as client:
        outcome = await client.fetch(wire.url.replace("http:", "HTTP:"), part)
        assert (outcome.error.reason, wire.connections) == ("link_denied", 0)
        assert outcome.error.message.endswith("the link is http://, which is requested as https:// only")
        assert isinstance(await client.fetch("http://[", part), DeadLink)


async def test_no_downgrade_from_https(wires, part, self_signed):
    async with wires.Wire(wires.always(wires.answer(PNG))) as plain:
        reply = wires.answer("", 302, location=plain.url)
        async with (
            wires.Wire(wires.always(reply), tls=self_signed[0]) as wire,
            downloader(context=tls_context(self_signed[1])) as client,
        ):
            assert isinstance(await client.fetch(wire.url, part), DeadLink)
        assert plain.connections == 0


@contextlib.asynccontextmanager
async def endless(wires, chunk, pause):
    """Run a server that sends chunks without end."""

    async def act(_wire, _seen, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + PNG[:600])
        while True:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause)

    async with wires.Wire(act) as wire:
        yield wire.url


async def test_endless_body_ends_at_the_size_limit(wires, part):
    limits = DownloadLimits(other=3 << 20, deadline=5)
    async with endless(wires, b"\0" * 65536, 0) as url, downloader(limits=limits) as client:
        outcome = await client.fetch(url, part)
    assert outcome.error.reason == "too_large"
    assert part.stat().st_size == 0


async def test_slow_drip_ends_by_the_minimum_rate(wires, part):
    limits = DownloadLimits(min_rate_period=0.2, deadline=5)
    async with endless(wires, b"\0", 0.01) as url, downloader(limits=limits) as client:
        outcome = await client.fetch(url, part)
    assert outcome.error.reason == "too_slow"


async def test_slow_drip_ends_by_the_deadline(wires, part):
    async with endless(wires, b"\0", 0.01) as url, downloader(limits=DownloadLimits(deadline=0.3)) as client:
        assert (await client.fetch(url, part)).error.reason == "timeout"


async def test_too_large_content_length_is_not_downloaded(wires, part):
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    async with wires.Wire(wires.always(reply)) as wire, downloader() as client:
        assert (await client.fetch(wire.url, part)).error.reason == "too_large"


async def test_gzip_media_is_decompressed_within_limits(wires, part):
    bomb = gzip.compress(PNG[:600] + b"\0" * (20 << 20))
    for body, good in ((gzip.compress(PNG), True), (bomb, False), (gzip.compress(PNG)[:-9], False)):
        reply = wires.answer(body, content_encoding="gzip", etag='"v"')
        async with wires.Wire(wires.always(reply)) as wire, downloader(limits=DownloadLimits(other=4 << 20)) as client:
            outcome = await client.fetch(wire.url, part)
        assert (outcome == complete(PNG)) is good
        assert not part.with_name(part.name + ".tag").exists()


async def test_coding_that_is_none_is_resumed_like_any_file(wires, part):
    """Object stores hand on what an upload said, such as `UTF-8`."""
    reply = wires.answer(PNG, content_encoding="UTF-8", etag='"v"')
    async with wires.Wire(wires.always(reply)) as wire, downloader() as client:
        assert await client.fetch(wire.url, part) == complete(PNG)
    assert part.with_name(part.name + ".tag").read_text() == '"v"'


async def test_link_with_blanks_is_requested_quoted(wires, part):
    async with wires.Wire(wires.always(wires.answer(PNG))) as wire, downloader() as client:
        assert await client.fetch(f"  {wire.url}/my cup 茶.png?a=1&amp;b=2 ", part) == complete(PNG)
    assert wire.seen[0].path == "/my%20cup%20%E8%8C%B6.png?a=1&b=2"


@pytest.mark.parametrize("head", ["data:image/png;base64,", "DATA:;base64,", "data:application/octet-stream;base64,"])
async def test_picture_in_the_answer_is_written(part, head):
    async with downloader() as client:
        assert await client.fetch(head + base64.b64encode(LARGE).decode(), part) == complete(LARGE)
    assert part.read_bytes() == LARGE


@pytest.mark.parametrize("url", ["data:image/png,abc", "data:;base64,####", "data:;base64,", "data:;base64,aGFsbG8="])
async def test_data_that_is_no_picture_is_a_dead_link(part, url):
    async with downloader() as client:
        assert isinstance(await client.fetch(url, part), DeadLink)
    assert not part.exists()


@pytest.mark.parametrize("planted", ["part", "tag", "hard link", "pipe"])
async def test_planted_links_are_never_followed(wires, part, tmp_path, planted):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    part.parent.mkdir()
    tag = part.with_name(part.name + ".tag")
    match planted:
        case "part":
            part.symlink_to(victim)
        case "tag":
            tag.symlink_to(victim)
        case "hard link":
            part.hardlink_to(victim)
        case "pipe":
            os.mkfifo(part)
    async with wires.Wire(wires.always(wires.answer(PNG, etag='"v"'))) as wire, downloader() as client:
        assert await client.fetch(wire.url, part) == complete(PNG)
    assert victim.read_text() == "precious"
    assert part.read_bytes() == PNG


async def test_two_concurrent_downloads_per_host(wires, tmp_path):
    running, maximum = 0, 0

    async def act(_wire, _seen, writer):
        nonlocal running, maximum
        running += 1
        maximum = max(maximum, running)
        await asyncio.sleep(0.01)
        running -= 1
        writer.write(wires.answer(PNG))

    async with wires.Wire(act) as wire, downloader() as client, anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(client.fetch, wire.url, tmp_path / f"{number}.part")
    assert maximum == 2


async def test_host_that_answers_429_gets_fewer_downloads(wires, tmp_path):
    """A CDN answers 429 to more than two concurrent downloads, as Chanjing's does."""
    running, refusals = 0, 0

    async def act(_wire, _seen, writer):
        nonlocal running, refusals
        if running >= 2:
            refusals += 1
            writer.write(wires.answer("", 429))
            return
        running += 1
        await asyncio.sleep(0.01)
        running -= 1
        writer.write(wires.answer(PNG))

    async with wires.Wire(act) as wire, downloader(per_host=8) as client, anyio.create_task_group() as group:

        async def fetch(number):
            while not isinstance(await client.fetch(wire.url, tmp_path / f"{number}.part"), DownloadedFile):
                pass

        for number in range(60):
            group.start_soon(fetch, number)
    assert refusals < 30


def test_publish_renames_and_removes_the_sidecar(part, tmp_path):
    part.parent.mkdir()
    (tmp_path / "out").mkdir()
    part.write_bytes(PNG)
    part.with_name(part.name + ".tag").write_text('"v"')
    path = publish(part, tmp_path / "out", "cat", "png")
    assert path == tmp_path / "out" / "cat.png"
    assert path.read_bytes() == PNG
    assert list(part.parent.iterdir()) == []


@pytest.mark.parametrize("taken_by", ["file", "link", "dangling link"])
def test_publish_replaces_nothing(part, tmp_path, taken_by):
    target = tmp_path / "cat.png"
    (tmp_path / "victim").write_text("precious")
    match taken_by:
        case "file":
            target.write_text("precious")
        case "link":
            target.symlink_to(tmp_path / "victim")
        case _:
            target.symlink_to(tmp_path / "nothing")
    part.parent.mkdir()
    part.write_bytes(PNG)
    with pytest.raises(FileExistsError):
        publish(part, tmp_path, "cat", "png")
    assert part.read_bytes() == PNG
    assert not (tmp_path / "nothing").exists()
    assert (tmp_path / "victim").read_text() == "precious"


def test_publish_without_hard_links(part, tmp_path, monkeypatch):
    """The file system has no hard links, so the file is copied."""

    def no_links(*_args, **_options):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr("os.link", no_links)
    part.parent.mkdir()
    (tmp_path / "out").mkdir()
    part.write_bytes(PNG)
    assert publish(part, tmp_path / "out", "cat", "png").read_bytes() == PNG
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["cat.png"]
    part.write_bytes(PNG)
    with pytest.raises(FileExistsError):
        publish(part, tmp_path / "out", "cat", "png")
    assert part.exists()


def test_full_disk_error_has_a_hint(part, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    part.parent.mkdir()
    part.write_bytes(PNG)
    monkeypatch.setattr("os.link", full)
    with pytest.raises(DiskError, match="Make room"):
        publish(part, tmp_path, "cat", "png")


async def test_file_in_place_of_a_directory_is_a_disk_error(tmp_path):
    (tmp_path / "x").touch()
    async with downloader() as client:
        with pytest.raises(DiskError):
            await client.fetch("https://cdn.invalid/", tmp_path / "x" / "y.part")


def test_address_denied_is_an_oserror():
    assert issubclass(AddressDeniedError, OSError)


def test_publish_makes_the_directory_of_an_output(part, tmp_path):
    part.parent.mkdir()
    for name in ("3f/cat", "3f/dog"):
        part.write_bytes(PNG)
        assert publish(part, tmp_path, name, "png").read_bytes() == PNG
    assert {each.name for each in (tmp_path / "3f").iterdir()} == {"cat.png", "dog.png"}
    part.write_bytes(PNG)
    with pytest.raises(FileExistsError):
        publish(part, tmp_path, "3f/cat", "png")


@pytest.mark.parametrize("in_place", ["link", "dangling link", "file"])
def test_publish_follows_no_link_to_a_directory(part, tmp_path, in_place):
    elsewhere, job = tmp_path / "elsewhere", tmp_path / "job"
    elsewhere.mkdir()
    job.mkdir()
    part.parent.mkdir()
    part.write_bytes(PNG)
    if in_place == "file":
        (job / "3f").write_text("mine")
    else:
        (job / "3f").symlink_to(elsewhere if in_place == "link" else tmp_path / "nothing")
    with pytest.raises(DiskError, match="is a link, or a file"):
        publish(part, job, "3f/cat", "png")
    assert list(elsewhere.iterdir()) == []
    assert not (tmp_path / "nothing").exists()
    assert part.exists()


def test_moved_directory_is_not_created_again(part, tmp_path):
    part.parent.mkdir()
    part.write_bytes(PNG)
    with pytest.raises(DiskError):
        publish(part, tmp_path / "gone", "cat", "png")
    with pytest.raises(DiskError):
        publish(part, tmp_path / "gone", "3f/cat", "png")
    assert not (tmp_path / "gone").exists()
    assert part.exists()
