"""How a lane sends local pictures: as its spec says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.to_thread

from runner.net.upload import Uploader
from runner.pipeline.images import InlineImages, UploadedImages
from runner.store.uploads import Uploads

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

    from runner.app.album import Album
    from runner.pipeline.images import ImageSource
    from runner.pipeline.session import ProviderSession


def attaching(
    session: ProviderSession, album: Album, home: Path, stack: AsyncExitStack, *, loopback: bool
) -> ImageSource | None:
    """Return what puts local images into the provider's requests, or None if it takes none.

    `home` is the directory that the jobs of the account share.
    """
    words = session.spec.upload
    if session.spec.images is None:
        return None
    if words is None:
        return InlineImages(album.read, anyio.to_thread.run_sync)
    uploader = Uploader(loopback=loopback)
    stack.push_async_callback(uploader.aclose)
    return UploadedImages(session, words, album.read, uploader, Uploads(home), anyio.to_thread.run_sync)
