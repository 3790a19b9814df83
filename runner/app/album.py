"""Local images that a manifest names by path: found and hashed while planning, read again when they are sent.

A manifest may come from another author, and the files that it names are sent to a provider. So a file must be an image
by its first bytes. It must also lie below the manifest's directory or below a directory that the user has allowed.
Symbolic links are followed before that check.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import IO, TYPE_CHECKING, Any

from runner.providers.heads import NotAPicture, measured
from runner.providers.pictures import LARGEST, Picture, Unfit, places

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


class Album:
    """The local images of one manifest, each inspected once.

    Implements the protocol by which `runner.providers` finds images.
    """

    def __init__(self, root: Path, allowed: Sequence[Path] = ()) -> None:
        """Take images below `root`, the manifest's directory, and below the directories that are also `allowed`."""
        self._root = root
        self._open = [directory.resolve() for directory in (root, *allowed)]
        #: by path, the image or the message and hint of its error
        self._seen: dict[str, Picture | tuple[str, str]] = {}
        #: by hash, the path under which the image was first found
        self._paths: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"LocalImages({self._root}, {len(self._paths)} images)"

    def look(self, path: str) -> Picture:
        """Return the image at a path that is relative to the manifest.

        Raises ImageError if it cannot be sent.
        """
        found = self._seen.get(path)
        if found is None:
            found = self._seen[path] = self._looked(path)
        if isinstance(found, tuple):
            raise Unfit(*found)
        self._paths.setdefault(found.sha256, path)
        return found

    def read(self, path: str, sha256: str) -> tuple[Picture, bytes]:
        """Return the image as it is now, and its bytes.

        Raises ImageError if its content has changed.
        """
        image, data = self._read(path)
        if image.sha256 != sha256:
            raise Unfit("has changed since the job was planned", "run again: what it is now makes new tasks")
        return image, data

    def paths(self, request: Mapping[str, Any], fields: Iterable[str]) -> dict[str, str]:
        """Return the path of each image in a request, by its position in the request's fields."""
        if not self._paths:
            return {}
        return {position: self._paths[sha] for position, sha in places(request, fields).items() if sha in self._paths}

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Return path and hash of every inspected image, sorted by path."""
        return sorted((path, found.sha256) for path, found in self._seen.items() if isinstance(found, Picture))

    def _looked(self, path: str) -> Picture | tuple[str, str]:
        """Return the image, or the message and hint of its error."""
        try:
            return self._read(path)[0]
        except Unfit as error:
            return error.message, error.hint

    def _read(self, path: str) -> tuple[Picture, bytes]:
        """Return the image and its bytes.

        Raises ImageError.
        """
        data = self._contents(path)
        try:
            kind, width, height = measured(data)
        except NotAPicture as error:
            raise Unfit(str(error), "give a PNG, JPEG or WEBP file, or a URL") from None
        return Picture(kind, width, height, len(data), hashlib.sha256(data).hexdigest()), data

    def _contents(self, path: str) -> bytes:
        """Return the bytes of a regular file that may be sent.

        Raises ImageError if it may not be sent, cannot be read or is too large.
        """
        try:
            real = (self._root / path).resolve()
            if not any(real.is_relative_to(directory) for directory in self._open):
                raise Unfit(
                    "is outside of the manifest's directory",
                    "put it beside the manifest, or name its directory in RUNNER_IMAGES",
                )
            with _opened(real) as file:
                data = file.read(LARGEST + 1)
        except FileNotFoundError:
            raise Unfit("is neither a URL nor Base64, and there is no such file",
                        f"put it there: {self._root / path}") from None  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Unfit(f"cannot be read: {reason}", "check the path and its permissions") from None
        if len(data) > LARGEST:
            raise Unfit(f"has more than {LARGEST:,} bytes", "make it smaller")
        return data


def _opened(path: Path) -> IO[bytes]:
    """Open a regular file without following a link and without blocking.

    Raises ImageError for anything else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unfit("is not a regular file", "give the path of a picture")
    return os.fdopen(descriptor, "rb")
