"""How a lane sends local pictures: as its spec says."""

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


def attaching(lane: Lane, album: Album, home: Path, stack: AsyncExitStack, *, loopback: bool) -> Attach | None:
    """What puts the album's pictures into the lane's requests, `home` being what its account shares; None: nothing."""
    words = lane.spec.upload
    if lane.spec.images is None:
        return None
    if words is None:
        return Inline(lane, album.read)
    uploader = Uploader(loopback=loopback)
    stack.push_async_callback(uploader.aclose)
    return Uploaded(lane, words, album.read, uploader, Uploads(home))
