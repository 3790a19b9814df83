"""Loads the named queries and applies the migrations."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib import resources
from pathlib import Path

import orjson

from runner.errors import DiskError, Locked, RunnerError, StateError

#: marks the database as ours, whatever its name ("GENR")
APPLICATION_ID = 0x47454E52

#: what SQLite, Python's half of it and the reader of JSON columns say of a file that is not as it was written
DAMAGED = (sqlite3.Error, UnicodeDecodeError, orjson.JSONDecodeError)
#: bytes of the longest value that is read; a request with its rows has a few kilobytes
_LONGEST = 64 << 20

_RECOVER = "Keep a copy of the job directory; then `runner recover MANIFEST` rebuilds the state from the journal."
_NAMED = re.compile(r"^-- name: (\w+)\n((?:-- .*\n)+)", re.MULTILINE)
_FULL = ("full", "disk i/o", "readonly", "read-only", "unable to open")


@cache
def queries() -> dict[str, str]:
    """Every statement of `queries.sql` by name."""
    text = (resources.files("runner.store") / "queries.sql").read_text(encoding="utf-8")
    parts = _NAMED.split(text)
    return {name: statement.strip() for name, statement in zip(parts[1::3], parts[3::3], strict=True)}


@cache
def migrations() -> tuple[str, ...]:
    """The migrations in order; the database's `user_version` counts how many it has."""
    folder = resources.files("runner.store") / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple(entry.read_text(encoding="utf-8") for entry in files)


def version(connection: sqlite3.Connection) -> int:
    """How many migrations the database has; raises StateError where it is not ours or is newer than we are."""
    (application,) = connection.execute("pragma application_id").fetchone()
    (count,) = connection.execute("pragma user_version").fetchone()
    (used,) = connection.execute("select exists (select 1 from sqlite_schema)").fetchone()
    if application != APPLICATION_ID and (application or count or used):
        raise StateError("the database belongs to another program", hint="Move it away, or choose another directory.")
    if count > len(migrations()):
        raise StateError(f"the state was written by a newer version (schema {count})", hint="Upgrade genrunner.")
    return int(count)


def guard(connection: sqlite3.Connection) -> None:
    """Before anything is read: a database may come from a stranger (attacks.md X34)."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    connection.execute("pragma trusted_schema = off")
    connection.execute("pragma cell_size_check = on")


def check_schema(connection: sqlite3.Connection) -> None:
    """Nothing but what the migrations make: no trigger, view or table of a stranger; raises StateError."""
    strange = sorted(name for name, made in _schema(connection).items() if _expected().get(name) != made)
    missing = sorted(_expected().keys() - _schema(connection).keys())
    if strange or missing:
        told = ", ".join(f"{kind} {name}" for kind, name in (strange or missing)[:3])
        raise StateError(
            f"the database is not as this program makes it: {told[:200]}",
            hint=_RECOVER,
        )


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Kind and name to the statement that made it, but for what SQLite makes by itself."""
    rows = connection.execute("select type, name, sql from sqlite_schema where name not like 'sqlite\\_%' escape '\\'")
    return {(str(row[0]), str(row[1])): " ".join(str(row[2]).split()) for row in rows}


@cache
def _expected() -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(":memory:")) as fresh:
        migrate(fresh)
        return _schema(fresh)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database up to date, each migration in one transaction; an older one is kept beside it, as it was."""
    if 0 < version(connection) < len(migrations()):
        _keep(connection, version(connection))
    for number, script in enumerate(migrations()[version(connection) :], start=version(connection) + 1):
        mark = f"pragma application_id = {APPLICATION_ID}; pragma user_version = {number}"
        connection.executescript(f"begin immediate; {script}; {mark}; commit;")


def _keep(connection: sqlite3.Connection, number: int) -> None:
    """A copy beside it as `state.db.v1`, for its owner alone."""
    (path,) = [row[2] for row in connection.execute("pragma database_list") if row[1] == "main"]
    if not path:  # a temporary one is a copy itself
        return
    kept = Path(f"{path}.v{number}")
    fresh = kept.with_name(f"{kept.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        connection.execute("vacuum into ?", (str(fresh),))
        fresh.replace(kept)
    except OSError as error:
        raise DiskError(f"{kept}: {error.strerror}", hint="Make room or mend the permissions.") from None


def explained(error: Exception, place: str) -> RunnerError:
    """The error of ours that tells a person what one of `DAMAGED` means."""
    text = str(error).lower()
    if any(word in text for word in _FULL):
        return DiskError(
            f"{place}: {error}", hint="Make room or mend the permissions, then run the same command again."
        )
    if "locked" in text or "busy" in text:
        return Locked(f"{place}: held by another program for too long", hint="End it, then run the same command again.")
    return StateError(f"{place}: {error}", hint=_RECOVER)
