"""Outputs: a published file has complete, checked bytes of the right kind, and nothing paid is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from hashlib import sha256

import pytest
from PIL import Image

from runner.net.downloader import DownloadedFile, Downloader, DownloadLimits, RetryLater
from runner.net.partial_file import MAX_QUARANTINED_BYTES, Quarantine
from runner.sandbox.rendering import Caption, draw_mp4
from runner.tasks.events import LinkExpired
from runner.tasks.models import State
from runner.tasks.retry_policy import RetryPolicy
from tests.whole.conftest import Desk, images, sandbox

from .chain import chain
from .server import answer, instead

#: dead links before a task is stranded
FEW = RetryPolicy(quiet_time=0.3, first_poll=0.05, paid_timeout=20.0, max_refreshes=3)


def make_image(kind, side=40):
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(side).randbytes(side * side * 3)).save(file, kind)
    return file.getvalue()


def whole(ours, result, count):
    """Check that every task has one file with the bytes that the provider serves and the row records."""
    ours.paid_once(result, count)
    assert len(ours.files) == len(result.outputs) == count
    for output in result.outputs:
        data = (ours.directory / output["file"]).read_bytes()
        assert sha256(data).hexdigest() == output["sha256"]
        assert len(data) == output["bytes"]
    assert not list((ours.directory / ".runner" / "parts").iterdir())


# FO1, links


async def test_fo01_expired_link_is_refreshed_once(tmp_path):
    """An expired link is queried again once, and the file is downloaded."""
    async with chain(tmp_path) as ours:
        deeds = [instead(answer("gone", status), end="open") for status in (403, 404, 410)]
        ours.middle.deeds["file"] = dict(enumerate(deeds, start=1))
        result = await ours.run(3)
        whole(ours, result, 3)
        # and a page of the list, if the tasks are there for long enough to measure it
        assert 3 + 3 <= ours.middle.calls["query"] <= 3 + 3 + 1
        assert ours.middle.calls["submit"] == 3


async def test_fo01_links_that_stay_expired_strand_the_task(tmp_path):
    """Links that stay expired strand the task, and a user can retry it free of charge."""
    async with chain(tmp_path, policy=FEW) as ours:
        ours.middle.deeds["file"] = instead(answer("gone", 410), end="open")
        result = await ours.run(2)
        assert (result.exit, result.states) == (3, ["stranded"] * 2)
        assert {task["reason"] for task in result.tasks} == {"link_expired"}
        ours.middle.deeds.clear()
        whole(ours, await ours.run(2, retried=(State.STRANDED,)), 2)


# FO2 to FO4: bytes that are missing


@pytest.mark.slow
async def test_fo02_truncated_download_is_never_complete(tmp_path):
    """Nine of ten downloads are cut somewhere. Resumed and restarted ones give the same bytes."""
    chance, originals = random.Random(7), {}

    async def cut(call):
        head, body = await call.forward()
        if "range" not in call.headers:
            originals[call.path.rpartition("/files/")[2].partition("/")[0]] = body
        if call.number % 10 == 0 or len(call.middle.seen["file"]) > 30:
            await call.say(head + b"\r\n\r\n" + body)
            return
        await call.say(head + b"\r\n\r\n" + body[: chance.randrange(len(body))])
        await asyncio.sleep(0.02)  # what arrives together with the end of a connection is not seen by its reader
        call.close() if call.number % 2 else call.reset()

    async with chain(tmp_path, file_bytes=300_000) as ours:
        ours.middle.deeds["file"] = cut
        result = await ours.run(6)
        whole(ours, result, 6)
        for task, output in zip(result.tasks, result.outputs, strict=True):
            assert (ours.directory / output["file"]).read_bytes() == originals[task["remote_id"]]
        assert any("range" in call.headers for call in ours.middle.seen["file"])


async def test_fo02_chunked_body_without_end_is_incomplete(tmp_path):
    async def chunked(call):
        _, body = await call.forward()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        await call.say(head + b"%x\r\n%b\r\n" % (len(body), body))
        call.close()

    async with chain(tmp_path) as ours:
        ours.middle.deeds["file"] = {1: chunked}
        result = await ours.run(1)
        whole(ours, result, 1)
        assert ours.middle.calls["file"] == 2


NO_FILE = {
    "empty": b"",
    "html": b"<!DOCTYPE html><title>expired</title>",
    "json": b'{"code": 404, "message": "no such file"}',
    "xml": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a head alone": make_image("PNG")[:8],
    "a truncated image": make_image("PNG")[:-12],
    "a cut JPEG": make_image("JPEG")[:-2],
    "a RIFF that promises more": make_image("WEBP")[:-4],
    "a video without an index": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\0\0\0\x10mdat12345678",
    "zeros": bytes(5000),
}


async def test_fo03_invalid_file_is_fetched_again_despite_its_length(tmp_path):
    """Content that is not a complete file is fetched again even if its length is as announced."""
    async with chain(tmp_path) as ours:
        deeds = [instead(answer(body, content_type="image/png"), end="open") for body in NO_FILE.values()]
        ours.middle.deeds["file"] = dict(enumerate(deeds, start=1))
        whole(ours, await ours.run(4), 4)
        assert ours.middle.calls["file"] == 4 + len(NO_FILE)


async def test_fo03_content_decides_extension(tmp_path):
    async with chain(tmp_path) as ours:
        ours.middle.deeds["file"] = instead(answer(make_image("JPEG"), content_type="image/png"), end="open")
        result = await ours.run(1)
        assert ours.middle.seen["file"][0].path.partition("?")[0].endswith(".png")
        assert [path.suffix for path in ours.files] == [".jpg"]
        assert result.outputs[0]["media_type"] == "image/jpeg"


KINDS = {
    "png": lambda: make_image("PNG"),
    "jpg": lambda: make_image("JPEG"),
    "webp": lambda: make_image("WEBP"),
    "gif": lambda: make_image("GIF"),
    "mp4": lambda: draw_mp4(Caption("x", "m", "1", 0, "16:9")),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_fo04_truncation_is_detected_without_length(tmp_path, kind):
    """A file cut at any tenth is detected without a Content-Length."""
    data = KINDS[kind]()

    async def serve(reader, writer):
        tenth = int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1][1:])
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + data[: len(data) * tenth // 10])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, contextlib.aclosing(Downloader(loopback=True)) as ours:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for tenth in range(10):
            assert isinstance(await ours.fetch(f"{url}/{tenth}", tmp_path / "parts" / f"{tenth}"), RetryLater)
        got = await ours.fetch(f"{url}/10", tmp_path / "parts" / "10")
    assert got == DownloadedFile(len(data), sha256(data).hexdigest(), got.media_type, kind)


# FO5 to FO7: bytes that are too many, packed, or of no kind that is kept


async def test_fo05_endless_and_huge_bodies_are_aborted(tmp_path):
    """A body without an end and one of a hundred gigabytes are aborted."""
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + make_image("PNG")[:600]

    async def pour(call):
        await call.say(endless)
        while True:
            await call.say(bytes(65_536))

    async def drip(call):
        await call.say(endless)
        while True:
            await call.say(b"\0")
            await asyncio.sleep(0.02)

    huge = instead(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n" + make_image("PNG")[:600], end="hang")
    bounds = DownloadLimits(other=1 << 20, read=0.8, deadline=3, min_rate_period=0.2)
    async with chain(tmp_path, bounds=bounds) as ours:
        ours.middle.deeds["file"] = {1: pour, 2: drip, 3: huge}
        whole(ours, await ours.run(3), 3)


async def test_fo06_gzip_on_file_is_decoded_within_bounds(tmp_path):
    def packed(change):
        async def deed(call):
            _, body = await call.forward()
            await call.say(answer(change(body), content_encoding="gzip"))

        return deed

    bomb = gzip.compress(make_image("PNG")[:600] + bytes(8 << 20))
    async with chain(tmp_path, bounds=DownloadLimits(other=1 << 20, read=0.8, deadline=3)) as ours:
        ours.middle.deeds["file"] = {
            1: packed(gzip.compress),
            2: packed(lambda _: bomb),
            3: packed(lambda body: gzip.compress(body)[:-5]),
            4: packed(lambda body: body),
        }
        whole(ours, await ours.run(4), 4)


WRONG = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": b"<html><script>alert(1)</script></html>",
    "exe": b"MZ\x90\0\3\0\0\0\4" + bytes(200),
    "elf": b"\x7fELF\2\1\1" + bytes(200),
    "zip": b"PK\3\4" + bytes(200),
    "pdf": b"%PDF-1.7\n%%EOF",
}


@pytest.mark.slow
async def test_fo07_non_media_content_is_never_published(tmp_path):
    bodies = list(WRONG.values())

    async def wrong(call):
        number = next(n for n, task in enumerate(ours.accepted) if task.id in call.path)
        await call.say(answer(bodies[number], content_type="image/png"))

    async with chain(tmp_path, policy=FEW) as ours:
        ours.middle.deeds["file"] = wrong
        result = await ours.run(len(bodies))
        assert (result.exit, result.states) == (3, ["stranded"] * len(bodies))
        assert {task["reason"] for task in result.tasks} == {"not_media"}
        assert ours.files == []
        assert ours.middle.calls["submit"] == len(bodies)


@pytest.mark.parametrize("name", WRONG)
async def test_fo07_wrong_kind_is_quarantined(tmp_path, name):
    async with chain(tmp_path, policy=FEW) as ours:
        ours.middle.deeds["file"] = instead(answer(WRONG[name]), end="open")
        result = await ours.run(1)
        assert (result.exit, result.states, ours.files) == (3, ["stranded"], [])
        assert {output["file"] for output in result.outputs} == {None}
        (kept,) = [path for path in ours.directory.rglob("*.bin") if path.is_file()]
        assert kept.read_bytes() == WRONG[name]
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.parent.stat().st_mode & 0o777 == 0o700
        assert str(kept.relative_to(ours.directory)) in result.tasks[0]["message"]


@pytest.mark.slow
async def test_fo07_quarantine_keeps_beginning_until_real_file(tmp_path):
    """Only the beginning of quarantined content is kept, until the real file arrives."""
    huge = answer(b"<html>" + bytes(3_000_000), content_type="video/mp4")
    async with chain(tmp_path, policy=FEW) as ours:
        ours.middle.deeds["file"] = instead(huge, end="open")
        assert (await ours.run(1)).states == ["stranded"]
        (kept,) = ours.directory.rglob("*.bin")
        assert kept.read_bytes() == b"<html>" + bytes(MAX_QUARANTINED_BYTES - 6)
        ours.middle.deeds.clear()
        whole(ours, await ours.run(1, retried=(State.STRANDED,)), 1)
        assert not list(ours.directory.rglob("*.bin"))


async def test_fo07_quarantine_is_limited(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine")
    names = [await quarantine.keep(tmp_path / f"{number}-1-1.part", [b"<html>"]) for number in range(102)]
    assert names[:2] == [f"{tmp_path.name}/quarantine/{number}-1-1.bin" for number in range(2)]
    assert names[100:] == [None, None]
    assert len(list((tmp_path / "quarantine").iterdir())) == 100
    assert await quarantine.keep(tmp_path / "7-1-1.part", [b"other"]) is not None, "what is there already is renewed"
    assert (tmp_path / "quarantine" / "7-1-1.bin").read_bytes() == b"other"


async def test_fo07_quarantine_does_not_write_through_links(tmp_path):
    """A link that was planted in the quarantine is not written through."""
    (tmp_path / "quarantine").mkdir()
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "quarantine" / "1-1-1.bin").symlink_to(mine)
    await Quarantine(tmp_path / "quarantine").keep(tmp_path / "1-1-1.part", [b"<html>"])
    assert mine.read_text() == "mine"
    assert (tmp_path / "quarantine" / "1-1-1.bin").read_bytes() == b"<html>"


# FO8 to FO10: elsewhere, otherwise, and a crash


@pytest.mark.slow
async def test_fo08_three_redirects_are_followed_and_a_fourth_is_not(tmp_path):
    """Three redirects are followed. A fourth, or one to a private address, is a dead link."""

    def hops(count):
        async def hop(call):
            done = call.path.count("hop")
            away = answer(
                "", 302, location=f"{ours.middle.url}{call.path}{'&' if done else '?'}hop={done}", set_cookie="a=b"
            )
            await (call.say(away) if done < count else call.pass_on())

        return hop

    inward = ["http://10.0.0.1/x.png", "https://169.254.169.254/latest", "file:///etc/passwd", "https://a@b/", None]
    async with chain(tmp_path) as ours:
        ours.middle.deeds["file"] = hops(3)
        whole(ours, await ours.run(1), 1)
        assert ours.middle.calls["file"] == 4
        ours.middle.deeds["file"] = hops(4)
        ours.policy = FEW
        assert (await ours.run(2)).states == ["done", "stranded"]
        deeds = [instead(answer("", 307, location=place), end="open") for place in inward]
        ours.middle.deeds["file"] = {ours.middle.calls["file"] + n: deed for n, deed in enumerate(deeds, start=1)}
        ours.policy = replace(FEW, max_refreshes=20)
        result = await ours.run(2, retried=(State.STRANDED,))
        whole(ours, result, 2)
        assert {event.error.reason for event in result.events_of(LinkExpired)} == {"redirect_denied"}
        assert len(result.events_of(LinkExpired)) == len(inward)
        for call in ours.middle.seen["file"]:
            assert {"authorization", "access_token", "cookie"}.isdisjoint(call.headers)


async def test_fo09_changed_bytes_get_own_name_and_are_reported(tmp_path):
    """Other bytes under the same link get a name of their own and are reported."""
    async with chain(tmp_path) as ours:
        result = await ours.run(1)
        whole(ours, result, 1)
        (before,) = ours.files
        before.unlink()
        ours.middle.deeds["file"] = instead(answer(make_image("PNG", 60)), end="open")
        result = await ours.run(1, retried=(State.DONE,))
        (after,) = ours.files
        assert after.name != before.name
        assert any(before.name in warning for warning in result.warnings)


@pytest.mark.slow
def test_fo10_crash_between_rename_and_commit_keeps_file(tmp_path):
    """A crash between rename and commit keeps the file, and nothing is fetched again."""
    desk = Desk(tmp_path)
    desk.write("job.yaml", images(1, provider="kling", model="image/kling-v2-1"))
    with sandbox("--seconds", "0,0") as box:
        desk.env = box.env
        assert desk.run("run", "job.yaml", env={"RUNNER_CRASH_AT": "renamed:1"}).returncode == -9
        (early,) = (desk.root / "out/job").glob("*.png")
        stamp = early.stat().st_mtime_ns
        assert desk.job()["counts"] == {"done": 1}
        assert box.stats["accepted"] == box.stats["downloads_served"] == 1
        assert [path.stat().st_mtime_ns for path in (desk.root / "out/job").glob("*.png")] == [stamp]


async def test_fo10_file_that_differs_from_record_is_left_alone(tmp_path):
    """As after a crash between rename and commit, if the file was changed before the next run."""
    async with chain(tmp_path) as ours:
        whole(ours, await ours.run(1), 1)
        (mine,) = ours.files
        mine.write_bytes(b"edited by the user")
        with closing(sqlite3.connect(ours.directory / ".runner" / "state.db")) as connection, connection:
            connection.execute("update task set state = 'ready', due_at = 0")
        result = await ours.run(1)
        assert result.states == ["done"]
        assert mine.read_bytes() == b"edited by the user"
        assert len(ours.files) == 2
        (output,) = result.outputs
        data = (ours.directory / output["file"]).read_bytes()
        assert sha256(data).hexdigest() == output["sha256"]


async def test_fo01_dead_output_takes_no_other_with_it(tmp_path):
    """Two of three outputs are kept, and the third is said; what may come later is waited for first."""

    async def second_is_gone(call):
        if "/1." in call.path:
            await call.say(answer(b"gone", 404))
        else:
            await call.pass_on()

    async with chain(tmp_path) as ours:
        ours.policy = FEW
        ours.middle.deeds["file"] = second_is_gone
        result = await ours.run(1, images=3)
        assert result.states == ["done"]
        assert [output["number"] for output in result.outputs if output["file"]] == [1, 3]
        assert len(ours.files) == 2
        assert (result.tasks[0]["reason"], result.tasks[0]["message"]) == ("partial", "2 of 3 outputs; HTTP 404")
        assert result.exit == 3
