from __future__ import annotations

import sqlite3

import pytest

from runner.store import database


@pytest.mark.parametrize(
    ("version", "may"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((4, 0, 0), False),
    ],
)
def test_releases_with_wal_race_are_known(version, may):
    assert database.has_wal_race(version) is may


def test_sqlite_version_is_new_enough():
    assert ".".join(map(str, database.SQLITE_VERSION)) == sqlite3.sqlite_version
    assert database.SQLITE_VERSION >= database.MIN_SQLITE_VERSION
