"""Version of the SQLite library that this Python uses."""

from __future__ import annotations

import sqlite3

VERSION = sqlite3.sqlite_version_info
#: first release with strict tables, which every schema here uses
OLDEST = (3, 37, 0)
#: first and last release with the WAL-reset race (https://sqlite.org/wal.html)
_RACE = ((3, 7, 0), (3, 51, 2))


def may_race(version: tuple[int, ...] = VERSION) -> bool:
    """Return whether two connections that write at once could damage a write-ahead log in this version.

    A job has one writing connection, so it is safe.
    """
    return _RACE[0] <= version <= _RACE[1]
