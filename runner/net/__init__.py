"""The only room with sockets."""

from __future__ import annotations

import ssl

from runner.lean import without


def _load_aiohttp() -> None:
    """Without the system's certificates, which it reads twice as it is imported: a tenth of a run's start.

    No connection here goes by them, but by `tls_context`; one that did would trust nobody.
    """
    reading = ssl.SSLContext.set_default_verify_paths
    ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[method-assign, assignment]
    try:
        import aiohttp  # noqa: F401, PLC0415 - for all that import it from here on
    finally:
        ssl.SSLContext.set_default_verify_paths = reading  # type: ignore[method-assign]


_load_aiohttp()
with without("pygments"):  # for httpx's own command line
    import httpx  # noqa: F401 - for all that import it from here on
