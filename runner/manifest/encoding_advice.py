"""Name the encoding of a table that is not UTF-8, and advise only what was tried on the file.

Every encoding that decodes the whole file is a candidate. Many bytes are valid in several: each Big5 file is valid
GB18030. So the candidates are weighed by how usual their characters are, those that remain possible are shown with
what the file reads as, and nothing is converted unasked. A file with lines that are UTF-8 and lines that are not has no
encoding: a command for the whole of it would spoil what is right, so only the lines are named.
"""

from __future__ import annotations

import codecs
import math
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from runner.files import open_to_read
from runner.manifest.decoding import MAX_LINE, SAMPLE_SIZE, UTF16_MARKS, BadTextError, decode_cesu8, utf16_order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: bytes of a file on which advice is tried; of a larger one only the line is named
_MAX_TRIED = 256 << 20
#: lines that a message names, characters that it shows of a reading, and bytes that are weighed
_MAX_PLACES, _MAX_SHOWN, _MAX_WEIGHED = 3, 16, 4096
#: probability from which on a candidate is named, and how many are
_MIN_PROBABILITY, _MAX_NAMED = 0.01, 3


class _Encoding(NamedTuple):
    """An encoding by its name for iconv and for Python.

    `areas` are (first, last, share of the characters of a text, number of characters) by the bytes of a character; a
    character anywhere else has the share `rest` among 10,000.
    """

    name: str
    codec: str
    prior: float
    areas: tuple[tuple[int, int, float, int], ...]
    rest: float = 0.01


_ENCODINGS = (
    _Encoding("GB18030", "gb18030", 1.0,
              ((0xB0A1, 0xD7F9, 0.9, 3755), (0xA1A1, 0xA9FE, 0.07, 700), (0xD8A1, 0xF7FE, 0.02, 3008))),
    _Encoding("CP950", "cp950", 0.2,
              ((0xA440, 0xC67E, 0.88, 5401), (0xA140, 0xA3BF, 0.08, 408), (0xC940, 0xF9D5, 0.03, 7652))),
    _Encoding("CP932", "cp932", 0.2,
              ((0x829F, 0x82F1, 0.42, 83), (0x8340, 0x8396, 0.15, 86), (0x889F, 0x9872, 0.33, 2965),
               (0x8140, 0x81FC, 0.08, 147), (0x989F, 0xEAA4, 0.008, 3390), (0xA1, 0xDF, 0.001, 63)), 0.001),
    _Encoding("EUC-JP", "euc_jp", 0.1,
              ((0xA4A1, 0xA4F3, 0.42, 83), (0xA5A1, 0xA5F6, 0.15, 86), (0xB0A1, 0xCFD3, 0.33, 2965),
               (0xA1A1, 0xA1FE, 0.08, 94), (0xD0A1, 0xF4A6, 0.008, 3390)), 0.001),
    _Encoding("CP949", "cp949", 0.1, ((0xB0A1, 0xC8FE, 0.91, 2350), (0xA1A1, 0xA3FE, 0.06, 282))),
    _Encoding("CP1252", "cp1252", 0.1, ((0xC0, 0xFF, 0.8, 62), (0x80, 0xBF, 0.2, 64))),
)  # fmt: skip
#: how much rarer a letter of a Western language with an accent is behind another one
_ACCENTS_IN_A_ROW = 0.05


class PossibleEncoding(NamedTuple):
    """An encoding by its name for iconv, and what the first text of the file reads as."""

    name: str
    sample: str


@dataclass
class _Findings:
    """What the lines of a file are."""

    #: number of lines that are UTF-8 and not ASCII
    valid: int = 0
    #: number of lines that are not UTF-8, and the numbers of the first few
    invalid: int = 0
    places: list[int] = field(default_factory=list)
    #: number of those in which only a character is cut or half of a pair is missing
    damaged: int = 0
    #: the others, up to a few kB
    sample: bytearray = field(default_factory=bytearray)
    #: encodings that decode the file
    possible: list[_Encoding] = field(default_factory=list)
    is_complete: bool = False


def encoding_advice(path: Path, label: str, error: BadTextError) -> tuple[str, str]:
    """Return message and hint for a file that is not UTF-8. `label` is its path as the user wrote it."""
    try:
        utf16 = _utf16_name(path)
        if utf16:
            return f"{error.message}; it reads as {utf16}, as spreadsheets save it", conversion_hint(label, utf16)
        found = _examine(path)
    except OSError:
        return error.message, error.hint
    readings = list(_readings(found))
    if found.damaged == found.invalid:
        places = _places(found)
        message = f"{places} not UTF-8: a character is cut there" if places else error.message
        return message, "write what stands there again; everything else is right"
    if found.valid and found.places:
        return _mixed_message(found, readings), "convert those lines alone, or write them again; the others are right"
    if not readings or not found.is_complete:
        return error.message, error.hint
    message = f"{error.message}; it reads as {readings[0].name}, as spreadsheets save it (“{readings[0].sample}”)"
    hint = conversion_hint(label, readings[0].name)
    if others := " or ".join(f"{each.name} (“{each.sample}”)" for each in readings[1:]):
        message = f"{message}, or as {others}"
        hint = f"take the one that reads right; {hint}"
    return message, hint


def conversion_hint(path: str, encoding: str) -> str:
    """Return the hint that names the command to convert a file to UTF-8."""
    stem, dot, suffix = path.rpartition(".")
    fresh = f"{stem}-utf8.{suffix}" if dot else f"{path}-utf8"
    return f"save it as “CSV UTF-8”, or: iconv -f {encoding} -t UTF-8 {shlex.quote(path)} > {shlex.quote(fresh)}"


def nul_hint(path: str) -> str:
    """Return the hint that names the command to take NUL bytes out of a file."""
    stem, dot, suffix = path.rpartition(".")
    fresh = f"{stem}-clean.{suffix}" if dot else f"{path}-clean"
    return f"is it a table? without them: tr -d '\\000' < {shlex.quote(path)} > {shlex.quote(fresh)}"


def _mixed_message(found: _Findings, readings: list[PossibleEncoding]) -> str:
    others = "1 other line is" if found.valid == 1 else f"{found.valid:,} others are"
    reads = " or ".join(f"{each.name} (“{each.sample}”)" for each in readings)
    it_reads = f"; read as {reads}" if reads else ""
    return f"{_places(found)} not UTF-8, and {others}, so this was joined from two encodings{it_reads}"


def _places(found: _Findings) -> str:
    """Return the lines that are not UTF-8, with a verb."""
    places = ", ".join(map(str, found.places)) + (", …" if found.invalid > len(found.places) else "")
    return f"line {places} is" if found.invalid == 1 else f"{found.invalid:,} lines ({places}) are"


def _utf16_name(path: Path) -> str:
    """Return the name of the UTF-16 that a file is in as a whole, or an empty text."""
    with open_to_read(path, follow_links=True) as file:
        sample = file.read(SAMPLE_SIZE)
        order = utf16_order(sample)
        name = "UTF-16" if sample.startswith(UTF16_MARKS) else f"UTF-16{order}" if order else ""
        if not name:
            return ""
        file.seek(0)
        decoder = codecs.getincrementaldecoder(name.lower())()
        tried = 0
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
                tried += len(chunk)
                if tried > _MAX_TRIED:
                    return ""
            decoder.decode(b"", final=True)
        except UnicodeError:
            return ""
    return name


def _examine(path: Path) -> _Findings:
    """Return which lines of a file are UTF-8, and which encodings decode all of it."""
    found = _Findings()
    decoders = [(each, codecs.getincrementaldecoder(each.codec)()) for each in _ENCODINGS]
    tried = 0
    with open_to_read(path, follow_links=True) as file:
        number = 0
        while raw := file.readline(MAX_LINE):
            number += 1
            tried += len(raw)
            if tried > _MAX_TRIED:
                return found
            if not raw.isascii():
                _note_line(found, raw, number)
            decoders = [(each, decoder) for each, decoder in decoders if _accepts(decoder, raw)]
    found.is_complete = True
    found.possible = [each for each, decoder in decoders if _accepts(decoder, b"", final=True)]
    return found


def _note_line(found: _Findings, raw: bytes, number: int) -> None:
    try:
        decode_cesu8(raw, number)
    except BadTextError:
        found.invalid += 1
        is_damaged = _is_damaged(raw)
        found.damaged += is_damaged
        if len(found.places) < _MAX_PLACES:
            found.places.append(number)
        if len(found.sample) < SAMPLE_SIZE and not is_damaged:
            found.sample += raw[:SAMPLE_SIZE]
    else:
        found.valid += 1


def _is_damaged(raw: bytes) -> bool:
    """Return whether a line is UTF-8 but for a character that is cut, or half of a pair of surrogates.

    Other encodings hardly ever begin with what is a character of three bytes in UTF-8.
    """
    try:
        raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        return any(byte >= 0xE0 for byte in raw[: error.start])  # noqa: PLR2004 - first byte of three or four
    return True


def _accepts(decoder: codecs.IncrementalDecoder, raw: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(raw, final=final)
    except UnicodeDecodeError:
        return False
    return True


def _readings(found: _Findings) -> Iterator[PossibleEncoding]:
    """Yield the likely encodings of the lines that are not UTF-8, the most likely one first."""
    encodings = found.possible if not found.valid else _ENCODINGS
    weighed = []
    for encoding in encodings:
        # the sample may end inside of a character, which a decoder that waits for more does not mind
        decoder = codecs.getincrementaldecoder(encoding.codec)()
        try:
            text = decoder.decode(bytes(found.sample[:_MAX_WEIGHED]))
        except UnicodeDecodeError:
            continue
        if shown := _shown(text):
            weighed.append((math.log(encoding.prior) + _log_likelihood(encoding, text), encoding.name, shown))
    if not weighed:
        return
    weighed.sort(reverse=True)
    best = weighed[0][0]
    total = sum(math.exp(weight - best) for weight, _, _ in weighed)
    for weight, name, shown in weighed[:_MAX_NAMED]:
        if math.exp(weight - best) / total >= _MIN_PROBABILITY:
            yield PossibleEncoding(name, shown)


def _shown(text: str) -> str:
    """Return the first characters of a text that are not ASCII, with what surrounds them, or nothing if none can be."""
    at = next((number for number, each in enumerate(text) if not each.isascii() and each.isprintable()), None)
    if at is None:
        return ""
    line = text[max(0, text.rfind("\n", 0, at) + 1, at - 4) :].partition("\n")[0]
    return "".join(each if each.isprintable() else " " for each in line)[:_MAX_SHOWN].strip()


def _log_likelihood(encoding: _Encoding, text: str) -> float:
    """Return the logarithm of how likely the characters are that are not ASCII, given the encoding."""
    total, before = 0.0, ""
    for char in text:
        if not char.isascii():
            value = int.from_bytes(char.encode(encoding.codec, "replace"))
            is_second_half = value > 0xFF and value & 0xFF < 0xA1  # noqa: PLR2004 - where EUC has no bytes
            share = next(
                (
                    share / size
                    for first, last, share, size in encoding.areas
                    if first <= value <= last and not (is_second_half and encoding.codec in {"gb18030", "cp949"})
                ),
                encoding.rest / 10_000,
            )
            in_a_row = encoding.codec == "cp1252" and before != "" and not before.isascii()
            total += math.log(share * (_ACCENTS_IN_A_ROW if in_a_row else 1.0))
        before = char
    return total
