"""The way in which a provider receives local images: in the request's body or as an upload."""

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
    session: ProviderSession, images: Album, account: Path, stack: AsyncExitStack, *, loopback: bool
) -> ImageSource | None:
    """Return what puts local images into a provider's requests, or None if the provider takes no images.

    `account` is the directory that the account's jobs share. An uploader is closed with the `stack`.
    """
    upload = session.spec.upload
    if session.spec.images is None:
        return None
    if upload is None:
        return InlineImages(images.read, anyio.to_thread.run_sync)
    uploader = Uploader(loopback=loopback)
    stack.push_async_callback(uploader.aclose)
    return UploadedImages(session, upload, images.read, uploader, Uploads(account), anyio.to_thread.run_sync)
