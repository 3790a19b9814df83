"""Read YAML into plain values that know their line and column, without running anything of a file.

The reader rejects duplicate keys, keys that are not text, tags, merge keys, a second document, nesting deeper than 64
levels, and aliases that expand to too many values. Each error has its position. Reading stops at a second document, at
too deep nesting, at too many alias values and at a syntax error, and continues after the others.
"""

from __future__ import annotations

import re
from sys import intern
from typing import TYPE_CHECKING, Any, Final

import yaml

from runner.errors import Problem
from runner.manifest.report import Report
from runner.manifest.scalars import TELLING, resolve
from runner.manifest.syntax import TAB, explained, wide_colon
from runner.manifest.values import COLUMN_BITS, Mapping, Sequence, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES: Final = 64 << 20
MAX_DEPTH: Final = 64
MAX_ALIASES: Final = 1_000
#: largest number of nodes that aliases add, each counted as often as a traversal meets it
MAX_EXPANDED: Final = 100_000

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOM: Final = b"\xef\xbb\xbf"
#: line ends of YAML, in UTF-8
_LINE_END: Final = re.compile(rb"\r\n|[\n\r]|\xc2\x85|\xe2\x80[\xa8\xa9]")
_UNSET: Final = object()
_SKIP: Final = object()
_MERGE: Final = object()


class _StopReadingError(Exception):
    """The rest of the file cannot be understood."""


class _Frame:
    """Mapping or sequence that is still open."""

    __slots__ = ("anchor", "before", "height", "key", "key_at", "node")

    def __init__(self, node: Mapping | Sequence, anchor: str | None, before: int) -> None:
        self.node = node
        self.anchor = anchor
        self.before = before
        self.height = 1
        self.key: Any = _UNSET
        self.key_at = 0


def read(text: bytes, file: str) -> Mapping:
    """Return the mapping that a file consists of. Raise ManifestError with all errors of the file."""
    value, errors = scan(text, file)
    diagnostics = Report(file)
    diagnostics.extend(errors)
    if not errors and not isinstance(value, Mapping):
        diagnostics.add((1, 1), "", "expected a mapping (`key: value` lines)", "begin with `version: 1`")
    diagnostics.raise_any()
    assert isinstance(value, Mapping)  # noqa: S101 - an error was raised above otherwise
    return value


def scan(text: bytes, file: str) -> tuple[Any, list[Problem]]:
    """Return the value that a file consists of, None if reading had to stop, and all errors."""
    reader = _Reader(file)
    try:
        return reader.read(text), reader.problems
    except _StopReadingError:
        return None, reader.problems


class _Reader:
    """Builder of the value of one file from its YAML events. Collects errors."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.root: Any = _UNSET
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int, int] | None] = {}
        self.nodes = self.aliases = self.expanded = 0

    def read(self, text: bytes) -> Any:
        if len(text) > MAX_BYTES:
            message = f"the file has {len(text) >> 20} MiB; at most 64 can be read"
            self._stop(0, message, "put the rows into a .jsonl file")
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            self._stop(_offset(text, error.start), "not UTF-8", "save the file with the encoding UTF-8")
        data = text.removeprefix(_BOM)
        try:
            self._consume(_LOADER(data).get_event)
        except yaml.MarkedYAMLError as error:
            self._syntax(data, error)
        except yaml.reader.ReaderError as error:
            self._unreadable(data, error)
        if self.root is _UNSET:
            self._stop(0, "the file is empty", "begin with an example of the README")
        return self.root

    def _consume(self, following: Callable[[], yaml.Event | None]) -> None:
        handlers: dict[type[yaml.Event], Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open_mapping,
            yaml.SequenceStartEvent: self._open_sequence,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        while (event := following()) is not None:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)

    def _document(self, event: yaml.DocumentStartEvent) -> None:
        if self.root is not _UNSET:
            self._stop(
                _at(event), "a second document begins here", "one file is one job: delete `---` and what follows"
            )

    def _scalar(self, event: Any) -> None:
        value: Any = event.value
        mark = event.start_mark
        at = (mark.line + 1 << COLUMN_BITS) + mark.column + 1
        self.nodes += 1
        if event.tag is not None:
            self._tag(event)
        if event.implicit[0] and value[:1] in TELLING:
            value = self._plain(value, at)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1, 0)
        self._put(value, at)

    def _plain(self, text: str, at: int) -> Any:
        if text == "<<" and self.stack and isinstance(self.stack[-1].node, Mapping) and self.stack[-1].key is _UNSET:
            return _MERGE
        try:
            return resolve(text)
        except OverflowError:
            self._problem(at, "a whole number beyond 64 bits", "put it in quotes if it is an identifier")
            return text

    def _put(self, value: Any, at: int) -> None:
        if not self.stack:
            self.root = value
            return
        frame = self.stack[-1]
        node = frame.node
        if isinstance(node, Sequence):
            node.append(value)
            node.places.append(at)
        elif frame.key is _UNSET:
            frame.key_at = at
            frame.key = self._key(node, value, at)
        else:
            if frame.key is not _SKIP:
                node[frame.key] = value
                node.places.extend((frame.key_at, at))
            frame.key = _UNSET

    def _key(self, node: Mapping, value: Any, at: int) -> Any:
        if type(value) is not str:
            self._problem(at, *_bad_key(value))
        elif value in node:
            line, _ = unpack(node.key_at(value))
            self._problem(at, f"the key `{value}` stands here twice, first in line {line}", "keep one of the two")
        else:
            return intern(value)
        return _SKIP

    def _open_mapping(self, event: yaml.MappingStartEvent) -> None:
        self._open(event, Mapping(_at(event)))

    def _open_sequence(self, event: yaml.SequenceStartEvent) -> None:
        self._open(event, Sequence(_at(event)))

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, node: Mapping | Sequence) -> None:
        if event.tag is not None:
            self._tag(event)
        if len(self.stack) >= MAX_DEPTH:
            self._stop(node.at, f"nested deeper than {MAX_DEPTH} levels", "no manifest needs that; check the brackets")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(node, event.anchor, self.nodes))
        self.nodes += 1

    def _close(self, _event: yaml.Event) -> None:
        frame = self.stack.pop()
        if self.stack and self.stack[-1].height <= frame.height:
            self.stack[-1].height = frame.height + 1
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.node, self.nodes - frame.before, frame.height)
        self._put(frame.node, frame.node.at)

    def _alias(self, event: Any) -> None:
        at, name = _at(event), event.anchor
        known = self.anchors.get(name)
        if known is None:
            reason = "stands inside its own anchor" if name in self.anchors else "has no anchor above it"
            self._problem(at, f"the alias `*{name}` {reason}", "put the text in quotes if `*` is part of it")
        value, size, height = known or (None, 1, 0)
        self._grow(at, size, height)
        self._put(value, at)

    def _grow(self, at: int, size: int, height: int) -> None:
        self.aliases += 1
        self.expanded += size
        self.nodes += size
        if self.aliases > MAX_ALIASES or self.expanded > MAX_EXPANDED:
            self._stop(at, f"aliases: more than {MAX_ALIASES:,}, or more than {MAX_EXPANDED:,} values through them",
                       "write the values out, or put them into a data file")  # fmt: skip
        if len(self.stack) + height > MAX_DEPTH:
            self._stop(at, f"nested deeper than {MAX_DEPTH} levels through aliases", "write the values out")
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, height + 1)

    def _tag(self, event: Any) -> None:
        shown = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        self._problem(
            _at(event), f"the tag `{shown}` is not allowed", "write the value without it, in quotes if it is text"
        )

    def _syntax(self, data: bytes, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        lines = [each.decode() for each in _LINE_END.split(data)]
        if mark and (colon := wide_colon(lines, int(mark.line))):
            line, column, *message_and_hint = colon
            self._stop((line + 1 << COLUMN_BITS) + column + 1, *message_and_hint)
        at = (mark.line + 1 << COLUMN_BITS) + mark.column + 1 if mark else 0
        parser_message = " ".join(filter(None, (error.context, error.problem)))
        if mark and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
            parser_message = TAB
        self._stop(at, *explained(parser_message))

    def _unreadable(self, data: bytes, error: Any) -> None:
        pure = error.encoding == "unicode"  # the parser in Python counts characters, the one in C bytes
        position = len(data.decode()[: error.position].encode()) if pure else error.position
        self._stop(_offset(data, position), "a control character", "delete it, or write it as \\x.. in double quotes")

    def _problem(self, at: int, message: str, hint: str) -> None:
        self.problems.append(Problem(self.file, *unpack(at), "", message, hint))

    def _stop(self, at: int, message: str, hint: str) -> None:
        self._problem(at, message, hint)
        raise _StopReadingError


def _at(event: Any) -> int:
    mark = event.start_mark
    return (int(mark.line) + 1 << COLUMN_BITS) + int(mark.column) + 1


def _offset(text: bytes, position: int) -> int:
    before = _LINE_END.split(text[:position])
    return (len(before) << COLUMN_BITS) + len(before[-1].decode("utf-8", "replace")) + 1


def _bad_key(value: Any) -> tuple[str, str]:
    if value is _MERGE:
        return "the merge key `<<` is not supported", "write the keys out"
    if isinstance(value, Mapping):
        return "a mapping stands where a key is expected", 'a template needs quotes: "{{ name }}"'
    if isinstance(value, Sequence):
        return "a list stands where a key is expected", "put a text that begins with `[` in quotes"
    return "a key must be text", "put the key in quotes"
