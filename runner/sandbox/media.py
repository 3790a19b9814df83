"""Drawing of output files: a PNG that shows its prompt, and a video of one second in which a bar moves.

The same caption gives the same bytes. This module loads Pillow and PyAV, so it is imported only where a file is drawn.
"""

import struct
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Literal

import av
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

#: Length of the longer side, in pixels.
SIDE = 320
SHORTEST_SIDE = 32
MARGIN = 10
TEXT_SIZE, SMALL_SIZE = 16, 9
FRAMES = 8
#: Fonts in order of preference. The first that exists is used. Without a Chinese font its characters show as boxes.
FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/STHeiti Light.ttc",
    "C:/Windows/Fonts/msyh.ttc",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
)
#: First code point of the characters that are about twice as wide.
WIDE = 0x2E80
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class Caption:
    """The texts and the shape of an output file."""

    prompt: str
    model: str
    task_id: str
    #: Position among the task's files, from 0.
    number: int
    #: Width to height, such as `16:9`.
    ratio: str


def png(caption: Caption) -> bytes:
    """Return a PNG with the prompt on a background whose colour comes from the prompt."""
    image = _drawn(caption)
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def mp4(caption: Caption) -> bytes:
    """Return an MP4 video of one second with the image and a bar that moves across it."""
    image = _drawn(caption).convert("RGB")
    file = BytesIO()
    codec: Literal["libx264", "mpeg4"] = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(file, "w", format="mp4") as container:
        stream = _stream(container.add_stream(codec, rate=FRAMES), image)
        for frame in _frames(image):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def padded(content: bytes, size: int) -> bytes:
    """Return a PNG or MP4 grown to about `size` bytes by a part that readers skip."""
    padding = size - len(content) - 12
    if padding <= 0:
        return content
    if content.endswith(PNG_END):
        body = b"paDd" + bytes(padding)
        chunk = struct.pack(">I", padding) + body + struct.pack(">I", zlib.crc32(body))
        return content[: -len(PNG_END)] + chunk + PNG_END
    return content + struct.pack(">I", padding + 8) + b"free" + bytes(padding)


def canvas(ratio: str) -> tuple[int, int]:
    """Return even width and height in pixels for a ratio. An invalid ratio counts as 16:9."""
    across, _, down = ratio.partition(":")
    if not (across.isdecimal() and down.isdecimal() and int(across) and int(down)):
        across, down = "16", "9"
    scale = SIDE / max(int(across), int(down))
    width, height = (max(SHORTEST_SIDE, round(int(side) * scale / 2) * 2) for side in (across, down))
    return width, height


def _drawn(caption: Caption) -> Image.Image:
    width, height = canvas(caption.ratio)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    draw.multiline_text((MARGIN, MARGIN), _wrapped(caption.prompt, width, height), 255, _font(TEXT_SIZE))
    small = f"{caption.model}  #{caption.number}\n{caption.task_id}"
    draw.multiline_text((MARGIN, height - 2 * SMALL_SIZE - MARGIN), small, 200, _font(SMALL_SIZE), spacing=1)
    image.putpalette(_palette(caption.prompt))
    return image


def _wrapped(prompt: str, width: int, height: int) -> str:
    """Break the prompt into the lines that fit. Widths are estimated, which is cheaper than measuring."""
    wide = sum(ord(c) >= WIDE for c in prompt[:200]) * 2 > len(prompt[:200])
    columns = max(4, int((width - 2 * MARGIN) / (TEXT_SIZE if wide else TEXT_SIZE * 0.6)))
    rows = max(1, (height - 4 * MARGIN) // (TEXT_SIZE + 6))
    printable = "".join(c if c.isprintable() else " " for c in prompt[: columns * rows])
    return "\n".join(textwrap.wrap(printable, columns)[:rows])


def _palette(prompt: str) -> list[int]:
    background = [byte // 2 for byte in blake2b(prompt.encode(errors="backslashreplace"), digest_size=3).digest()]
    return [part + (255 - part) * level // 255 for level in range(256) for part in background]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    path = next((path for path in FONTS if Path(path).exists()), None)
    if path is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _stream(stream: VideoStream, image: Image.Image) -> VideoStream:
    stream.width, stream.height = image.size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    if stream.codec_context.name == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "30"}
    return stream


def _frames(image: Image.Image) -> Iterator[av.VideoFrame]:
    width, height = image.size
    for number in range(FRAMES):
        frame = image.copy()
        left = number * width // FRAMES
        ImageDraw.Draw(frame).rectangle((left, height - 6, left + width // FRAMES, height), fill=(255, 255, 255))
        yield av.VideoFrame.from_image(frame)  # type: ignore[no-untyped-call]
