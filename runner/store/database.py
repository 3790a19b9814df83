"""Named statements, migrations and safety checks of a job's database, and what depends on the SQLite release."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import orjson

from runner.errors import DiskError, JobLockedError, RunnerError, StateError
from runner.files import create_file

SQLITE_VERSION = sqlite3.sqlite_version_info
#: first release with strict tables, which every schema here uses
MIN_SQLITE_VERSION = (3, 37, 0)
#: first and last release with the WAL-reset race (https://sqlite.org/wal.html)
_WAL_RACE_VERSIONS = ((3, 7, 0), (3, 51, 2))

#: application id of our databases ("GENR")
APPLICATION_ID = 0x47454E52

#: errors of SQLite, Python's sqlite3 and the JSON parser for a file that is damaged or cannot be used
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError, orjson.JSONDecodeError)
#: bytes of the longest value that is read, while a request with its row has a few kilobytes
_MAX_VALUE_BYTES = 64 << 20

#: hint for a database that is damaged or was replaced
RECOVER_HINT = "Keep a copy of the job directory; then `runner recover MANIFEST` rebuilds the state from the journal."
_NAMED_STATEMENT = re.compile(r"^-- name: (\w+)\n((?:-- .*\n)+)", re.MULTILINE)
_DISK_ERROR_WORDS = ("full", "disk i/o", "readonly", "read-only", "unable to open")


@cache
def statements() -> dict[str, str]:
    """Return every statement of `queries.sql` by name."""
    text = (resources.files("runner.store") / "queries.sql").read_text(encoding="utf-8")
    parts = _NAMED_STATEMENT.split(text)
    return {name: statement.strip() for name, statement in zip(parts[1::3], parts[3::3], strict=True)}


def execute(connection: sqlite3.Connection, query: str, **parameters: Any) -> sqlite3.Cursor:
    """Execute a named statement."""
    return connection.execute(statements()[query], parameters)


@cache
def migrations() -> tuple[str, ...]:
    """Return the migrations in order; a database's `user_version` is the number of those it has."""
    folder = resources.files("runner.store") / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple(entry.read_text(encoding="utf-8") for entry in files)


def schema_version(connection: sqlite3.Connection) -> int:
    """Return how many migrations the database has.

    Raises StateError if another program or a newer version made it.
    """
    (application,) = connection.execute("pragma application_id").fetchone()
    (count,) = connection.execute("pragma user_version").fetchone()
    (used,) = connection.execute("select exists (select 1 from sqlite_schema)").fetchone()
    if application != APPLICATION_ID and (application or count or used):
        raise StateError("the database belongs to another program", hint="Move it away, or choose another directory.")
    if count > len(migrations()):
        raise StateError(f"the state was written by a newer version (schema {count})", hint="Upgrade genrunner.")
    return int(count)


def harden(connection: sqlite3.Connection) -> None:
    """Restrict what a database from an untrusted source can do; must be called before anything is read."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.execute("pragma trusted_schema = off")
    connection.execute("pragma cell_size_check = on")


def check_schema(connection: sqlite3.Connection) -> None:
    """Raise StateError unless the schema is exactly what the migrations make.

    A trigger, view or table of another origin could change what our statements do.
    """
    present, expected = _read_schema(connection), _expected_schema()
    wrong = sorted(name for name, statement in present.items() if expected.get(name) != statement)
    if differences := wrong or sorted(expected.keys() - present.keys()):
        names = ", ".join(f"{kind} {name}" for kind, name in differences[:3])
        raise StateError(f"the database is not as this program makes it: {names[:200]}", hint=RECOVER_HINT)


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing migrations, each in one transaction, after a copy of an older database was made beside it.

    Raises DiskError and StateError.
    """
    if 0 < schema_version(connection) < len(migrations()):
        _back_up(connection, schema_version(connection))
    for number, script in enumerate(migrations()[schema_version(connection) :], start=schema_version(connection) + 1):
        marks = f"pragma application_id = {APPLICATION_ID}; pragma user_version = {number}"
        connection.executescript(f"begin immediate; {script}; {marks}; commit;")


def to_runner_error(error: Exception, path: str) -> RunnerError:
    """Return the error of ours that explains one of `DATABASE_ERRORS` to the user."""
    text = str(error).lower()
    if any(word in text for word in _DISK_ERROR_WORDS):
        return DiskError(f"{path}: {error}", hint="Make room or mend the permissions, then run the same command again.")
    if "locked" in text or "busy" in text:
        return JobLockedError(
            f"{path}: held by another program for too long", hint="End it, then run the same command again."
        )
    return StateError(f"{path}: {error}", hint=RECOVER_HINT)


def has_wal_race(version: tuple[int, ...] = SQLITE_VERSION) -> bool:
    """Return whether two connections that write at once could damage a write-ahead log in this version.

    A job has one writing connection, so it is safe.
    """
    return _WAL_RACE_VERSIONS[0] <= version <= _WAL_RACE_VERSIONS[1]


def _read_schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the statements that made the schema by kind and name, without what SQLite makes by itself."""
    rows = connection.execute("select type, name, sql from sqlite_schema where name not like 'sqlite\\_%' escape '\\'")
    return {(str(row[0]), str(row[1])): " ".join(str(row[2]).split()) for row in rows}


@cache
def _expected_schema() -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(":memory:")) as fresh:
        migrate(fresh)
        return _read_schema(fresh)


def _back_up(connection: sqlite3.Connection, number: int) -> None:
    """Copy the database to a private file beside it, such as `state.db.v1`."""
    (path,) = [row[2] for row in connection.execute("pragma database_list") if row[1] == "main"]
    if not path:  # a temporary database is a copy itself
        return
    backup = Path(f"{path}.v{number}")
    fresh = backup.with_name(f"{backup.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        create_file(fresh).close()
        connection.execute("vacuum into ?", (str(fresh),))
        fresh.replace(backup)
    except OSError as error:
        raise DiskError(f"{backup}: {error.strerror}", hint="Make room or mend the permissions.") from None
