"""Make thumbnails of untrusted files in a process of its own: the worker that `thumbnails` starts.

Requests come on standard input, each a line of JSON: {"path": …, "video": …}. Responses go to standard output: a header
of five bytes (outcome and length), then a WebP or the reason of the failure. The process cannot write files, has
bounded memory and an empty environment without secrets, and its parent kills it when it takes too long.
"""

from __future__ import annotations

import io
import resource
import struct
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import orjson

from runner.files import NotRegularFileError, open_to_read

if TYPE_CHECKING:
    from PIL.Image import Image

HEADER = struct.Struct(">BI")
#: outcomes: a thumbnail, a file that cannot be decoded, a missing file or library
MADE, REFUSED, UNAVAILABLE = range(3)
#: the longer side of a thumbnail, pixels
_SIDE = 400
_QUALITY = 74
#: pixels above which a file is not decoded
_MAX_PIXELS = 100_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")
#: bytes of address space, and packets of a video that are tried for its first frame
_MAX_MEMORY, _MAX_PACKETS = 3 << 30, 200


def _limit_resources() -> None:
    """Forbid file writes and core dumps, and bound memory, as far as the system supports such limits."""
    for kind, limit in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, _MAX_MEMORY),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (limit, limit))


def make_thumbnail(file: BinaryIO, *, is_video: bool) -> bytes:
    """Return a WebP of an image, or of the first frame of a video; raises any exception that a decoder raises."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - optional dependency

    Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
    image: Image.Image
    if is_video:
        image = _first_frame(file)
    else:
        image = Image.open(file, formats=_FORMATS)
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # a JPEG is decoded at a fraction of its size
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    image = ImageOps.exif_transpose(image)
    encoded = io.BytesIO()
    has_alpha = "A" in image.mode or "transparency" in image.info
    image.convert("RGBA" if has_alpha else "RGB").save(encoded, "WEBP", quality=_QUALITY, method=2)
    return encoded.getvalue()


def _first_frame(file: BinaryIO) -> Image:
    """Return the first frame of a video."""
    import av  # noqa: PLC0415 - optional dependency

    with av.open(file, "r", metadata_errors="replace") as video:
        stream = video.streams.video[0]
        if stream.width * stream.height > _MAX_PIXELS:
            raise ValueError("too many pixels")
        stream.thread_type = "NONE"
        for _, packet in zip(range(_MAX_PACKETS), video.demux(stream), strict=False):
            for frame in packet.decode():
                image: Image = frame.to_image()  # type: ignore[no-untyped-call]
                return image
    raise ValueError("no image in the video")


def _answer(line: bytes) -> tuple[int, bytes]:
    request = orjson.loads(line)
    try:
        with open_to_read(Path(request["path"])) as file:
            return MADE, make_thumbnail(file, is_video=request["video"])
    except NotRegularFileError:
        return UNAVAILABLE, b"is not a file"
    except (ImportError, OSError) as error:
        # a file that cannot be opened may be there later; Pillow's OSError for one that cannot be decoded has no errno
        is_missing = isinstance(error, ImportError) or error.errno is not None
        return (UNAVAILABLE if is_missing else REFUSED), repr(error).encode()
    except Exception as error:  # noqa: BLE001 - hostile bytes raise anything; the response carries the exception
        return REFUSED, repr(error).encode(errors="replace")


def main() -> None:
    """Handle requests until standard input ends."""
    warnings.simplefilter("error")  # Pillow warns of decompression bombs before it refuses them
    _limit_resources()
    for line in sys.stdin.buffer:
        outcome, body = _answer(line)
        sys.stdout.buffer.write(HEADER.pack(outcome, len(body)) + body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
