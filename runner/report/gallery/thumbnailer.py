"""`python -m runner.report.gallery.thumbnailer`: makes small pictures of strangers' files, in a process of its own.

Asks come on standard input, a line of JSON each: {"path": …, "film": …}. Answers go to standard output: five bytes of
head (an outcome, a length), then a WebP or the reason why not. What decodes may write nothing, has bounded memory,
knows no secret (its environment is empty) and is ended from outside when it takes too long (attacks.md X38).
"""

from __future__ import annotations

import io
import os
import resource
import stat
import struct
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import orjson

if TYPE_CHECKING:
    from PIL.Image import Image

HEAD = struct.Struct(">BI")
#: outcomes: a picture, none is possible, none without another library
MADE, REFUSED, UNABLE = range(3)
#: the longer side of a thumbnail, pixels
_SIDE = 400
_QUALITY = 74
#: pixels above which nothing is decoded
_PIXELS = 100_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")
#: bytes of address space; packets of a film that are tried for its first picture
_MEMORY, _PACKETS = 3 << 30, 200


def _confine() -> None:
    """Nothing can be written, no core is left, memory is bounded; best effort where the system knows no such limit."""
    for kind, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, _MEMORY),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))


def small(file: BinaryIO, *, film: bool) -> bytes:
    """A WebP of the picture, or of the film's first one; raises whatever decoding raises."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - may not be there

    Image.MAX_IMAGE_PIXELS = _PIXELS
    picture: Image.Image
    if film:
        picture = _poster(file)
    else:
        picture = Image.open(file, formats=_FORMATS)
        picture.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # a JPEG is decoded at a fraction of its size
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    picture = ImageOps.exif_transpose(picture)
    seen = io.BytesIO()
    has_alpha = "A" in picture.mode or "transparency" in picture.info
    picture.convert("RGBA" if has_alpha else "RGB").save(seen, "WEBP", quality=_QUALITY, method=2)
    return seen.getvalue()


def _poster(file: BinaryIO) -> Image:
    """The first picture of a film."""
    import av  # noqa: PLC0415 - may not be there

    with av.open(file, "r", metadata_errors="replace") as film:
        stream = film.streams.video[0]
        if stream.width * stream.height > _PIXELS:
            raise ValueError("too many pixels")
        stream.thread_type = "NONE"
        for _, packet in zip(range(_PACKETS), film.demux(stream), strict=False):
            for frame in packet.decode():
                picture: Image = frame.to_image()  # type: ignore[no-untyped-call]
                return picture
    raise ValueError("no picture in the film")


def _answer(ask: bytes) -> tuple[int, bytes]:
    wanted = orjson.loads(ask)
    try:
        descriptor = os.open(wanted["path"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return UNABLE, b"is not a file"
            return MADE, small(file, film=wanted["film"])
    except (ImportError, OSError) as error:
        # a file that cannot be opened may be there later; one that cannot be decoded raises an OSError of Pillow's
        gone = isinstance(error, ImportError) or error.errno is not None
        return (UNABLE if gone else REFUSED), repr(error).encode()
    except Exception as error:  # noqa: BLE001 - hostile bytes raise anything; the answer says what
        return REFUSED, repr(error).encode(errors="replace")


def main() -> None:
    """Answer until the asks end."""
    warnings.simplefilter("error")  # Pillow warns of bombs before it refuses them
    _confine()
    for ask in sys.stdin.buffer:
        outcome, body = _answer(ask)
        sys.stdout.buffer.write(HEAD.pack(outcome, len(body)) + body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
