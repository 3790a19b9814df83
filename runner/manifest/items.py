"""Read rows from data files one by one. Values of a file are data and never templates."""

from __future__ import annotations

import os
import stat
from typing import IO, TYPE_CHECKING

from runner.manifest import encoding
from runner.manifest.content import flaw
from runner.manifest.formats import READERS, BadDataError, BadTextError, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.manifest.report import Report

#: suffixes that the name of a data file may have
SUFFIXES = tuple(READERS)


def label(file: Path, manifest: Path) -> str:
    """Return the path of a data file as messages show it.

    A file in or below the manifest's directory is shown with the directory as the user wrote it, any other in full.
    """
    folder = os.path.dirname(manifest)  # noqa: PTH120 - a label, `./a` stays `./a`
    beside = os.path.relpath(file, manifest.absolute().parent)
    return str(file) if beside.startswith("..") else os.path.normpath(os.path.join(folder, beside))  # noqa: PTH118


def unfit(path: Path) -> tuple[str, str] | None:
    """Return message and hint if `path` cannot be a data file, else None."""
    if path.suffix.lower() not in SUFFIXES:
        return f"a data file ends in {', '.join(SUFFIXES)}", "convert it, or rename it"
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return f"there is no such file: {path}", "paths are relative to the manifest"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}", "check the path and its permissions"
    return None if regular else ("not a regular file", "give the path of a data file")


def rows(path: Path, label: str, diagnostics: Report) -> Iterator[Row]:
    """Yield the valid rows of `path` in order. Add errors to `diagnostics` with `label` as the name of the file."""
    read = READERS[path.suffix.lower()]
    empty = True
    try:
        with _opened(path) as file:
            for row in read(file, label, diagnostics):
                empty = False
                if _plain(row, diagnostics):
                    yield row
    except BadTextError as error:
        name = encoding.reads_as(path)
        message = f"{error.message}; it reads as {name}, as spreadsheets save it" if name else error.message
        diagnostics.add((error.line, 1), "", message, encoding.cure(label, name) if name else error.hint, file=label)
    except BadDataError as error:
        diagnostics.add((error.line, 1), "", error.message, error.hint, file=label)
    except OSError as error:
        diagnostics.add(
            (0, 0), "", f"cannot be read: {error.strerror}", "check the file and its permissions", file=label
        )
    else:
        if empty and not diagnostics:
            diagnostics.add((1, 1), "", "no rows", "add one, or take `items` out of the manifest", file=label)


def _opened(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadDataError(0, "not a regular file", "give the path of a data file")
    return os.fdopen(descriptor, "rb")


def _plain(row: Row, diagnostics: Report) -> bool:
    is_plain = True
    for name, value in row.values.items():
        if type(value) is not str and (message := flaw(value)):
            diagnostics.add((row.line, row.column), name, message, "a row holds plain values", file=row.file)
            is_plain = False
    return is_plain
