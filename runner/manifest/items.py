"""Rows from data files, one by one. What a file says is data, never a template."""

from __future__ import annotations

import os
import stat
from typing import IO, TYPE_CHECKING

from runner.manifest.content import flaw
from runner.manifest.formats import READERS, BadDataError, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.manifest.report import Report

#: how the name of a data file may end
SUFFIXES = tuple(READERS)


def rows(path: Path, label: str, report: Report) -> Iterator[Row]:
    """The good rows of `path`, in order; problems go to `report` under the name `label`."""
    read = READERS[path.suffix.lower()]
    empty = True
    try:
        with _opened(path) as file:
            for row in read(file, label, report):
                empty = False
                if _plain(row, report):
                    yield row
    except BadDataError as error:
        report.add((error.line, 1), "", error.message, error.hint, file=label)
    except OSError as error:
        report.add((0, 0), "", f"cannot be read: {error.strerror}", "check the file and its permissions", file=label)
    else:
        if empty and not report:
            report.add((1, 1), "", "no rows", "add one, or take `items` out of the manifest", file=label)


def _opened(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadDataError(0, "not a regular file", "give the path of a data file")
    return os.fdopen(descriptor, "rb")


def _plain(row: Row, report: Report) -> bool:
    good = True
    for name, value in row.values.items():
        if type(value) is not str and (message := flaw(value)):
            report.add((row.line, row.column), name, message, "a row holds plain values", file=row.file)
            good = False
    return good
