"""Thumbnails of real files, and what becomes of files that were made to harm."""

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

from runner.report.gallery import darkroom, thumbnailer
from runner.report.gallery.darkroom import Developed, Original, develop, wanted
from runner.sandbox.media import Caption, mp4

from .conftest import output


def original(path: Path, *, film: bool = False) -> Original:
    return Original(path.name, hashlib.sha256(path.name.encode()).hexdigest(), film, 1)


@pytest.fixture
def desk(tmp_path):
    """Files and their folder of thumbnails."""
    (tmp_path / "gallery").mkdir()

    def make(name: str, data: bytes) -> Original:
        (tmp_path / name).write_bytes(data)
        return original(tmp_path / name, film=name.endswith(".mp4"))

    make.run = lambda *originals, **more: develop(
        tmp_path, tmp_path / "gallery", originals, more.get("has_time", lambda: True)
    )
    make.made = lambda: {path.suffix: path for path in sorted((tmp_path / "gallery").iterdir())}
    make.root = tmp_path
    return make


def picture(kind: str, size=(900, 600), mode="RGB", **more) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, "red").save(file, kind, **more)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 900 million pixels."""
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P")],
)
def test_a_picture_becomes_a_small_one(desk, kind, mode):
    assert desk.run(desk("a.bin", picture(kind, mode=mode))) == Developed(made=1)
    with Image.open(desk.made()[".webp"]) as small:
        assert (small.format, small.size) == ("WEBP", (400, 267))


def test_a_picture_lies_as_its_camera_was_held(desk):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    desk.run(desk("a.jpg", picture("JPEG", exif=exif)))
    with Image.open(desk.made()[".webp"]) as small:
        assert small.size == (267, 400)


def test_a_film_shows_its_first_picture(desk):
    film = desk("a.mp4", mp4(Caption("a heron", "m", "t", 0, "16:9")))
    assert desk.run(film) == Developed(made=1)
    with Image.open(desk.made()[".webp"]) as small:
        assert small.size[0] > small.size[1] > 100


@pytest.mark.parametrize(
    "data",
    [bomb(), picture("PNG")[:300], b"<svg onload=alert(1)>", b"", b"\x89PNG\r\n\x1a\n", picture("BMP")],
    ids=["bomb", "cut", "svg", "empty", "head", "bmp"],
)
def test_what_cannot_be_decoded_is_refused_once(desk, data):
    bad, good = desk("bad.png", data), desk("good.png", picture("PNG"))
    assert desk.run(bad, good) == Developed(made=1, refused=1)
    assert desk.made()[".none"].stat().st_size == 0
    names = {path.name for path in desk.made().values()}
    outputs = [
        {**output(file), "sha256": hashlib.sha256(file.encode()).hexdigest()} for file in ("bad.png", "good.png")
    ]
    assert list(wanted(outputs, names)) == []


def test_films_that_are_none_are_refused(desk):
    assert desk.run(desk("a.mp4", b"\0\0\0\x18ftypisom" + b"x" * 100)) == Developed(refused=1)


def test_what_is_no_file_of_ours_is_left_alone(desk):
    (desk.root / "secret").write_bytes(picture("PNG"))
    (desk.root / "link.png").symlink_to(desk.root / "secret")
    os.mkfifo(desk.root / "pipe.png")
    strange = [original(desk.root / name) for name in ("link.png", "pipe.png", "gone.png")]
    assert desk.run(*strange) == Developed(unable=3)
    assert desk.made() == {}


def test_whoever_takes_too_long_is_ended_and_the_rest_is_made(desk, monkeypatch):
    monkeypatch.setattr(darkroom, "_PATIENCE", 0.0)
    with darkroom._Hand() as hand:
        desk("a.png", picture("PNG"))
        assert hand.ask(desk.root / "a.png", film=False) == (darkroom.REFUSED, b"")
        monkeypatch.setattr(darkroom, "_PATIENCE", 20.0)
        outcome, body = hand.ask(desk.root / "a.png", film=False)
    assert (outcome, body[:4]) == (darkroom.MADE, b"RIFF")


def test_a_process_that_dies_is_replaced(desk):
    desk("a.png", picture("PNG"))
    with darkroom._Hand() as hand:
        hand.ask(desk.root / "a.png", film=False)
        hand._process.kill()
        hand._process.wait()
        assert hand.ask(desk.root / "a.png", film=False)[0] == darkroom.REFUSED
        assert hand.ask(desk.root / "a.png", film=False)[0] == darkroom.MADE


def test_no_more_is_begun_than_there_is_time_for(desk):
    asked = iter([True, True])
    pictures = [desk(f"{number}.png", picture("PNG", (50, 50))) for number in range(6)]
    assert desk.run(*pictures, has_time=lambda: next(asked, False)) == Developed(made=2)


def test_what_decodes_can_write_nothing_and_knows_nothing(desk, monkeypatch):
    monkeypatch.setenv("KLING_API_KEY", "canary")
    with darkroom._Hand() as hand:
        desk("a.png", picture("PNG"))
        hand.ask(desk.root / "a.png", film=False)
        home = Path(f"/proc/{hand._process.pid}")
        assert b"canary" not in (home / "environ").read_bytes()
        limits = {line[:26].strip(): line[26:].split()[0] for line in (home / "limits").read_text().splitlines()[1:]}
    assert (limits["Max file size"], limits["Max core file size"]) == ("0", "0")
    assert int(limits["Max address space"]) <= 4 << 30


def test_each_content_once_and_sound_never():
    outputs = [output("a.png", "x" * 64), output("b.png", "x" * 64), output("c.mp3", "y" * 64, "audio/mpeg"),
               output(None, "z" * 64), output("d.mp4", "v" * 64, "video/mp4"), output("e.png", "")]  # fmt: skip
    assert [(each.file, each.film) for each in wanted(outputs, set())] == [("a.png", False), ("d.mp4", True)]


@pytest.mark.parametrize(("library", "name"), [("PIL", "a.png"), ("av", "a.mp4")])
def test_without_a_library_nothing_is_refused_for_good(desk, monkeypatch, library, name):
    """So that a later try, with the library, finds it still to be done."""
    desk(name, picture("PNG"))
    monkeypatch.setitem(sys.modules, library, None)
    ask = {"path": str(desk.root / name), "film": name.endswith(".mp4")}
    assert thumbnailer._answer(orjson.dumps(ask))[0] == thumbnailer.UNABLE
