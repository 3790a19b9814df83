"""Thumbnails of real files, and the refusal of hostile ones."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import sys
import zlib
from pathlib import Path

import orjson
import pytest
from PIL import Image

from runner.report.gallery import thumbnail_worker, thumbnails
from runner.report.gallery.thumbnails import ThumbnailCounts, ThumbnailSource, make_thumbnails, missing_thumbnails
from runner.sandbox.rendering import Caption, draw_mp4

from .conftest import output


def source(path: Path, *, video: bool = False) -> ThumbnailSource:
    return ThumbnailSource(path.name, hashlib.sha256(path.name.encode()).hexdigest(), video, 1)


@pytest.fixture
def gallery(tmp_path):
    """Return a function that writes a file, with a directory for thumbnails."""
    (tmp_path / "gallery").mkdir()

    def make(name: str, data: bytes) -> ThumbnailSource:
        (tmp_path / name).write_bytes(data)
        return source(tmp_path / name, video=name.endswith(".mp4"))

    make.run = lambda *sources, **more: make_thumbnails(
        tmp_path, tmp_path / "gallery", sources, more.get("has_time", lambda: True)
    )
    make.made = lambda: {path.suffix: path for path in sorted((tmp_path / "gallery").iterdir())}
    make.root = tmp_path
    return make


def image(kind: str, size=(900, 600), mode="RGB", **more) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, "red").save(file, kind, **more)
    return file.getvalue()


def bomb() -> bytes:
    """Return a PNG that claims to have 900 million pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P")],
)
def test_image_becomes_a_thumbnail(gallery, kind, mode):
    assert gallery.run(gallery("a.bin", image(kind, mode=mode))) == ThumbnailCounts(made=1)
    with Image.open(gallery.made()[".webp"]) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (400, 267))


def test_exif_orientation_is_applied(gallery):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    gallery.run(gallery("a.jpg", image("JPEG", exif=exif)))
    with Image.open(gallery.made()[".webp"]) as thumbnail:
        assert thumbnail.size == (267, 400)


def test_video_thumbnail_is_its_first_frame(gallery):
    video = gallery("a.mp4", draw_mp4(Caption("a heron", "m", "t", 0, "16:9")))
    assert gallery.run(video) == ThumbnailCounts(made=1)
    with Image.open(gallery.made()[".webp"]) as thumbnail:
        assert thumbnail.size[0] > thumbnail.size[1] > 100


@pytest.mark.parametrize(
    "data",
    [bomb(), image("PNG")[:300], b"<svg onload=alert(1)>", b"", b"\x89PNG\r\n\x1a\n", image("BMP")],
    ids=["bomb", "cut", "svg", "empty", "head", "bmp"],
)
def test_undecodable_file_is_refused_once(gallery, data):
    bad, good = gallery("bad.png", data), gallery("good.png", image("PNG"))
    assert gallery.run(bad, good) == ThumbnailCounts(made=1, refused=1)
    assert gallery.made()[".none"].stat().st_size == 0
    names = {path.name for path in gallery.made().values()}
    outputs = [
        {**output(file), "sha256": hashlib.sha256(file.encode()).hexdigest()} for file in ("bad.png", "good.png")
    ]
    assert list(missing_thumbnails(outputs, names)) == []


def test_broken_video_is_refused(gallery):
    assert gallery.run(gallery("a.mp4", b"\0\0\0\x18ftypisom" + b"x" * 100)) == ThumbnailCounts(refused=1)


def test_links_pipes_and_missing_files_are_unavailable(gallery):
    (gallery.root / "secret").write_bytes(image("PNG"))
    (gallery.root / "link.png").symlink_to(gallery.root / "secret")
    os.mkfifo(gallery.root / "pipe.png")
    foreign = [source(gallery.root / name) for name in ("link.png", "pipe.png", "gone.png")]
    assert gallery.run(*foreign) == ThumbnailCounts(unavailable=3)
    assert gallery.made() == {}


def test_slow_worker_is_killed_and_the_rest_is_made(gallery, monkeypatch):
    """A worker that exceeds the timeout is killed, and the next request gets a new one."""
    monkeypatch.setattr(thumbnails, "_TIMEOUT", 0.0)
    with thumbnails._WorkerProcess() as worker:
        gallery("a.png", image("PNG"))
        assert worker.request(gallery.root / "a.png", is_video=False) == (thumbnails.REFUSED, b"")
        monkeypatch.setattr(thumbnails, "_TIMEOUT", 20.0)
        outcome, body = worker.request(gallery.root / "a.png", is_video=False)
    assert (outcome, body[:4]) == (thumbnails.MADE, b"RIFF")


def test_dead_worker_is_replaced(gallery):
    gallery("a.png", image("PNG"))
    with thumbnails._WorkerProcess() as worker:
        worker.request(gallery.root / "a.png", is_video=False)
        worker._process.kill()
        worker._process.wait()
        assert worker.request(gallery.root / "a.png", is_video=False)[0] == thumbnails.REFUSED
        assert worker.request(gallery.root / "a.png", is_video=False)[0] == thumbnails.MADE


def test_nothing_starts_after_the_time_is_up(gallery):
    answers = iter([True, True])
    images = [gallery(f"{number}.png", image("PNG", (50, 50))) for number in range(6)]
    assert gallery.run(*images, has_time=lambda: next(answers, False)) == ThumbnailCounts(made=2)


def test_worker_cannot_write_and_has_no_secrets(gallery, monkeypatch):
    """The worker has no environment, and cannot write files or core dumps."""
    monkeypatch.setenv("KLING_API_KEY", "canary")
    with thumbnails._WorkerProcess() as worker:
        gallery("a.png", image("PNG"))
        worker.request(gallery.root / "a.png", is_video=False)
        home = Path(f"/proc/{worker._process.pid}")
        assert b"canary" not in (home / "environ").read_bytes()
        limits = {line[:26].strip(): line[26:].split()[0] for line in (home / "limits").read_text().splitlines()[1:]}
    assert (limits["Max file size"], limits["Max core file size"]) == ("0", "0")
    assert int(limits["Max address space"]) <= 4 << 30


def test_each_content_once_and_no_audio():
    outputs = [output("a.png", "x" * 64), output("b.png", "x" * 64), output("c.mp3", "y" * 64, "audio/mpeg"),
               output(None, "z" * 64), output("d.mp4", "v" * 64, "video/mp4"), output("e.png", "")]  # fmt: skip
    assert [(each.file, each.is_video) for each in missing_thumbnails(outputs, set())] == [
        ("a.png", False),
        ("d.mp4", True),
    ]


@pytest.mark.parametrize(("library", "name"), [("PIL", "a.png"), ("av", "a.mp4")])
def test_missing_library_marks_nothing_refused(gallery, monkeypatch, library, name):
    """A later attempt, with the library, makes the thumbnail."""
    gallery(name, image("PNG"))
    monkeypatch.setitem(sys.modules, library, None)
    request = {"path": str(gallery.root / name), "video": name.endswith(".mp4")}
    assert thumbnail_worker._answer(orjson.dumps(request))[0] == thumbnail_worker.UNAVAILABLE
