"""Targets of Apprise: mail, Slack, Telegram and a hundred others; an extra, so it is loaded only when it is needed."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from contextlib import suppress
from typing import Any

from runner.errors import ConfigError
from runner.net.guard import is_loopback

HINT = (
    "An https:// address in the manner of healthchecks.io, or a target of Apprise; http:// is for this machine alone."
)
#: bytes of what is told
_LONGEST = 1000


class Target:
    """One target by its URL; raises ConfigError, without the URL, where it is of no use."""

    def __init__(self, url: str) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra, and slow to load
        except ImportError:
            raise ConfigError(
                "notify.url is not an https:// address, and other targets need Apprise, which is not installed",
                hint='pip install "genrunner[notify]", or give an https:// address.',
            ) from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its lines may hold parts of the URL
        # nothing on the disk, nothing led astray
        asset = apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY, http_redirects=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it loads a hundred modules, some of which use what will be removed
            self._target: Any = apprise.Apprise.instantiate(url, asset=asset)
        if self._target is None:
            raise ConfigError("notify.url cannot be used: Apprise does not know such a target", hint=HINT)
        if not _is_safe(self._target):
            raise ConfigError(
                "notify.url cannot be used: it would travel in plain text",
                hint="Most targets have a secure form whose scheme ends in `s`: mailtos:, jsons:, ntfys:.",
            )

    async def send(self, _code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """One notice, from a thread that the end of the process does not wait for."""
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[bool] = loop.create_future()
        text = clipped(body or title).decode()

        def work() -> None:
            arrived = self._delivered(title, text)
            with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                loop.call_soon_threadsafe(_settle, delivered, arrived)

        threading.Thread(target=work, daemon=True).start()
        return (None, False) if await delivered else ("Apprise could not deliver it", True)

    def _delivered(self, title: str, body: str) -> bool:
        try:
            return bool(self._target.notify(body=body, title=title))
        except Exception:  # noqa: BLE001 - a plugin's bug; its words may hold parts of the URL
            return False


def _settle(delivered: asyncio.Future[bool], arrived: bool) -> None:
    if not delivered.done():
        delivered.set_result(arrived)


def _is_safe(target: Any) -> bool:
    """Whether a target is encrypted on its way, or on this machine; one with a single scheme is as its service is."""
    plain = target.protocol if isinstance(target.protocol, tuple) else (target.protocol,)
    host = getattr(target, "host", None)
    return not target.secure_protocol or target.schema not in plain or bool(host and is_loopback(host))


def clipped(text: str) -> bytes:
    """At most 1 kB of UTF-8, cut between characters."""
    return text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").encode()
