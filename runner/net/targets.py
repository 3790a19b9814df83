"""Notifications through Apprise: mail, Slack, Telegram and a hundred others. Apprise is optional and loaded on use."""

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
#: maximum bytes of a notification's body
_LONGEST = 1000


class Target:
    """Apprise target of a URL. Raises ConfigError, without the URL in its text, if it cannot be used."""

    def __init__(self, url: str) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra, and slow to load
        except ImportError:
            raise ConfigError(
                "notify.url is not an https:// address, and other targets need Apprise, which is not installed",
                hint='pip install "genrunner[notify]", or give an https:// address.',
            ) from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its log lines may contain parts of the URL
        # no files, and no redirects, which would send the notification elsewhere
        asset = apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY, http_redirects=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Apprise loads a hundred modules, some with deprecation warnings
            self._target: Any = apprise.Apprise.instantiate(url, asset=asset)
        if self._target is None:
            raise ConfigError("notify.url cannot be used: Apprise does not know such a target", hint=HINT)
        if not _is_safe(self._target):
            raise ConfigError(
                "notify.url cannot be used: it would travel in plain text",
                hint="Most targets have a secure form whose scheme ends in `s`: mailtos:, jsons:, ntfys:.",
            )

    async def send(self, _code: int | None, title: str, body: str) -> tuple[str | None, bool]:
        """Send one notification from a daemon thread, so that the process can end before it is delivered."""
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[bool] = loop.create_future()
        text = clipped(body or title).decode()

        def work() -> None:
            success = self._delivered(title, text)
            with suppress(RuntimeError):  # the event loop is closed, so no caller waits for the result
                loop.call_soon_threadsafe(_settle, delivered, success)

        threading.Thread(target=work, daemon=True).start()
        return (None, False) if await delivered else ("Apprise could not deliver it", True)

    def _delivered(self, title: str, body: str) -> bool:
        try:
            return bool(self._target.notify(body=body, title=title))
        except Exception:  # noqa: BLE001 - a plugin's bug; its message may contain parts of the URL
            return False


def _settle(delivered: asyncio.Future[bool], success: bool) -> None:
    if not delivered.done():
        delivered.set_result(success)


def _is_safe(target: Any) -> bool:
    """Return True if notifications are encrypted or stay on this machine, or if the service has one scheme only."""
    plain = target.protocol if isinstance(target.protocol, tuple) else (target.protocol,)
    host = getattr(target, "host", None)
    return not target.secure_protocol or target.schema not in plain or bool(host and is_loopback(host))


def clipped(text: str) -> bytes:
    """Return at most 1 kB of the text in UTF-8, cut between characters."""
    return text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").encode()
