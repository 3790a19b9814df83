"""Where a gallery stands, and whose files these are: ours are replaced, other people's are left alone.

index.html         ours if it begins with our mark
gallery/           ours if READ-ME.txt in it begins with our mark: data-*.js, thumbnails by the hash of the content
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
#: the first bytes of every page of ours
MARK = b"<!doctype html>\n<!-- made by runner: written anew after every run -->\n"
_NOTE = "READ-ME.txt"
_NOTE_MARK = b"Made by runner: "
_NOTE_TEXT = (
    _NOTE_MARK + b"what ../index.html shows. It may be deleted; `runner gallery` makes it again.\n"
    b"Files that you put here stay, but for those named data-*.js.\n"
)


class Place:
    """A job directory as the gallery sees it."""

    def __init__(self, directory: Path) -> None:
        self.page = directory / PAGE
        self.folder = directory / FOLDER

    def made(self) -> set[str]:
        """Names of all files in the folder, thumbnails among them."""
        return {entry.name for entry in os.scandir(self.folder)}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Two writers of one page take turns; it is written in a second or so."""
        with (self.folder / _NOTE).open("rb") as note:
            fcntl.flock(note, fcntl.LOCK_EX)
            yield

    def tidy(self, kept: set[str]) -> None:
        """Remove the data of earlier pages."""
        for name in self.made() - kept:
            if name.startswith("data-") and name.endswith(".js"):
                (self.folder / name).unlink(missing_ok=True)


def taken(directory: Path) -> Place:
    """The place, with its folder; raises UsageError where something of another's stands there, OSError."""
    place = Place(directory)
    _refuse(place.page, os.path.lexists(place.page) and not _begins(place.page, MARK))
    with suppress(FileExistsError):
        place.folder.mkdir()
    note = place.folder / _NOTE
    is_folder = place.folder.is_dir() and not place.folder.is_symlink()
    if is_folder and not place.made():
        with whole_file(note) as file:
            file.write(_NOTE_TEXT)
    _refuse(place.folder, not is_folder or not _begins(note, _NOTE_MARK))
    return place


def is_ours(page: Path) -> bool:
    """Whether a page was made here."""
    return _begins(page, MARK)


def _refuse(path: Path, foreign: bool) -> None:
    if foreign:
        raise UsageError(
            f"{path} is there already and was not made by runner; it was left as it is",
            hint="Move it away, then `runner gallery` makes the page.",
        )


def _begins(path: Path, mark: bytes) -> bool:
    """Whether it is a plain file, reached through no link, that begins so."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and file.read(len(mark)) == mark
