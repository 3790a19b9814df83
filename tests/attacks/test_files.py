"""Names and content of outputs: for any prompt, id or response, files stay in the job directory."""

from __future__ import annotations

import gzip
import os
import struct
import time
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import DiskError
from runner.files import atomic_write
from runner.manifest.naming import MAX_BYTES, fold_name, slug
from runner.net.downloader import DownloadedFile, Downloader, DownloadLimits, RetryLater
from runner.net.media import sniff
from runner.net.partial_file import PartialFile, publish
from runner.providers.images import NotAnImageError, read_image_header
from runner.providers.requests import Dialect
from runner.providers.spec import load
from runner.scheduler.download import stems
from runner.tasks.models import State, Task
from runner.tasks.remote_ids import parse_remote_id

MIB = 1 << 20


async def fetch(url, directory):
    made = Downloader(loopback=True, limits=DownloadLimits(read=2, deadline=8))
    try:
        return await made.fetch(url, directory / "parts/1.part")
    finally:
        await made.aclose()


NAMES = (
    "../../.ssh/authorized_keys", "/etc/passwd", "C:\\x", "a\0b", "..", ".", "", "-rf", "~", "~root", "x.", "x ", "CON",
    "con.png", "a:b", "LPT¹", "nul", "COM9.txt", "a/b", "a\\b", "\u200b", "\u202egnp.exe", ".bashrc", "a\n b", "$(id)",
    "`id`", "名" * 300, "😀" * 100, "é" * 255, "ﬁ" * 200, "*", "?", "|", "a\ud800b", "．．／x", "／etc",
)  # fmt: skip


@given(text=st.text(max_size=400) | st.sampled_from(NAMES) | st.text(alphabet="./\\-~ \0:名é", max_size=200))
def test_x08_any_text_gives_valid_name_in_directory(text):
    name = slug(text)
    assert name not in {"", ".", ".."}
    assert not name.startswith((".", "-", "~"))
    assert not set(name) & set('/\\:*?"<>|\0\n ')
    assert PurePosixPath(name).name == name
    whole = f"{name}-{'0' * 8}-64-999.part.tag"
    assert len(whole.encode()) <= 255
    assert len(name.encode()) <= MAX_BYTES


def test_x08_chinese_name_of_255_bytes_is_published(tmp_path):
    name = slug("江南水乡的乌篷船在雨中" * 40)
    part = tmp_path / "1.part"
    part.write_bytes(b"x")
    assert publish(part, tmp_path, f"{name}-{'a' * 8}-1", "png").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("one", "other"), [("a.png", "A.PNG"), ("é", "e\u0301"), ("ß", "SS"), ("ﬁ", "FI"), ("Å", "\u212b")]
)
def test_x09_equivalent_file_names_collide(one, other):
    """Names that a file system treats as one collide in the manifest as well."""
    assert fold_name(slug(one)) == fold_name(slug(other)) or fold_name(one) == fold_name(other)


@pytest.mark.parametrize("there", ["file", "link", "dangling", "directory", "pipe"])
def test_x10_existing_file_is_not_overwritten(tmp_path, there):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    place = tmp_path / "x.png"
    match there:
        case "file":
            place.write_text("precious")
        case "link":
            place.symlink_to(victim)
        case "dangling":
            place.symlink_to(tmp_path / "nothing")
        case "directory":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
    part = tmp_path / "1.part"
    part.write_bytes(b"new")
    with pytest.raises(FileExistsError):
        publish(part, tmp_path, "x", "png")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()
    assert part.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["1.part", "1.part.tag"])
def test_x10_partial_files_are_not_written_through_links(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / name).symlink_to(victim)
    part = PartialFile(parts / "1.part")
    part.reset_on_write('"tag"')
    part.write([b"new"])
    part.close()
    assert victim.read_text() == "precious"


def test_x10_partial_directory_is_not_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "parts").symlink_to(elsewhere)
    with pytest.raises(DiskError, match="is a link"):
        PartialFile(tmp_path / "parts" / "1.part").write([b"new"])
    assert list(elsewhere.iterdir()) == []


def test_x10_reports_are_not_written_through_links(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "report").symlink_to(victim)
    with atomic_write(tmp_path / "report") as file:
        file.write(b"new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "report").read_text() == "new"


@pytest.mark.parametrize(
    "headers",
    [
        {"content_disposition": 'attachment; filename="evil.php"'},
        {"content_disposition": "attachment; filename*=UTF-8''..%2F..%2Fevil.desktop"},
        {"content_type": "text/html"},
        {"content_type": "application/x-msdownload"},
    ],
)
@pytest.mark.parametrize("path", ["x.php", "x.lnk", "x.desktop", "x.html", "..%2f..%2fx", "x.png%00.exe"])
async def test_x11_extension_depends_on_content_only(tmp_path, wires, headers, path):
    async with wires.Wire(wires.always(wires.answer(PNG, **headers))) as wire:
        fetched = await fetch(f"{wire.url}/{path}", tmp_path)
    assert isinstance(fetched, DownloadedFile)
    assert (fetched.extension, fetched.media_type) == ("png", "image/png")


NO_MEDIA = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "svg behind a declaration": b'<?xml version="1.0"?><svg onload="alert(1)"/>',
    "svg behind blanks": b"\xef\xbb\xbf \n<svg onload=alert(1)>",
    "gzipped svg": gzip.compress(b"<svg onload=alert(1)>"),
    "html": b"<!doctype html><script>alert(1)</script>",
    "html behind blanks": b"\n\n   <html onload=alert(1)>",
    "a program of Windows": b"MZ\x90\0" + bytes(600),
    "a program of Linux": b"\x7fELF\x02\x01\x01" + bytes(600),
    "a program of macOS": b"\xcf\xfa\xed\xfe" + bytes(600),
    "a script": b"#!/bin/sh\nrm -rf ~\n",
    "a link file": b"[Desktop Entry]\nExec=evil\n",
    "an archive": b"PK\x03\x04" + bytes(600),
    "a document": b"%PDF-1.7\n" + bytes(600),
    "json": b'{"code": 0}',
    "a playlist": b"#EXTM3U\nfile:///etc/passwd\n",
    "postscript": b"%!PS\n(%pipe%id) (r) file\n",
}


@pytest.mark.parametrize("data", NO_MEDIA.values(), ids=NO_MEDIA)
async def test_x12_executable_content_is_rejected(tmp_path, wires, data):
    assert sniff(data[:512]) is None
    for kind in ("image/png", "image/svg+xml"):
        async with wires.Wire(wires.always(wires.answer(data, content_type=kind))) as wire:
            assert isinstance(await fetch(f"{wire.url}/x.png", tmp_path), RetryLater)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["parts"])


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def make_png(width, height, pixels):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


PNG = make_png(1, 1, zlib.compress(b"\0\xff\0\0"))
BOMBS = {
    "a million by a million": make_png(1_000_000, 1_000_000, zlib.compress(bytes(8 * MIB))),
    "four billion wide": make_png(2**32 - 1, 2**32 - 1, zlib.compress(b"x")),
    "a million chunks": PNG[:33] + chunk(b"tEXt", b"") * 50_000 + PNG[33:],
    "a size that points back": PNG[:8] + b"\xff\xff\xff\xffIHDR" + bytes(40),
    "boxes without a size": b"\0\0\0\x08ftypisom" + b"\0\0\0\x08free" * 50_000,
    "boxes in boxes": b"\0\0\0\x18ftypisom" + bytes(8) + b"\0\0\0\x01moov" + b"\xff" * 8,
    "a jpeg of marks": b"\xff\xd8" + b"\xff\xe0\0\x02" * 100_000,
    "a jpeg of filling": b"\xff\xd8" + b"\xff" * 200_000,
    "a gif of blocks": b"GIF89a" + bytes(7) + b"\x21\xfe\x01a\0" * 50_000,
    "webm without an end": b"\x1aE\xdf\xa3\x9fB\x86webm" + b"\xec\x80" * 100_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
async def test_x38_images_are_not_decoded_and_checked_quickly(tmp_path, wires, data):
    began = time.process_time()
    tracemalloc.start()
    try:
        async with wires.Wire(wires.always(wires.answer(data))) as wire:
            await fetch(f"{wire.url}/x.png", tmp_path)
        with suppress(NotAnImageError):
            read_image_header(data)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5


IDS = (
    "../admin", "a/../b", "..", "a/./b", "", "\0", "x" * 1025, "\ud800", 1.5, None, True, [], {}, {"id": "x"},
    float("inf"),
)  # fmt: skip


@pytest.mark.parametrize("value", IDS, ids=repr)
def test_x39_directories_and_other_values_are_no_ids(value):
    assert parse_remote_id(value) is None


@given(value=st.text(max_size=140) | st.integers() | st.floats() | st.none() | st.lists(st.text(), max_size=2))
def test_x39_id_is_one_segment_of_a_path(value):
    found = parse_remote_id(value)
    if found is not None:
        task = Task(1, "k" * 32, "kling", "image", "m", State.RUNNING, 0.0, remote_id=found)
        path = Dialect(load("kling")).query(task).path
        assert not set(path.rpartition("/")[2]) & set("?#&\\ \n\0;")
        assert unquote(path.rpartition("/")[2]) == found


def test_x08_output_names_stay_in_directory_and_differ():
    for name, _ in zip(stems(slug("../../x"), "k" * 32, 3, many=True), range(5), strict=False):
        assert "/" not in name
        assert not name.startswith(".")
