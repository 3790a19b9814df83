"""Decode data files: UTF-8 line by line, whatever ends a line, and the errors of bytes that are no text.

Pairs of surrogates (CESU-8, as Java and some databases write emoji) are read as the characters that they stand for.
"""

from __future__ import annotations

import re
from functools import partial
from typing import IO, TYPE_CHECKING

from runner.manifest import yaml_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

#: largest length of a cell in characters, and of a line or of the lines of one row in bytes
MAX_CELL = 16 << 20
MAX_LINE = 32 << 20
BOM = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
#: bytes that are read to recognise line ends and UTF-16
SAMPLE_SIZE = 64 * 1024
#: bytes of a file that are split into lines at a time
_CHUNK = 1 << 20
_LINE_ENDS = re.compile(rb"[^\r\n]*(?:\r\n|\r(?=[^\n])|\n)")


class BadDataError(Exception):
    """The rest of a file cannot be read, from `line` and `column` on."""

    def __init__(self, line: int, message: str, hint: str, *, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.message = message
        self.hint = hint


class BadTextError(BadDataError):
    """The file is not UTF-8."""


class NulError(BadDataError):
    """There is a NUL byte in the file."""


class Lines:
    """The decoded lines of a file with their line ends, without a byte order mark; iterate over them once.

    A carriage return alone ends a line in a file without line feeds, as old Macs write it, and in any file if
    `split_returns` is set. `size` counts the bytes of the lines since it was set to 0. Raise BadDataError for what is
    no text, for a line that is too long, and for too many bytes since `size` was 0.
    """

    def __init__(self, file: IO[bytes], *, split_returns: bool = False) -> None:
        self.size = 0
        self._file = file
        self._split_returns = split_returns

    def __iter__(self) -> Iterator[str]:
        """Yield the lines."""
        for number, raw in enumerate(self._raw_lines(), 1):
            self.size += len(raw)
            if self.size > MAX_LINE:
                size = f"more than {MAX_LINE >> 20} MiB"
                raise BadDataError(number, f"a line of {size}, or a row of so many", "is this the right file?")
            if b"\0" in raw:
                raise NulError(number, "a NUL byte, which no text holds", "take the NUL bytes out")
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text = decode_cesu8(raw, number)
            yield text

    def _raw_lines(self) -> Iterator[bytes]:
        """Return the lines of the file with their line ends."""
        file = self._file
        sample = file.read(SAMPLE_SIZE)
        if sample.startswith(UTF16_MARKS) or utf16_order(sample):
            raise BadTextError(1, "looks like UTF-16", "save the file with the encoding UTF-8")
        file.seek(len(BOM) if sample.startswith(BOM) else 0)
        if b"\r" in sample and b"\n" not in sample:
            return _split_lines(file)
        lines = iter(partial(file.readline, MAX_LINE + 1), b"")
        return _without_lone_returns(lines) if self._split_returns else lines


def read_whole(file: IO[bytes]) -> bytes:
    """Return the content of a file that is parsed as a whole, without a byte order mark."""
    text = file.read(yaml_reader.MAX_BYTES + 1)
    if len(text) > yaml_reader.MAX_BYTES:
        raise BadDataError(0, "larger than 64 MiB", "convert it to .jsonl, which is read line by line")
    return text.removeprefix(BOM)


def decode_whole(raw: bytes) -> str:
    """Return the text of a file. Raise BadDataError."""
    if raw.startswith(UTF16_MARKS) or utf16_order(raw[:SAMPLE_SIZE]):
        raise BadTextError(1, "looks like UTF-16", "save the file with the encoding UTF-8")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        return decode_cesu8(raw, 1 + raw.count(b"\n", 0, error.start))


def decode_cesu8(raw: bytes, number: int) -> str:
    """Return the text of bytes that are UTF-8 but for pairs of surrogates. Raise BadTextError for any others."""
    try:
        text = raw.decode("utf-8", "surrogatepass")
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise BadTextError(number, "not UTF-8", "save the file with the encoding UTF-8") from None


def utf16_order(sample: bytes) -> str:
    """Return `LE` or `BE` if the first bytes of a file are UTF-16 without a byte order mark, else an empty text.

    Line ends, commas and quotes have their NUL byte always on the same side. Text that is UTF-8 as well is taken for
    UTF-16 only if a quarter of it is NUL.
    """
    zeros = sample.count(0)
    if not zeros or (zeros * 4 < len(sample) and _is_utf8(sample)):
        return ""
    sample = sample[: len(sample) & ~1]
    sides = [(sample[1::2].count(0), "LE", "utf-16-le"), (sample[::2].count(0), "BE", "utf-16-be")]
    (few, _, _), (_, order, codec) = sorted(sides)
    if few:
        return ""
    try:
        text = sample.decode(codec)
    except UnicodeDecodeError as error:
        text = sample[: error.start].decode(codec) if error.start >= len(sample) - 2 else "\0"
    return order if all(each.isprintable() or each in "\t\r\n" for each in text) else ""


def _is_utf8(sample: bytes) -> bool:
    """Return whether the first bytes of a file are UTF-8; the last character may be cut."""
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(sample) - 3
    return True


def _without_lone_returns(lines: Iterator[bytes]) -> Iterator[bytes]:
    for raw in lines:
        if b"\r" in raw and b"\r" in raw[:-2]:
            yield from _pieces(raw)
        else:
            yield raw


def _split_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file in which a carriage return alone ends a line too."""
    rest = b""
    while chunk := file.read(_CHUNK):
        *whole, rest = _pieces(rest + chunk)
        yield from whole
        if len(rest) > MAX_LINE:
            break
    yield from _pieces(rest)


def _pieces(raw: bytes) -> Iterator[bytes]:
    """Yield the lines of `raw`; the last one may have no line end."""
    at = 0
    for found in _LINE_ENDS.finditer(raw):
        at = found.end()
        yield found[0]
    if at < len(raw):
        yield raw[at:]
