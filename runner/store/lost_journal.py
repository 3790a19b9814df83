"""Writing of a new journal from a whole database, where the old journal is lost: deleted, cut short or damaged.

A line is in the journal before its change is in the database, and nothing is done on the strength of a line alone. So
a whole database knows everything that was sent; what the last transaction left in the journal alone is merged as far as
it can be read.

The new journal is no shorter than the old one was, so that a mark that the account keeps of the old one never fits the
new one by chance. Its first line says how long the old one was and which run was the latest, as the database knew them:
by that the account recognises it as the same job's (`app.job_registry`), and tells an older copy apart.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import DiskError, StateError
from runner.files import atomic_write, sync_directory
from runner.store import filesystem, recovery
from runner.store.database import DATABASE_ERRORS, execute, harden, schema_version
from runner.store.journal import encode, invalid_field, lines_of_task, read_lines, read_readable_lines
from runner.store.store import set_up_connection
from runner.store.task_rows import output_from, task_from
from runner.tasks.models import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from runner.store.journal import JournalLine
    from runner.tasks.models import Output

#: added to the offset in the database while its journal is replaced, so that no journal of that moment is taken for it
_REPLACING = 1 << 62
#: bytes of a line that only makes the new journal as long as the old one was
_PADDING_BYTES = 1 << 16


class JobIdentity(NamedTuple):
    """What a whole database or journal says of its job."""

    uuid: str
    #: length of the journal as far as it knows, bytes
    journal: int
    has_sent: bool
    #: its journal was about to be replaced when the process died
    is_replacing: bool = False


def read_identity(database: Path) -> JobIdentity | None:
    """Return what a database says of its job, or None if it is missing, empty or damaged."""
    if not database.is_file() or not database.stat().st_size:
        return None
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            harden(connection)
            if not schema_version(connection) or connection.execute("pragma quick_check(1)").fetchone()[0] != "ok":
                return None
            job = connection.execute("select uuid, journal from job where id = 1").fetchone()
            if job is None:
                return None
            has_sent = bool(execute(connection, "has_ever_sent").fetchone()[0])
            offset = job["journal"]
            return JobIdentity(job["uuid"], offset % _REPLACING, has_sent, offset >= _REPLACING)
    except (*DATABASE_ERRORS, StateError):
        return None


def is_lost(journal: Path, known: JobIdentity) -> bool:
    """Return whether the database knows more than its journal: that is missing, shorter, damaged or another job's.

    Raises StateError if both belong to different jobs and each has bought something.
    """
    found = None if known.is_replacing else _read_identity(journal)
    if found is None or not found.uuid:
        return True
    if found.uuid == known.uuid:
        return found.journal < known.journal
    if known.has_sent and found.has_sent:
        raise StateError(
            f"{journal.parent}: state.db and journal.jsonl belong to different jobs, and both have bought",
            hint="Move the one that is not this job's away, then `runner recover MANIFEST` again.",
        )
    return known.has_sent


def _read_identity(journal: Path) -> JobIdentity | None:
    """Return what a journal says of its job, or None if a line is damaged."""
    uuid, end, has_sent = "", 0, False
    try:
        for line, behind in read_lines(journal):
            if invalid_field(line):
                return None
            uuid, end, has_sent = line.get("uuid", uuid), behind, has_sent or "key" in line
    except StateError:
        return None
    return JobIdentity(uuid, end, has_sent)


def rewrite_journal(directory: Path, now: float) -> dict[str, int]:
    """Write a new journal from `state.db`, and keep the old one; return the number of tasks in it by state.

    `now` is in seconds since the epoch. Raises StateError if what is left of the journal knows of later runs, and
    DiskError.
    """
    database, journal = directory / "state.db", directory / "journal.jsonl"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        set_up_connection(connection, write_ahead_log=not filesystem.is_remote(directory))
        job = execute(connection, "job").fetchone()
        length = job["journal"] % _REPLACING
        if job["journal"] < _REPLACING:
            _merge_tail(connection, journal, job["uuid"], job["epoch"], length)
        # whatever happens from here on, the next run refuses the job until this is done again
        execute(connection, "set_journal", journal=_REPLACING + length)
        first = {
            "t": "epoch",
            "uuid": job["uuid"],
            "epoch": job["epoch"],
            "run": connection.execute("select lower(hex(randomblob(8)))").fetchone()[0],
            "rebuilt": length,
        }
        counts: dict[str, int] = {}
        try:
            with suppress(FileNotFoundError):
                if journal.stat().st_size:
                    journal.rename(_free_name(directory, now))
            with atomic_write(journal, 0o600) as file:
                for line in _lines(connection, counts):
                    file.write(encode(first))
                    first = line
                file.write(encode(first))
                _pad(file, length)
                end = file.tell()
            sync_directory(directory)
        except OSError as error:
            raise DiskError(
                f"{journal}: {error.strerror}", hint="Make room or mend the permissions, then `runner recover` again."
            ) from None
        execute(connection, "set_journal", journal=end)
        connection.execute("pragma wal_checkpoint(truncate)")
    return counts


def _merge_tail(connection: sqlite3.Connection, journal: Path, uuid: str, epoch: int, offset: int) -> None:
    """Merge the readable lines behind the offset in the database. Raises StateError if they are of later runs."""
    is_ours = any(line.get("uuid") == uuid for line in read_readable_lines(journal))
    lines = [line for line in read_readable_lines(journal, offset) if not invalid_field(line)] if is_ours else []
    if recovery.has_later_run(lines, epoch):
        raise StateError(
            f"{journal} is damaged, and knows of later runs than the database: neither is whole",
            hint=recovery.RESTORE_COPY_HINT,
        )
    connection.execute("begin immediate")
    for line in lines:
        row = execute(connection, "by_ref", ref=line.get("ref", "")).fetchone()
        if row is not None:
            recovery.replay(connection, task_from(row), (line,))
    connection.execute("commit")


def _lines(connection: sqlite3.Connection, counts: dict[str, int]) -> Iterator[JournalLine]:
    """Yield the lines of every task that was ever sent, and add to `counts` by state."""
    for row in execute(connection, "former_ids"):
        yield {"t": "former", "provider": row["provider"], "remote_id": row["remote_id"]}
    for row in execute(connection, "purchases"):
        task = task_from(row, _saved_outputs(connection, row) if row["state"] == State.DONE else ())
        state = str(State.IN_DOUBT if task.state is State.SUBMITTING else task.state)
        counts[state] = counts.get(state, 0) + 1
        yield from lines_of_task(task)


def _saved_outputs(connection: sqlite3.Connection, row: sqlite3.Row) -> tuple[Output, ...]:
    outputs = (output_from(each) for each in execute(connection, "outputs", task_id=row["id"]))
    return tuple(output for output in outputs if output.file is not None)


def _pad(file: BinaryIO, length: int) -> None:
    while (missing := length - file.tell()) > 0:
        file.write(encode({"t": "padding", "text": " " * min(missing, _PADDING_BYTES)}))


def _free_name(directory: Path, now: float) -> Path:
    """Return a name for the old journal that no file has."""
    name, number = f"journal.jsonl.before-{now:.0f}", 1
    while (directory / name).exists():
        number += 1
        name = f"journal.jsonl.before-{now:.0f}-{number}"
    return directory / name
