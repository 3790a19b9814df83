"""The SQLite that this Python was built with."""

from __future__ import annotations

import sqlite3

VERSION = sqlite3.sqlite_version_info
#: the first with strict tables, which every schema here is made of
OLDEST = (3, 37, 0)
#: the first and the last release with the WAL-reset race (sqlite.org/wal.html)
_RACE = ((3, 7, 0), (3, 51, 2))


def may_race(version: tuple[int, ...] = VERSION) -> bool:
    """Whether two connections that write at once could damage a database of it; a job has one that writes."""
    return _RACE[0] <= version <= _RACE[1]
