"""Bring `results.jsonl` up to date by copying the lines that have not changed, so that the end of a run is short.

The new file is written beside the old one and replaces it, so a reader sees one whole file or the other. An index in
the state directory knows of which task each line is, and how long it is. It names the file that it fits by inode, size
and time of change, and holds a checksum: where anything differs, every line is written anew.
"""

from __future__ import annotations

import os
import sys
import zlib
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import orjson

from runner.files import atomic_write, open_to_read
from runner.report.results import result_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    #: called after each step with the part that is written, from 0 to 1; what it raises ends the work
    OnStep = Callable[[float], None]

#: a file of an older version is written anew, with the fields of today in every line
_FORMAT = 2
#: type codes of arrays, of 8 and 4 bytes: ids of tasks, and lengths of their lines in bytes
_ID, _LENGTH = "Q", "I"
#: bytes that are written to disk at once, so that the last sync has little left to do
_STEP_BYTES = 16 << 20
#: unchanged lines up to this size go through memory, longer ranges from file to file
_BUFFER_BYTES = 256 << 10
#: changed tasks that are read from the store at once
_TASKS_AT_ONCE = 500


class UnfitIndexError(Exception):
    """The index is not of these results, so that every line has to be written."""


@dataclass(slots=True)
class ResultsIndex:
    """Which task each line of a results.jsonl is of, and how long it is."""

    #: mark of the results
    mark: str = ""
    #: arrangement of the job's tasks
    arrangement: int = 0
    #: inode, size and time of change (ns) of the file
    file: tuple[int, int, int] = (0, 0, 0)
    ids: array[int] = field(default_factory=lambda: array(_ID))
    lengths: array[int] = field(default_factory=lambda: array(_LENGTH))

    @classmethod
    def read(cls, path: Path, results: Path, count: int) -> Self:
        """Read the index of a results file of `count` lines. Raises UnfitIndexError if there is none that fits."""
        size = count * (array(_ID).itemsize + array(_LENGTH).itemsize)
        try:
            with open_to_read(path) as file:
                head, body = orjson.loads(file.readline(4096)), memoryview(file.read(size + 1))
            index = cls(head["mark"], head["arrangement"], tuple(head["file"]))
            if [_FORMAT, sys.byteorder, zlib.crc32(body)] != [head["format"], head["order"], head["crc32"]]:
                raise UnfitIndexError
            index.ids.frombytes(body[: count * index.ids.itemsize])
            index.lengths.frombytes(body[count * index.ids.itemsize :])
            fits = index.file == _identity(results.lstat())
        except (OSError, ValueError, LookupError, TypeError):
            raise UnfitIndexError from None
        if not fits or not len(index.ids) == len(index.lengths) == count:
            raise UnfitIndexError
        return index

    def write(self, path: Path) -> None:
        """Write the index atomically. Raises OSError."""
        body = self.ids.tobytes() + self.lengths.tobytes()
        head = {
            "format": _FORMAT,
            "order": sys.byteorder,
            "mark": self.mark,
            "arrangement": self.arrangement,
            "file": self.file,
            "crc32": zlib.crc32(body),
        }
        with atomic_write(path, 0o600) as file:
            file.write(orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE))
            file.write(body)


def write_all(path: Path, pages: Iterable[Sequence[Mapping[str, Any]]], total: int, on_step: OnStep) -> ResultsIndex:
    """Write a line for each row, in pages, replace the file atomically, and return its index.

    `total` is the expected number of rows. Raises OSError and what `on_step` raises; then the old file is untouched.
    """
    index = ResultsIndex()
    with _replacement(path) as file:
        output = _Output(file.fileno())
        for page in pages:
            for row in page:
                index.ids.append(row["id"])
                index.lengths.append(output.write(_line(row)))
            on_step(min(1.0, len(index.ids) / max(1, total)))
        output.flush()
        index.file = _identity(os.fstat(file.fileno()))
    return index


def write_changes(
    path: Path,
    index: ResultsIndex,
    changed: Iterable[int],
    rows_of: Callable[[Sequence[int]], Iterable[Mapping[str, Any]]],
    on_step: OnStep,
) -> ResultsIndex:
    """Write the lines of changed tasks anew, copy all others, replace the file atomically, and return its new index.

    `rows_of` returns the rows of some ids. Raises UnfitIndexError if a changed task has no line at its place, OSError,
    and what `on_step` raises; then the old file is untouched.
    """
    places = _places(index.ids, changed)
    lengths, size = index.lengths[:], index.file[1]
    with open_to_read(path) as old, _replacement(path) as file:
        if _identity(os.fstat(old.fileno())) != index.file:
            raise UnfitIndexError
        output = _Output(file.fileno())
        offset, begin = 0, 0  # of the old file: bytes that are copied or replaced, and the line there

        def copy(until: int) -> None:
            nonlocal offset
            while offset < until:
                count = output.copy(old.fileno(), offset, min(until - offset, _STEP_BYTES))
                offset += count
                on_step(min(1.0, offset / max(1, size)))

        for start in range(0, len(places), _TASKS_AT_ONCE):
            some = places[start : start + _TASKS_AT_ONCE]
            rows = {row["id"]: row for row in rows_of([index.ids[place] for place in some])}
            for place in some:
                row, length = rows.get(index.ids[place]), index.lengths[place]
                copy(offset + sum(index.lengths[begin:place]))
                if row is None or not _is_line_of(row, os.pread(old.fileno(), length, offset)):
                    raise UnfitIndexError
                lengths[place] = output.write(_line(row))
                offset, begin = offset + length, place + 1
        copy(size)
        output.flush()
        return replace(index, lengths=lengths, file=_identity(os.fstat(file.fileno())))


def _replacement(path: Path) -> AbstractContextManager[BinaryIO]:
    """Return a file that replaces the results; the job's lock is held, so that there is one at a time."""
    return atomic_write(path, temporary=path.with_name(f".{path.name}.new"))


def _places(ids: array[int], changed: Iterable[int]) -> list[int]:
    """Return the sorted places of some ids. Raises UnfitIndexError if one has none.

    In most jobs ids rise with the places, and then a million of them need not be read.
    """
    found, missed = [], set()
    for task_id in changed:
        place = bisect_left(ids, task_id)
        if place < len(ids) and ids[place] == task_id:
            found.append(place)
        else:
            missed.add(task_id)
    if missed:
        others = [place for place, task_id in enumerate(ids) if task_id in missed]
        if len(others) != len(missed):
            raise UnfitIndexError
        found += others
    return sorted(found)


class _Output:
    """A new file that is written through one buffer, and synced in steps."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._unsynced = 0
        #: True until the system refuses to copy from file to file
        self._can_copy = hasattr(os, "copy_file_range")

    def write(self, data: bytes) -> int:
        """Write some bytes, and return how many."""
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self.flush()
        return len(data)

    def copy(self, source: int, offset: int, count: int) -> int:
        """Copy up to `count` bytes from another file, and return how many. Raises OSError if it has ended."""
        if count > _BUFFER_BYTES and self._can_copy:
            self.flush()
            try:
                copied = os.copy_file_range(source, self._descriptor, count, offset_src=offset)
            except OSError:  # another file system, or a system that is too old: through memory
                copied, self._can_copy = 0, False
            if copied:
                self._wrote(copied)
                return copied
        data = os.pread(source, min(count, 1 << 20), offset)
        if not data:
            raise OSError("results.jsonl became shorter while it was read")
        return self.write(data)

    def flush(self) -> None:
        """Write what is buffered. Raises OSError."""
        data = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while data:
            written = os.write(self._descriptor, data)
            data = data[written:]
            self._wrote(written)

    def _wrote(self, count: int) -> None:
        self._unsynced += count
        if self._unsynced >= _STEP_BYTES:
            self._unsynced = 0
            os.fdatasync(self._descriptor) if hasattr(os, "fdatasync") else os.fsync(self._descriptor)


def _line(row: Mapping[str, Any]) -> bytes:
    """Return the line of a task, and behind it those of the rows that share its purchase."""
    line = orjson.dumps(result_dict(row), option=orjson.OPT_APPEND_NEWLINE)
    for shared in row.get("shared", ()):
        line += orjson.dumps(result_dict(shared), option=orjson.OPT_APPEND_NEWLINE)
    return line


def _is_line_of(row: Mapping[str, Any], line: bytes) -> bool:
    """Return whether a line of the old file is that of a task, with those of the rows that share its purchase."""
    key = orjson.dumps(row["key"])
    if not line.startswith(b'{"key":%b,' % key) or not line.endswith(b"\n"):
        return False
    return line.find(b"\n") == len(line) - 1 or line.count(b"\n") == 1 + line.count(b'"same_as":%b}\n' % key)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
