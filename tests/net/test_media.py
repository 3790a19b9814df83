"""Real files written by other libraries, truncated at many places, and arbitrary bytes."""

import io
import struct
import tempfile
import wave
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runner.net.media import AVIF, GIF, JPEG, MOV, MP3, MP4, PNG, WAV, WEBM, WEBP, complete, sniff, whole

av = pytest.importorskip("av")


def image(kind, **options):
    file = io.BytesIO()
    frame = Image.effect_noise((64, 48), 60).convert("RGB")
    frame.save(file, kind, **options)
    return file.getvalue()


def video(kind, codec, **options):
    with tempfile.NamedTemporaryFile() as file:  # faststart reads back what it wrote
        with av.open(file.name, "w", format=kind, options=options) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(12):
                frame = av.VideoFrame.from_image(Image.effect_noise((64, 48), 60).convert("RGB"))
                container.mux(stream.encode(frame.reformat(format="yuv420p")))
            container.mux(stream.encode(None))
        return Path(file.name).read_bytes()


def audio():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(b"\x01\x02" * 4000)
    return file.getvalue()


def mp3():
    frame = b"\xff\xfb\x90\x00" + b"\0" * 413
    return b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10 + frame * 20


SAMPLES = {
    "png": (PNG, lambda: image("PNG")),
    "jpg": (JPEG, lambda: image("JPEG")),
    "progressive": (JPEG, lambda: image("JPEG", progressive=True)),
    "webp": (WEBP, lambda: image("WEBP")),
    "gif": (GIF, lambda: image("GIF")),
    "avif": (AVIF, lambda: image("AVIF")),
    "mp4": (MP4, lambda: video("mp4", "mpeg4")),
    "faststart": (MP4, lambda: video("mp4", "mpeg4", movflags="faststart")),
    "fragmented": (MP4, lambda: video("mp4", "mpeg4", movflags="frag_keyframe+empty_moov")),
    "mov": (MOV, lambda: video("mov", "mpeg4")),
    "webm": (WEBM, lambda: video("webm", "libvpx")),
    "wav": (WAV, audio),
    "mp3": (MP3, mp3),
}


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request):
    kind, make = SAMPLES[request.param]
    return kind, make()


def test_complete_file_is_accepted(sample, tmp_path):
    kind, data = sample
    assert sniff(data[:512]) == kind
    assert complete(data)
    path = tmp_path / "x.part"
    path.write_bytes(data)
    assert whole(path)


def test_truncated_file_is_rejected(sample):
    kind, data = sample
    cuts = [len(data) * tenth // 10 for tenth in range(10)] + [len(data) - 1]
    accepted = [cut for cut in cuts if complete(data[:cut])]
    assert accepted == [], f"{kind} of {len(data)}"


JUNK = [
    "",
    "<!DOCTYPE html><html>",
    "<svg xmlns=''>",
    "<?xml version='1.0'?><svg/>",
    '{"error": 1}',
    "MZ\x90\0",
    "\x7fELF",
]
JUNK += ["#!/bin/sh\n", "%PDF-1.7", "PK\x03\x04", "RIFF\0\0\0\0AVI ", "\0\0\0\x18ftypheic\0\0\0\0heic", "GIF8", "BM"]


@pytest.mark.parametrize("text", JUNK)
def test_other_content_is_rejected(text):
    assert sniff(text.encode("latin-1").ljust(64)) is None
    assert not complete(text.encode("latin-1"))


def test_empty_file_is_rejected(tmp_path):
    (tmp_path / "x").touch()
    assert not whole(tmp_path / "x")


STARTS = [make()[:80] for _, make in SAMPLES.values()] + [b"", b"\xff\xfb", struct.pack(">I", 1) + b"ftypisom"]


@given(st.sampled_from(STARTS), st.integers(0, 80), st.binary(max_size=400))
def test_no_input_raises(start, cut, rest):
    assert complete(start[:cut] + rest) in {True, False}
