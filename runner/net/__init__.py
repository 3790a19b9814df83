"""HTTP access to providers: the only package that opens sockets."""

from __future__ import annotations

import ssl

from runner.lean import without


def _load_aiohttp() -> None:
    """Import aiohttp without loading the system's certificates.

    aiohttp reads them twice when it is imported, which is a tenth of the start-up time of a run. Every connection of
    this package uses `tls_context` instead. A connection without that context would trust no certificate.
    """
    set_default_verify_paths = ssl.SSLContext.set_default_verify_paths
    ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[method-assign, assignment]
    try:
        import aiohttp  # noqa: F401, PLC0415 - loaded once, so that every later import finds it
    finally:
        ssl.SSLContext.set_default_verify_paths = set_default_verify_paths  # type: ignore[method-assign]


_load_aiohttp()
with without("pygments"):  # needed by httpx's command line only
    import httpx  # noqa: F401 - loaded once, so that every later import finds it
