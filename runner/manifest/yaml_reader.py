"""Read YAML into plain values that know their line and column, without running anything of a file.

The reader rejects duplicate keys, keys that are not text, tags, merge keys, a second document, nesting deeper than 64
levels, and aliases that expand to too many values. Each error has its position. Reading stops at a second document, at
too deep nesting, at too many alias values and at a syntax error, and continues after the others.

Plain scalars follow the core schema of YAML 1.2: `9:16`, `no`, `on`, `012`, `1_000` and dates are text. A number whose
writing says more than its value, such as `1.10` or `0x10`, remembers it: where text is wanted, it is what was written.
"""

from __future__ import annotations

import math
import re
from sys import intern
from typing import TYPE_CHECKING, Any, Final

import yaml

from runner.errors import Diagnostic
from runner.manifest.diagnostics import TAB, Diagnostics, explain_syntax_error, find_wide_colon
from runner.manifest.positions import COLUMN_BITS, YamlMapping, YamlSequence, unpack_position
from runner.text import number_as_written

if TYPE_CHECKING:
    from collections.abc import Callable

#: largest size of a file
MAX_BYTES: Final = 64 << 20
#: largest number of levels
MAX_DEPTH: Final = 64
#: largest number of aliases
MAX_ALIASES: Final = 1_000
#: largest number of nodes that aliases add, each counted as often as a traversal meets it
MAX_EXPANDED: Final = 100_000
#: whole numbers that orjson, and so a task's key, can represent
INTEGERS = range(-(2**63), 2**64)
Scalar = str | int | float | bool | None
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOM: Final = b"\xef\xbb\xbf"
#: line ends of YAML, in UTF-8
_LINE_END: Final = re.compile(rb"\r\n|[\n\r]|\xc2\x85|\xe2\x80[\xa8\xa9]")
#: what begins a comment, and one that looks like a part of the text before it
_COMMENT: Final = b" #"
_CUT_OFF: Final = re.compile(r" #[^\s#!]")
_MAX_WARNINGS: Final = 50
#: in place of a key that is not known yet, of a key whose value is dropped, and of the merge key
_UNSET: Final = object()
_SKIP: Final = object()
_MERGE: Final = object()
_CONSTANTS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NUMBER_STARTS = frozenset("-+.0123456789")
_BASES = {"0x": 16, "0o": 8}
#: largest number of digits to convert; int() rejects 4,300 of them
_MAX_DIGITS = 400
#: first characters of plain scalars that may be a merge key or something else than text; empty for the empty scalar
NON_TEXT_STARTS = _NUMBER_STARTS | {constant[:1] for constant in _CONSTANTS} | {"<"}


def read(text: bytes, file: str) -> YamlMapping:
    """Return the mapping that a file consists of. Raise ManifestError with all errors of the file."""
    value, errors = scan(text, file)
    diagnostics = Diagnostics(file)
    diagnostics.extend(errors)
    if not errors and not isinstance(value, YamlMapping):
        diagnostics.add((1, 1), "", "expected a mapping (`key: value` lines)", "begin with `version: 1`")
    diagnostics.raise_any()
    assert isinstance(value, YamlMapping)  # noqa: S101 - an error was raised above otherwise
    return value


def scan(text: bytes, file: str, warnings: list[Diagnostic] | None = None) -> tuple[Any, list[Diagnostic]]:
    """Return the value that a file consists of, None if reading had to stop, and all errors.

    Add to `warnings` each text that a comment seems to have cut short.
    """
    reader = _YamlReader(file, warnings)
    try:
        return reader.read(text), reader.diagnostics
    except _StopReadingError:
        return None, reader.diagnostics


def resolve_scalar(text: str) -> Scalar:
    """Return the value of a plain scalar. Raise OverflowError for whole numbers beyond 64 bits."""
    if not text or text[0] not in _NUMBER_STARTS:
        return _CONSTANTS.get(text, text)
    if len(text) > _MAX_DIGITS and text.strip("+-").isdigit():
        raise OverflowError
    if _INTEGER.fullmatch(text):
        base = _BASES.get(text[:2])
        number = int(text[2:], base) if base else int(text)
        if number not in INTEGERS:
            raise OverflowError
        return number
    if _FLOAT.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    return text


class _StopReadingError(Exception):
    """The rest of the file cannot be understood."""


class _Frame:
    """Mapping or sequence that is still open."""

    __slots__ = ("anchor", "before", "depth", "key", "key_position", "node")

    def __init__(self, node: YamlMapping | YamlSequence, anchor: str | None, before: int) -> None:
        self.node = node
        self.anchor = anchor
        #: number of nodes of the file before this one
        self.before = before
        #: number of levels, including those of aliases
        self.depth = 1
        self.key: Any = _UNSET
        self.key_position = 0


class _YamlReader:
    """Builder of the value of one file from its YAML events. Collects errors."""

    def __init__(self, file: str, warnings: list[Diagnostic] | None = None) -> None:
        self.file = file
        self.warnings = warnings
        #: the file, if there are comments in it that may be none
        self._text = ""
        self.diagnostics: list[Diagnostic] = []
        self.root: Any = _UNSET
        self.stack: list[_Frame] = []
        #: value, number of nodes and levels of each anchor, None inside of it
        self.anchors: dict[str, tuple[Any, int, int] | None] = {}
        self.nodes = self.aliases = self.expanded = 0

    def read(self, text: bytes) -> Any:
        if len(text) > MAX_BYTES:
            message = f"the file has {len(text) >> 20} MiB; at most 64 can be read"
            self._stop(0, message, "put the rows into a .jsonl file")
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            self._stop(_byte_position(text, error.start), "not UTF-8", "save the file with the encoding UTF-8")
        data = text.removeprefix(_BOM)
        if self.warnings is not None and _COMMENT in data:
            self._text = data.decode()
        try:
            self._consume(_LOADER(data).get_event)
        except yaml.MarkedYAMLError as error:
            self._stop_at_syntax_error(data, error)
        except yaml.reader.ReaderError as error:
            self._stop_at_control_character(data, error)
        if self.root is _UNSET:
            self._stop(0, "the file is empty", "begin with an example of the README")
        return self.root

    def _consume(self, following: Callable[[], yaml.Event | None]) -> None:
        handlers: dict[type[yaml.Event], Callable[[Any], None]] = {
            yaml.ScalarEvent: self._add_scalar,
            yaml.MappingStartEvent: self._open_mapping,
            yaml.SequenceStartEvent: self._open_sequence,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._add_alias,
            yaml.DocumentStartEvent: self._reject_second_document,
        }
        while (event := following()) is not None:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)

    def _reject_second_document(self, event: yaml.DocumentStartEvent) -> None:
        if self.root is not _UNSET:
            self._stop(
                _event_position(event),
                "a second document begins here",
                "one file is one job: delete `---` and what follows",
            )

    def _add_scalar(self, event: Any) -> None:
        value: Any = event.value
        mark = event.start_mark
        at = (mark.line + 1 << COLUMN_BITS) + mark.column + 1
        self.nodes += 1
        if event.tag is not None:
            self._reject_tag(event)
        if event.implicit[0] and value[:1] in NON_TEXT_STARTS:
            value = self._resolve_plain(value, at)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1, 0)
        if self._text and event.implicit[0] and type(value) is str:
            self._warn_of_comment(event, at)
        self._add_value(value, at)

    def _warn_of_comment(self, event: Any, at: int) -> None:
        """Warn of a text behind which ` #` begins a comment that looks like a part of it: `poster #1`, `#FF8800`."""
        end = event.end_mark.index
        rest = self._text[end : end + 60].partition("\n")[0].rstrip()
        if self.warnings is not None and _CUT_OFF.match(rest) and len(self.warnings) < _MAX_WARNINGS:
            message = f"ends before `{rest.strip()[:40]}`, since ` #` begins a comment"
            hint = "put the text in quotes if that belongs to it, or write a blank behind the `#` if not"
            self.warnings.append(Diagnostic(self.file, *unpack_position(at), "", message, hint))

    def _resolve_plain(self, text: str, at: int) -> Any:
        if (
            text == "<<"
            and self.stack
            and isinstance(self.stack[-1].node, YamlMapping)
            and self.stack[-1].key is _UNSET
        ):
            return _MERGE
        try:
            value = resolve_scalar(text)
            return number_as_written(value, text) if type(value) is int or type(value) is float else value
        except OverflowError:
            self._add_error(at, "a whole number beyond 64 bits", "put it in quotes if it is an identifier")
            return text

    def _add_value(self, value: Any, at: int) -> None:
        if not self.stack:
            self.root = value
            return
        frame = self.stack[-1]
        node = frame.node
        if isinstance(node, YamlSequence):
            node.append(value)
            node.positions.append(at)
        elif frame.key is _UNSET:
            frame.key_position = at
            frame.key = self._check_key(node, value, at)
        else:
            if frame.key is not _SKIP:
                node[frame.key] = value
                node.positions.extend((frame.key_position, at))
            frame.key = _UNSET

    def _check_key(self, node: YamlMapping, value: Any, at: int) -> Any:
        if type(value) is not str:
            self._add_error(at, *_key_error(value))
        elif value in node:
            line, _ = unpack_position(node.key_position(value))
            self._add_error(at, f"the key `{value}` stands here twice, first in line {line}", "keep one of the two")
        else:
            return intern(value)
        return _SKIP

    def _open_mapping(self, event: yaml.MappingStartEvent) -> None:
        self._open(event, YamlMapping(_event_position(event)))

    def _open_sequence(self, event: yaml.SequenceStartEvent) -> None:
        self._open(event, YamlSequence(_event_position(event)))

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, node: YamlMapping | YamlSequence) -> None:
        if event.tag is not None:
            self._reject_tag(event)
        if len(self.stack) >= MAX_DEPTH:
            self._stop(
                node.position, f"nested deeper than {MAX_DEPTH} levels", "no manifest needs that; check the brackets"
            )
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(node, event.anchor, self.nodes))
        self.nodes += 1

    def _close(self, _event: yaml.Event) -> None:
        frame = self.stack.pop()
        if self.stack and self.stack[-1].depth <= frame.depth:
            self.stack[-1].depth = frame.depth + 1
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.node, self.nodes - frame.before, frame.depth)
        self._add_value(frame.node, frame.node.position)

    def _add_alias(self, event: Any) -> None:
        at, name = _event_position(event), event.anchor
        known = self.anchors.get(name)
        if known is None:
            reason = "stands inside its own anchor" if name in self.anchors else "has no anchor above it"
            self._add_error(at, f"the alias `*{name}` {reason}", "put the text in quotes if `*` is part of it")
        value, size, height = known or (None, 1, 0)
        self.aliases += 1
        self.expanded += size
        self.nodes += size
        if self.aliases > MAX_ALIASES or self.expanded > MAX_EXPANDED:
            self._stop(at, f"aliases: more than {MAX_ALIASES:,}, or more than {MAX_EXPANDED:,} values through them",
                       "write the values out, or put them into a data file")  # fmt: skip
        if len(self.stack) + height > MAX_DEPTH:
            self._stop(at, f"nested deeper than {MAX_DEPTH} levels through aliases", "write the values out")
        if self.stack:
            self.stack[-1].depth = max(self.stack[-1].depth, height + 1)
        self._add_value(value, at)

    def _reject_tag(self, event: Any) -> None:
        shown = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        self._add_error(
            _event_position(event),
            f"the tag `{shown}` is not allowed",
            "write the value without it, in quotes if it is text",
        )

    def _stop_at_syntax_error(self, data: bytes, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        lines = [each.decode() for each in _LINE_END.split(data)]
        if mark and (colon := find_wide_colon(lines, int(mark.line))):
            line, column, *message_and_hint = colon
            self._stop((line + 1 << COLUMN_BITS) + column + 1, *message_and_hint)
        at = (mark.line + 1 << COLUMN_BITS) + mark.column + 1 if mark else 0
        parser_message = " ".join(filter(None, (error.context, error.problem)))
        if mark and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
            parser_message = TAB
        self._stop(at, *explain_syntax_error(parser_message))

    def _stop_at_control_character(self, data: bytes, error: Any) -> None:
        pure = error.encoding == "unicode"  # the parser in Python counts characters, the one in C bytes
        position = len(data.decode()[: error.position].encode()) if pure else error.position
        self._stop(
            _byte_position(data, position), "a control character", "delete it, or write it as \\x.. in double quotes"
        )

    def _add_error(self, at: int, message: str, hint: str) -> None:
        self.diagnostics.append(Diagnostic(self.file, *unpack_position(at), "", message, hint))

    def _stop(self, at: int, message: str, hint: str) -> None:
        self._add_error(at, message, hint)
        raise _StopReadingError


def _event_position(event: Any) -> int:
    mark = event.start_mark
    return (int(mark.line) + 1 << COLUMN_BITS) + int(mark.column) + 1


def _byte_position(text: bytes, position: int) -> int:
    before = _LINE_END.split(text[:position])
    return (len(before) << COLUMN_BITS) + len(before[-1].decode("utf-8", "replace")) + 1


def _key_error(value: Any) -> tuple[str, str]:
    if value is _MERGE:
        return "the merge key `<<` is not supported", "write the keys out"
    if isinstance(value, YamlMapping):
        return "a mapping stands where a key is expected", 'a template needs quotes: "{{ name }}"'
    if isinstance(value, YamlSequence):
        return "a list stands where a key is expected", "put a text that begins with `[` in quotes"
    return "a key must be text", "put the key in quotes"
