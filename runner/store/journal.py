"""An append-only copy of what money depends on, outside the database: intents, ids, and how sends were settled.

Each line is a CRC-32 in eight hex digits, a space, and a JSON object. Journal first, database second: a line is on the
disk before the transaction it belongs to commits, so either copy is enough to know what was paid (reliability.md 6).

    epoch   a run began                     intent  a request is about to leave
    id      the provider named a task       settle  a send was settled without an id
    saved   every output is a checked file  retry   a person asked for another purchase
    held    only a person can tell what became of a send, or whose an id is
    bonus   what had failed has outputs

A torn last line is the normal trace of a crash and is cut off; a bad line before it is corruption.
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
#: no line is longer, bytes; what is cannot be ours
_LONGEST = 1 << 20
#: bytes before an offset by which a journal is known again
_TOLD_BY = 4096


@dataclass(frozen=True, slots=True)
class Tail:
    """What stands in the journal behind an offset, and where it ends."""

    lines: tuple[Line, ...]
    end: int


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a journal had come, and what stood there: every run begins with a line that no other has."""

    end: int
    digest: str


def mark(path: Path, end: int) -> Mark:
    """The mark of a journal at an offset; raises DiskError."""
    start = max(0, end - _TOLD_BY)
    try:
        with path.open("rb") as file:
            file.seek(start)
            return Mark(end, sha256(file.read(end - start)).hexdigest()[:32])
    except OSError as error:
        raise _full(path, error) from None


def encode(line: Line) -> bytes:
    """One line with its checksum."""
    text = orjson.dumps(line)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def decode(raw: bytes) -> Line | None:
    """The line in these bytes, or None where the checksum says that it is not whole."""
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
    """Each whole line from `offset` with the offset behind it; raises StateError for a bad line before the last."""
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


def _only_torn(path: Path, more: bytes, offset: int) -> None:
    if more:
        raise StateError(
            f"{path}: a damaged line at byte {offset}, and more behind it",
            hint="Keep a copy of the job directory; then `runner recover`.",
        )


def tail(path: Path, offset: int) -> Tail:
    """What a database that knows the journal up to `offset` has not seen."""
    lines, end = [], offset
    for line, behind in read(path, offset):
        lines.append(line)
        end = behind
    return Tail(tuple(lines), end)


class Journal:
    """The open journal of one job: cut to its last whole line, then only appended to."""

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
        #: half a line may stand behind the end
        self._torn = False

    def append(self, lines: Sequence[Line]) -> int:
        """Put the lines on the disk; the offset behind them. Raises DiskError, and then none of them counts."""
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
        """Take half a line away again; if that fails too, the next line waits for it, and the reader copes."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self.end)
            self._torn = False


def _full(path: Path, error: OSError) -> DiskError:
    return DiskError(
        f"{path}: {error.strerror}", hint="Make room or mend the permissions, then run the same command again."
    )


def of_change(before: Task, after: Task) -> Line | None:
    """The line that a change of a task deserves, if any."""
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
    """The line that takes an intent back: nothing was sent, and the task is as it was."""
    return _settle(task, task.ref)


def _settle(task: Task, ref: str) -> Line:
    fault = task.fault
    return {
        # without a line for what is held a rebuilt database would look it up, and could buy it again unasked
        "t": "held" if task.state is State.HELD else "settle",
        "ref": ref,
        "state": task.state,
        "evidence": task.evidence,
        "reason": fault.reason,
        "message": fault.message,
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
