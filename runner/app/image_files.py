"""Local images that a manifest names by path: found and hashed while planning, read again when they are sent.

A manifest may come from another author, and the files that it names are sent to a provider. So a file must be an image
by its first bytes. It must also lie below the manifest's directory or below a directory that the user has allowed.
Symbolic links are followed before that check.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.files import NotRegularFileError, file_mark, open_to_read
from runner.providers.images import (
    MAX_IMAGE_BYTES,
    ImageError,
    ImageInfo,
    NotAnImageError,
    find_placeholders,
    read_image_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


class KnownImage(NamedTuple):
    """An image that was inspected before, by its path relative to the manifest, and what its file was like then."""

    path: str
    #: see `runner.files.file_mark`
    mark: tuple[int, ...]
    image: ImageInfo


class LocalImages:
    """The local images of one manifest, each inspected once.

    Implements the protocol by which `runner.providers` finds images.
    """

    def __init__(self, root: Path, allowed: Sequence[Path] = ()) -> None:
        """Take images below `root`, the manifest's directory, and below the directories that are also `allowed`."""
        self._root = root
        self._allowed = [directory.resolve() for directory in (root, *allowed)]
        #: by path, the image or the message and hint of its error
        self._cache: dict[str, ImageInfo | tuple[str, str]] = {}
        #: by hash, the path under which the image was first found
        self._paths: dict[str, str] = {}
        #: by path, what each inspected file was like, and the images that were inspected before
        self._marks: dict[str, tuple[int, ...]] = {}
        self._known: dict[str, KnownImage] = {}

    def __repr__(self) -> str:
        return f"LocalImages({self._root}, {len(self._paths)} images)"

    def restore(self, known: Iterable[KnownImage]) -> None:
        """Take over what was seen of images before. A file that has changed since then is inspected again."""
        self._known = {each.path: each for each in known}

    def unchanged_inventory(self) -> list[tuple[str, str]] | None:
        """Return path and hash of every restored image, sorted by path, or None if one has changed."""
        if any(self._mark(path) != known.mark for path, known in self._known.items()):
            return None
        return sorted((path, known.image.sha256) for path, known in self._known.items())

    def inspect_restored(self) -> None:
        """Inspect every restored image, as an expansion of their manifest would."""
        for path in self._known:
            self.inspect(path)

    def known(self) -> list[KnownImage]:
        """Return what was seen of the images, for `restore`."""
        return [
            KnownImage(path, self._marks[path], found)
            for path, found in sorted(self._cache.items())
            if isinstance(found, ImageInfo) and path in self._marks
        ]

    def inspect(self, path: str) -> ImageInfo:
        """Return the image at a path that is relative to the manifest.

        Raises ImageError if it cannot be sent.
        """
        found = self._cache.get(path)
        if found is None:
            found = self._cache[path] = self._inspect(path)
        if isinstance(found, tuple):
            raise ImageError(*found)
        self._paths.setdefault(found.sha256, path)
        return found

    def read(self, path: str, sha256: str) -> tuple[ImageInfo, bytes]:
        """Return the image as it is now, and its bytes.

        Raises ImageError if its content has changed.
        """
        image, data = self._read_image(path)
        if image.sha256 != sha256:
            raise ImageError("has changed since the job was planned", "run again: what it is now makes new tasks")
        return image, data

    def image_paths(self, request: Mapping[str, Any], fields: Iterable[str]) -> dict[str, str]:
        """Return the path of each image in a request, by its position in the request's fields."""
        if not self._paths:
            return {}
        return {
            position: self._paths[sha]
            for position, sha in find_placeholders(request, fields).items()
            if sha in self._paths
        }

    @property
    def inventory(self) -> list[tuple[str, str]]:
        """Return path and hash of every inspected image, sorted by path."""
        return sorted((path, found.sha256) for path, found in self._cache.items() if isinstance(found, ImageInfo))

    def _inspect(self, path: str) -> ImageInfo | tuple[str, str]:
        """Return the image, or the message and hint of its error."""
        try:
            mark = self._mark(path)
            known = self._known.get(path)
            found = known.image if known is not None and known.mark == mark else self._read_image(path)[0]
        except ImageError as error:
            return error.message, error.hint
        if mark is not None:
            self._marks[path] = mark
        return found

    def _mark(self, path: str) -> tuple[int, ...] | None:
        """Return what the file is like, or None if it may not be sent or cannot be read."""
        try:
            real = (self._root / path).resolve()
            if not any(real.is_relative_to(directory) for directory in self._allowed):
                return None
            return file_mark(real)
        except (OSError, ValueError, RuntimeError):
            return None

    def _read_image(self, path: str) -> tuple[ImageInfo, bytes]:
        """Return the image and its bytes.

        Raises ImageError.
        """
        data = self._read_bytes(path)
        try:
            kind, width, height = read_image_header(data)
        except NotAnImageError as error:
            raise ImageError(str(error), "give a PNG, JPEG or WEBP file, or a URL") from None
        return ImageInfo(kind, width, height, len(data), hashlib.sha256(data).hexdigest()), data

    def _read_bytes(self, path: str) -> bytes:
        """Return the bytes of a regular file that may be sent.

        Raises ImageError if it may not be sent, cannot be read or is too large.
        """
        try:
            real = (self._root / path).resolve()
            if not any(real.is_relative_to(directory) for directory in self._allowed):
                raise ImageError(
                    "is outside of the manifest's directory",
                    "put it beside the manifest, or name its directory in RUNNER_IMAGES",
                )
            with open_to_read(real) as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
        except NotRegularFileError:
            raise ImageError("is not a regular file", "give the path of a picture") from None
        except FileNotFoundError:
            raise ImageError("is neither a URL nor Base64, and there is no such file",
                        f"put it there: {self._root / path}") from None  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageError(f"cannot be read: {reason}", "check the path and its permissions") from None
        if len(data) > MAX_IMAGE_BYTES:
            raise ImageError(f"has more than {MAX_IMAGE_BYTES:,} bytes", "make it smaller")
        return data
