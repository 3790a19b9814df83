"""Append-only copy of what money depends on, outside the database: intents, ids, and how sends were settled.

Each line is a CRC-32 in eight hex digits, a space, and a JSON object. The journal is written before the database: a
line is on disk before its transaction commits. So each of the two copies is enough to know what was paid.

    epoch   a run began                     intent  a request is about to leave
    id      the provider named a task       settle  a send was settled without an id
    saved   every output is a checked file  retry   the user asked for another purchase
    held    only the user can decide what became of a send, or which task an id belongs to
    bonus   a failed task has outputs after all

A torn last line is the normal trace of a crash and is cut off. A bad line before it is corruption.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import DiskError, StateError
from runner.lifecycle.task import State
from runner.store.directories import sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.lifecycle.task import Task

Line = dict[str, Any]
#: bytes of the longest line that this program writes
_LONGEST = 1 << 20
#: bytes before an offset that identify a journal
_TOLD_BY = 4096


@dataclass(frozen=True, slots=True)
class Tail:
    """Lines of a journal behind an offset, and the offset where they end."""

    lines: tuple[Line, ...]
    end: int


@dataclass(frozen=True, slots=True)
class Mark:
    """An offset in a journal, and a digest of the bytes before it.

    The digest identifies the journal, since every run begins with a line that no other run has.
    """

    end: int
    digest: str


def mark(path: Path, end: int) -> Mark:
    """Return the mark of a journal at an offset.

    Raises DiskError.
    """
    start = max(0, end - _TOLD_BY)
    try:
        with path.open("rb") as file:
            file.seek(start)
            return Mark(end, sha256(file.read(end - start)).hexdigest()[:32])
    except OSError as error:
        raise _full(path, error) from None


def encode(line: Line) -> bytes:
    """Return the bytes of one line, with its checksum."""
    text = orjson.dumps(line)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def decode(raw: bytes) -> Line | None:
    """Return the line in these bytes, or None if it is incomplete or its checksum is wrong."""
    if len(raw) < 10 or not raw.endswith(b"\n"):  # noqa: PLR2004 - checksum, space, line feed
        return None
    text = raw[9:-1]
    try:
        if int(raw[:8], 16) != zlib.crc32(text):
            return None
        line = orjson.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def read(path: Path, offset: int = 0) -> Iterator[tuple[Line, int]]:
    """Yield each complete line from `offset` on, with the offset behind it.

    Raises StateError if a line before the last one is damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while raw := file.readline(_LONGEST):
                offset += len(raw)
                line = decode(raw)
                if line is None:
                    _only_torn(path, file.read(1), offset - len(raw))
                    return
                yield line, offset
    except (FileNotFoundError, NotADirectoryError):
        return


def _only_torn(path: Path, following: bytes, offset: int) -> None:
    if following:
        raise StateError(
            f"{path}: a damaged line at byte {offset}, and more behind it",
            hint="Keep a copy of the job directory; then `runner recover`.",
        )


def tail(path: Path, offset: int) -> Tail:
    """Return the lines behind `offset`, which a database in that state has not seen.

    Raises StateError.
    """
    lines, end = [], offset
    for line, behind in read(path, offset):
        lines.append(line)
        end = behind
    return Tail(tuple(lines), end)


class Journal:
    """Journal of one job, open for appending.

    Opening cuts it to `end`, the offset behind its last complete line. Raises DiskError.
    """

    def __init__(self, path: Path, end: int) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o600)
            os.ftruncate(self._file, end)
            os.fsync(self._file)
            sync(path.parent)
        except OSError as error:
            raise _full(path, error) from None
        self.end = end
        #: True if part of a line may stand behind `end`
        self._torn = False

    def append(self, lines: Sequence[Line]) -> int:
        """Write the lines to disk and return the offset behind them.

        Raises DiskError, and then none of the lines is in the journal.
        """
        data = b"".join(encode(line) for line in lines)
        try:
            if self._torn:
                os.ftruncate(self._file, self.end)
            self._torn, written = True, 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fdatasync(self._file)
        except OSError as error:
            self._cut()
            raise _full(self.path, error) from error
        self._torn = False
        self.end += len(data)
        return self.end

    def close(self) -> None:
        os.close(self._file)

    def _cut(self) -> None:
        """Remove an incomplete line.

        If that fails too, it is tried again before the next line, and a reader ignores a torn last line.
        """
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self.end)
            self._torn = False


def _full(path: Path, error: OSError) -> DiskError:
    return DiskError(
        f"{path}: {error.strerror}", hint="Make room or mend the permissions, then run the same command again."
    )


def of_change(before: Task, after: Task) -> Line | None:
    """Return the journal line for a change of a task, or None if the change needs none."""
    if after.state is State.SUBMITTING:
        return _intent(after)
    if after.remote_id not in {None, before.remote_id}:
        line = {"t": "id", "ref": after.ref, "remote_id": after.remote_id, "adopted": after.adopted}
        line |= {"evidence": after.evidence} if after.evidence else {}
        return line if before.state is not State.QUEUED else {**_intent(after), **line}
    if after.state is State.DONE:
        files = [
            {
                "number": out.number,
                "file": out.file,
                "bytes": out.bytes,
                "sha256": out.sha256,
                "media_type": out.media_type,
            }
            for out in after.outputs
        ]
        return {"t": "saved", "ref": after.ref, "files": files, "reason": after.fault.reason}
    if after.generation != before.generation:
        return {"t": "retry", "ref": before.ref, "generation": after.generation, "next": after.ref}
    return _settlement(before, after) if before.state is not after.state else None


def _settlement(before: Task, after: Task) -> Line | None:
    match after.state:
        case State.READY if before.state is State.FAILED:
            return {"t": "bonus", "ref": after.ref, "spent": after.spent}
        case State.QUEUED | State.FAILED | State.HELD:
            return _settle(after, before.ref)
        case _:
            return None


def unsent(task: Task) -> Line:
    """Return the line that withdraws an intent: nothing was sent, and the task is as before."""
    return _settle(task, task.ref)


def _settle(task: Task, ref: str) -> Line:
    error = task.fault
    return {
        # without a line for a held task, a rebuilt database would reconcile it, and could buy it again unasked
        "t": "held" if task.state is State.HELD else "settle",
        "ref": ref,
        "state": task.state,
        "evidence": task.evidence,
        "reason": error.reason,
        "message": error.message,
        "spent": task.spent,
        "doubts": task.doubts,
        "attempts": task.attempts,
        "throttles": task.throttles,
    }


def _intent(task: Task) -> Line:
    sent = task.sent
    return {
        "t": "intent",
        "ref": task.ref,
        "key": task.key,
        "generation": task.generation,
        "provider": task.provider,
        "operation": task.operation,
        "model": task.model,
        "fingerprint": task.fingerprint,
        "slots": task.slots,
        "cost": task.cost,
        "spent": task.spent,
        "boot": sent.boot if sent else "",
        "seconds": sent.seconds if sent else 0.0,
        "at": task.submitted_at,
        "name": task.name,
        "request": task.request.decode(),
        **({"pictures": task.pictures} if task.pictures else {}),
    }
