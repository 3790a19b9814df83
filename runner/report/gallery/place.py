"""Recognize the gallery's own files, so that files of the user are never overwritten.

index.html         is ours if it begins with our mark
gallery/           is ours if its READ-ME.txt begins with our mark; holds data-*.js, and thumbnails by content hash
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from runner.errors import UsageError
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = "index.html"
FOLDER = "gallery"
#: first bytes of every gallery page
MARK = b"<!doctype html>\n<!-- made by runner: written anew after every run -->\n"
_NOTE = "READ-ME.txt"
_NOTE_MARK = b"Made by runner: "
_NOTE_TEXT = (
    _NOTE_MARK + b"what ../index.html shows. It may be deleted; `runner gallery` makes it again.\n"
    b"Files that you put here stay, but for those named data-*.js.\n"
)


class Place:
    """Paths of the gallery in a job directory."""

    def __init__(self, directory: Path) -> None:
        self.page = directory / PAGE
        self.folder = directory / FOLDER

    def made(self) -> set[str]:
        """Return the names of all files in the folder, thumbnails included."""
        return {entry.name for entry in os.scandir(self.folder)}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock on the page, and wait while another process writes it."""
        with (self.folder / _NOTE).open("rb") as note:
            fcntl.flock(note, fcntl.LOCK_EX)
            yield

    def tidy(self, kept: set[str]) -> None:
        """Remove the data files of earlier pages, except the names in `kept`."""
        for name in self.made() - kept:
            if name.startswith("data-") and name.endswith(".js"):
                (self.folder / name).unlink(missing_ok=True)


def taken(directory: Path) -> Place:
    """Return the gallery of a job directory, and create its folder if needed.

    Raises UsageError if page or folder exists and is not ours, and OSError.
    """
    gallery = Place(directory)
    _refuse(gallery.page, os.path.lexists(gallery.page) and not _begins(gallery.page, MARK))
    with suppress(FileExistsError):
        gallery.folder.mkdir()
    note = gallery.folder / _NOTE
    is_folder = gallery.folder.is_dir() and not gallery.folder.is_symlink()
    if is_folder and not gallery.made():
        with whole_file(note) as file:
            file.write(_NOTE_TEXT)
    _refuse(gallery.folder, not is_folder or not _begins(note, _NOTE_MARK))
    return gallery


def is_ours(page: Path) -> bool:
    """Return whether a page was made by runner."""
    return _begins(page, MARK)


def _refuse(path: Path, foreign: bool) -> None:
    if foreign:
        raise UsageError(
            f"{path} is there already and was not made by runner; it was left as it is",
            hint="Move it away, then `runner gallery` makes the page.",
        )


def _begins(path: Path, mark: bytes) -> bool:
    """Return whether a path is a regular file, not a symbolic link, that begins with `mark`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and file.read(len(mark)) == mark
