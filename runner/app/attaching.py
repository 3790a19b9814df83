"""The way in which a provider receives local images: in the request's body or as an upload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.net.upload import Uploader
from runner.pipeline.attach import Attach, Inline
from runner.pipeline.uploads import Uploaded
from runner.store.uploads import Uploads

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

    from runner.app.album import Album
    from runner.pipeline.lane import Lane


def attaching(session: Lane, images: Album, account: Path, stack: AsyncExitStack, *, loopback: bool) -> Attach | None:
    """Return what puts local images into a provider's requests, or None if the provider takes no images.

    `account` is the directory that the account's jobs share. An uploader is closed with the `stack`.
    """
    upload = session.spec.upload
    if session.spec.images is None:
        return None
    if upload is None:
        return Inline(session, images.read)
    uploader = Uploader(loopback=loopback)
    stack.push_async_callback(uploader.aclose)
    return Uploaded(session, upload, images.read, uploader, Uploads(account))
