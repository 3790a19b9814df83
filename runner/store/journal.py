"""Append-only copy of what money depends on, outside the database: intents, ids, and how sends were settled.

Each line is a CRC-32 in eight hex digits, a space, and a JSON object. The journal is written before the database: a
line is on disk before its transaction commits. So each of the two copies is enough to know what was paid.

    epoch   a run began                     intent  a request is about to leave
    id      the provider named a task       settle  a send was settled without an id
    saved   every output is a checked file  retry   the user asked for another purchase
    held    only the user can decide what became of a send, or which task an id belongs to
    bonus   a failed task has outputs after all
    former  an id that an earlier purchase had, where the lines of that purchase are lost
    padding nothing: it makes a journal that was written anew as long as the lost one was
    linked  another job of the account has paid for the outputs, which are files here or are fetched by their id

A torn last line is the normal trace of a crash and is cut off. A bad line before it is corruption. A checksum proves
that a line is complete, not that this program wrote it, so the fields of each line are checked too. A kind that is not
known was added by a newer version and is passed over.
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
from runner.files import atomic_write, open_file, sync_directory
from runner.store import filesystem
from runner.tasks.models import Moment, State
from runner.tasks.transitions import is_linked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.tasks.models import Task


JournalLine = dict[str, Any]
#: bytes of the longest line that this program writes: a request may hold several images
_MAX_LINE_BYTES = 128 << 20
#: bytes at the end of a journal that are searched for the last request: more if there is none in fewer
_TAIL_BYTES = tuple(1 << power for power in (18, 22, 25, 28))
#: bytes that are copied at a time
_CHUNK = 1 << 20
#: bytes before an offset that identify a journal
_MARK_BYTES = 4096

_NUMBER_TYPES = (int, float)
#: types of the fields of each kind of line
_INTENT_FIELDS: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "generation": (int,),
    "provider": (str,),
    "operation": (str,),
    "model": (str,),
    "fingerprint": (str,),
    "slots": (int,),
    "boot": (str,),
    "seconds": _NUMBER_TYPES,
    "at": (*_NUMBER_TYPES, type(None)),
    "name": (str,),
    "request": (str,),
}
_FIELDS_BY_KIND: dict[str, dict[str, tuple[type, ...]]] = {
    "epoch": {"uuid": (str,), "epoch": (int,)},
    "intent": {"ref": (str,), **_INTENT_FIELDS},
    "id": {"ref": (str,), "remote_id": (str,), "adopted": (bool,)},
    "settle": {
        "ref": (str,),
        "state": (str,),
        "evidence": (str,),
        "reason": (str, type(None)),
        "message": (str, type(None)),
    },
    "saved": {"ref": (str,), "files": (list,), "reason": (str, type(None))},
    "retry": {"ref": (str,), "generation": (int,), "next": (str,)},
    "former": {"provider": (str,), "remote_id": (str,)},
    "linked": {
        "ref": (str,),
        "remote_id": (str,),
        "evidence": (str,),
        "files": (list,),
        "reason": (str, type(None)),
        "message": (str, type(None)),
    },
}
#: fields that only newer lines have
_OPTIONAL_FIELDS: dict[str, tuple[type, ...]] = {
    "cost": (*_NUMBER_TYPES, type(None)),
    "spent": _NUMBER_TYPES,
    "pictures": (str,),
    "goods": (str,),
    "ref": (str,),
    "next": (str,),
    "rebuilt": (int,),
}
_FILE_FIELDS: dict[str, tuple[type, ...]] = {"number": (int,), "file": (str,), "bytes": (int,), "sha256": (str,)}
#: value of a field that a line lacks; None is a value that some fields may have
_MISSING = object()
#: bound of the integers that a database can hold
_INTEGER_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class Tail:
    """Lines of a journal behind an offset, and the offset where they end."""

    lines: tuple[JournalLine, ...]
    end: int


@dataclass(frozen=True, slots=True)
class JournalMark:
    """An offset in a journal, and a digest of the bytes before it.

    The digest identifies the journal, since every run begins with a line that no other run has.
    """

    end: int
    digest: str


@dataclass(frozen=True, slots=True)
class RebuiltJournal:
    """Proof that a journal was written from a whole database whose own journal was lost."""

    #: epoch of the latest run that the database knew
    epoch: int
    #: length of the lost journal as the database knew it, bytes
    length: int

    def replaces(self, uuid: str, mark: JournalMark, epoch: int) -> bool:
        """Return whether it stands for the journal of a mark that was made in the run `epoch` of the job.

        The database knew that run and everything up to the mark. Each later run, one that was refused included, has
        written at least its first line, so a copy of the database from before the mark does not grow beyond it by
        being run again.
        """
        later = sum(len(encode(epoch_line(uuid, each, _ANY_RUN))) for each in range(epoch + 1, self.epoch + 1))
        return epoch <= self.epoch and mark.end + later <= self.length


#: stands for the random name of a run, where only its length counts
_ANY_RUN = "0" * 16


def epoch_line(uuid: str, epoch: int, run: str) -> JournalLine:
    """Return the first line of a run, whose random name `run` differs in a copy of the job too."""
    return {"t": "epoch", "uuid": uuid, "epoch": epoch, "run": run}


def read_rebuilt(path: Path) -> RebuiltJournal | None:
    """Return the proof in the first line of a journal that was written from a database, else None."""
    first = next((line for line, _ in read_lines(path)), None)
    if first is None or "rebuilt" not in first or invalid_field(first):
        return None
    return RebuiltJournal(first["epoch"], first["rebuilt"])


def read_mark(path: Path, end: int) -> JournalMark:
    """Return the mark of a journal at an offset.

    Raises DiskError.
    """
    start = max(0, end - _MARK_BYTES)
    try:
        with path.open("rb") as file:
            file.seek(start)
            return JournalMark(end, sha256(file.read(end - start)).hexdigest()[:32])
    except OSError as error:
        raise _disk_error(path, error) from None


def encode(line: JournalLine) -> bytes:
    """Return the bytes of one line, with its checksum."""
    text = orjson.dumps(line)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def decode(raw: bytes) -> JournalLine | None:
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


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[JournalLine, int]]:
    """Yield each complete line from `offset` on, with the offset behind it.

    Raises StateError if a line before the last one is damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while raw := file.readline(_MAX_LINE_BYTES):
                line = decode(raw)
                if line is None:
                    if file.read(1):
                        raise StateError(
                            f"{path}: a damaged line at byte {offset}, and more behind it",
                            hint="Keep a copy of the job directory; then `runner recover MANIFEST`.",
                        )
                    return
                offset += len(raw)
                yield line, offset
    except (FileNotFoundError, NotADirectoryError):
        return


def read_readable_lines(path: Path, offset: int = 0) -> Iterator[JournalLine]:
    """Yield the lines from `offset` on that are whole, and pass over damaged ones.

    Raises DiskError.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while raw := file.readline(_MAX_LINE_BYTES):
                line = decode(raw)
                if line is not None:
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise _disk_error(path, error) from None


def last_send(path: Path) -> tuple[float, Moment] | None:
    """Return when the last request in a journal was sent: seconds since the epoch, and a moment.

    None if there is none in the last 256 MiB. Raises DiskError.
    """
    try:
        size = path.stat().st_size
    except OSError:
        return None
    found = None
    for tail in _TAIL_BYTES:
        for line in read_readable_lines(path, max(0, size - tail)):
            if "key" in line and not invalid_field(line) and line["at"] is not None:
                found = line["at"], Moment(line["boot"], line["seconds"])
        if found is not None or tail >= size:
            break
    return found


def read_tail(path: Path, offset: int) -> Tail:
    """Return the lines behind `offset`, which a database in that state has not seen.

    Raises StateError.
    """
    lines, end = [], offset
    for line, behind in read_lines(path, offset):
        lines.append(line)
        end = behind
    return Tail(tuple(lines), end)


class Journal:
    """Journal of one job, open for appending.

    Opening cuts it to `end`, the offset behind its last complete line. Raises DiskError.
    """

    def __init__(self, path: Path, end: int) -> None:
        self.path = path
        try:
            self._file = open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            os.ftruncate(self._file, end)
            os.fsync(self._file)
            sync_directory(path.parent)
        except OSError as error:
            raise _disk_error(path, error) from None
        self.end, self._kind = end, filesystem.filesystem_kind(path)
        #: True if part of a line may stand behind `end`
        self._torn = False

    def append(self, lines: Sequence[JournalLine]) -> int:
        """Write the lines to disk and return the offset behind them.

        Raises DiskError, and then none of the lines is in the journal. An intent raises StateError if the file was
        removed: nothing more is bought then. Other lines, such as ids of requests that were on the wire, still go into
        the open file, from where `rescue` brings them.
        """
        if any(line["t"] == "intent" for line in lines) and not self.is_in_place():
            raise StateError(f"{self.path} was removed while the job ran", hint="Nothing more is bought.")
        data = b"".join(encode(line) for line in lines)
        try:
            if self._torn:
                os.ftruncate(self._file, self.end)
            self._torn, written = True, 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fdatasync(self._file)
        except OSError as error:
            # if this fails too, it is tried again before the next line, and a reader ignores a torn last line
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.end)
                self._torn = False
            raise _disk_error(self.path, error) from error
        self._torn = False
        self.end += len(data)
        return self.end

    def is_in_place(self) -> bool:
        """Return True unless the file was removed, or another one stands in its place, as after an unmount."""
        try:
            there = self.path.stat()
        except OSError:
            return False
        opened = os.fstat(self._file)
        return filesystem.changes_inodes(self._kind) or os.path.samestat(there, opened)

    def rescue(self, target: Path) -> None:
        """Write the content of the open file, which may have been removed, to another one. Raises OSError."""
        with atomic_write(target, 0o600) as file:
            offset = 0
            while chunk := os.pread(self._file, min(_CHUNK, self.end - offset), offset):
                file.write(chunk)
                offset += len(chunk)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def line_for_change(before: Task, after: Task) -> JournalLine | None:
    """Return the journal line for a change of a task, or None if the change needs none."""
    if after.state is State.SUBMITTING:
        return _intent_line(after)
    if before.state is State.QUEUED and after.state is State.IN_DOUBT:
        return _intent_line(after)
    if before.state is State.QUEUED and is_linked(after):
        return _linked_line(after)
    if after.remote_id not in {None, before.remote_id}:
        line = _id_line(after)
        return line if before.state is not State.QUEUED else {**_intent_line(after), **line}
    if after.state is State.DONE:
        return _saved_line(after)
    if after.generation != before.generation:
        return {"t": "retry", "ref": before.ref, "generation": after.generation, "next": after.ref}
    if before.state is State.FAILED and after.state is State.READY:
        return {"t": "bonus", "ref": after.ref, "spent": after.spent}
    settles = after.state in {State.QUEUED, State.FAILED, State.HELD} and before.state is not after.state
    return _settle_line(after, before.ref) if settles else None


def lines_of_task(task: Task) -> Iterator[JournalLine]:
    """Yield lines that restore a task which was sent as it is now, where those of its history are lost."""
    if is_linked(task):  # another job has sent its request
        yield _linked_line(task)
        if task.state is State.FAILED:
            yield _settle_line(task, task.ref)
        return
    intent = _intent_line(task)
    yield intent
    match task.state:
        case State.SUBMITTING | State.IN_DOUBT:
            # a rebuilt task in doubt counts its latest send again
            doubts = max(0, task.doubts - (task.state is State.IN_DOUBT))
            if doubts or task.attempts or task.throttles:
                yield {**_settle_line(task, task.ref), "t": "settle", "state": State.QUEUED, "doubts": doubts}
                yield intent
        case State.RUNNING | State.READY | State.STRANDED | State.DONE | State.FAILED:
            if task.remote_id is not None:
                yield _id_line(task)
            if task.state is State.DONE:
                yield _saved_line(task)
            if task.state is State.FAILED:
                yield _settle_line(task, task.ref)
        case State.QUEUED | State.HELD:
            yield _settle_line(task, task.ref)


def unsent_line(task: Task) -> JournalLine:
    """Return the line that withdraws an intent: nothing was sent, and the task is as before."""
    return _settle_line(task, task.ref)


def invalid_field(line: dict[str, Any]) -> str:
    """Return the name of a field that is missing or has a wrong type, or an empty string if the line is valid."""
    kind = line.get("t")
    if not isinstance(kind, str):
        return "t"
    shape = _FIELDS_BY_KIND.get(kind, {})
    if "key" in line:
        shape = {"ref": (str,), **_INTENT_FIELDS, **shape}
    optional = {name: kinds for name, kinds in _OPTIONAL_FIELDS.items() if name in line}
    if field := _first_mismatch(line, optional | shape):
        return field
    files = line.get("files") or ()
    return "files" if any(not isinstance(file, dict) or _first_mismatch(file, _FILE_FIELDS) for file in files) else ""


def _id_line(task: Task) -> JournalLine:
    evidence = {"evidence": task.reason} if task.reason else {}
    return {"t": "id", "ref": task.ref, "remote_id": task.remote_id, "adopted": task.adopted, **evidence}


def _saved_line(task: Task) -> JournalLine:
    return {"t": "saved", "ref": task.ref, "files": _files(task), "reason": task.error.reason}


def _settle_line(task: Task, ref: str) -> JournalLine:
    error = task.error
    return {
        # without a line for a held task, a rebuilt database would reconcile it, and could buy it again unasked
        "t": "held" if task.state is State.HELD else "settle",
        "ref": ref,
        "state": task.state,
        "evidence": task.reason,
        "reason": error.reason,
        "message": error.message,
        "spent": task.spent,
        "doubts": task.doubts,
        "attempts": task.attempts,
        "throttles": task.throttles,
    }


def _intent_line(task: Task) -> JournalLine:
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
        **({"goods": task.goods} if task.goods else {}),
        "slots": task.slots,
        "cost": task.cost,
        "spent": task.spent,
        "boot": sent.boot if sent else "",
        "seconds": sent.seconds if sent else 0.0,
        "at": task.submitted_at,
        "name": task.name,
        "request": task.request.decode(),
        **({"pictures": task.images} if task.images else {}),
    }


def _linked_line(task: Task) -> JournalLine:
    """Return the line of a link, with the task's draft: this job may never have sent a request for it."""
    error = task.error
    return {
        **_intent_line(task),
        "t": "linked",
        "remote_id": task.remote_id,
        "evidence": task.reason,
        "files": _files(task),
        "reason": error.reason,
        "message": error.message,
    }


def _files(task: Task) -> list[dict[str, Any]]:
    names = ("number", "file", "bytes", "sha256", "media_type")
    return [{name: getattr(output, name) for name in names} for output in task.outputs]


def _first_mismatch(values: dict[str, Any], shape: dict[str, tuple[type, ...]]) -> str:
    for name, kinds in shape.items():
        value = values.get(name, _MISSING)
        if type(value) not in kinds or (type(value) is int and not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT):
            return name
    return ""


def _disk_error(path: Path, error: OSError) -> DiskError:
    return DiskError(
        f"{path}: {error.strerror}", hint="Make room or mend the permissions, then run the same command again."
    )
