"""Version of the SQLite library that this Python uses."""

from __future__ import annotations

import sqlite3

SQLITE_VERSION = sqlite3.sqlite_version_info
#: first release with strict tables, which every schema here uses
MIN_SQLITE_VERSION = (3, 37, 0)
#: first and last release with the WAL-reset race (https://sqlite.org/wal.html)
_WAL_RACE_VERSIONS = ((3, 7, 0), (3, 51, 2))


def has_wal_race(version: tuple[int, ...] = SQLITE_VERSION) -> bool:
    """Return whether two connections that write at once could damage a write-ahead log in this version.

    A job has one writing connection, so it is safe.
    """
    return _WAL_RACE_VERSIONS[0] <= version <= _WAL_RACE_VERSIONS[1]
