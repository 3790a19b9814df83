"""The pictures that a manifest names by a path: found beside it, hashed once, and read again when they are sent.

A manifest may come from somebody else, and what it names is sent away. So only pictures are read, by their first bytes;
only from the manifest's directory and below, or from where its reader has said; links are followed first.
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
    """Implements `providers.pictures.Pictures`; what it has looked at once it does not look at again."""

    def __init__(self, root: Path, more: Sequence[Path] = ()) -> None:
        """`root` is the manifest's directory, `more` are others whose pictures may be sent."""
        self._root = root
        self._open = [place.resolve() for place in (root, *more)]
        self._seen: dict[str, Picture | tuple[str, str]] = {}
        #: by hash, the path that it was first found under
        self._paths: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Album({self._root}, {len(self._paths)} pictures)"

    def look(self, path: str) -> Picture:
        """The picture at a path that is relative to the manifest; raises Unfit."""
        found = self._seen.get(path)
        if found is None:
            found = self._seen[path] = self._looked(path)
        if isinstance(found, tuple):
            raise Unfit(*found)
        self._paths.setdefault(found.sha256, path)
        return found

    def read(self, path: str, sha256: str) -> tuple[Picture, bytes]:
        """The picture as it is now, with its bytes; raises Unfit where it is another one than it was."""
        picture, data = self._read(path)
        if picture.sha256 != sha256:
            raise Unfit("has changed since the job was planned", "run again: what it is now makes new tasks")
        return picture, data

    def paths(self, request: Mapping[str, Any], fields: Iterable[str]) -> dict[str, str]:
        """Where in a request's fields pictures stand, and the path of each."""
        if not self._paths:
            return {}
        return {place: self._paths[sha] for place, sha in places(request, fields).items() if sha in self._paths}

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Path and hash of every picture that was looked at, in order."""
        return sorted((path, found.sha256) for path, found in self._seen.items() if isinstance(found, Picture))

    def _looked(self, path: str) -> Picture | tuple[str, str]:
        try:
            return self._read(path)[0]
        except Unfit as error:
            return error.message, error.hint

    def _read(self, path: str) -> tuple[Picture, bytes]:
        data = self._contents(path)
        try:
            kind, width, height = measured(data)
        except NotAPicture as error:
            raise Unfit(str(error), "give a PNG, JPEG or WEBP file, or a URL") from None
        return Picture(kind, width, height, len(data), hashlib.sha256(data).hexdigest()), data

    def _contents(self, path: str) -> bytes:
        """At most `LARGEST` bytes of a regular file that may be sent."""
        try:
            real = (self._root / path).resolve()
            if not any(real.is_relative_to(place) for place in self._open):
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
    """A regular file; no link in its place is followed, and nothing is waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unfit("is not a regular file", "give the path of a picture")
    return os.fdopen(descriptor, "rb")
