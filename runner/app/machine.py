"""What `doctor` says of this machine: program, SQLite, text, trust, proxies, clock."""

from __future__ import annotations

import platform
import ssl
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import certifi

from runner import __version__
from runner.app.sign import Sign, ok, problem, warning
from runner.net.transport import tls_context
from runner.report.results import timestamp
from runner.store import engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EXTRAS = {
    "sandbox": ("av", "h11", "PIL"),
    "gallery": ("av", "PIL"),
    "web": ("starlette", "uvicorn"),
    "parquet": ("pyarrow",),
    "notify": ("apprise",),
}
#: other programs take their certificates and proxies from these
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
#: seconds since the epoch: 2025-01-01; an earlier clock has never been set
_BEFORE_US = 1_735_689_600.0


def signs(environ: Mapping[str, str], *, encoding: str, now: float) -> Iterator[Sign]:
    """Every sign of the machine; `encoding` is that of stdout, `now` in seconds since the epoch."""
    yield ok("program", f"genrunner {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield _extras()
    yield _sqlite(engine.VERSION)
    yield _text(encoding, sys.getfilesystemencoding())
    yield _trust(environ)
    yield _proxies(environ)
    yield _clock(now)


def _extras() -> Sign:
    missing = [name for name, parts in _EXTRAS.items() if not all(find_spec(part) for part in parts)]
    if not missing:
        return ok("extras", f"all are installed: {', '.join(_EXTRAS)}")
    return ok("extras", f"not installed: {', '.join(missing)}", f'pip install "genrunner[{",".join(missing)}]"')


def _sqlite(version: tuple[int, ...]) -> Sign:
    text = ".".join(map(str, version))
    if version < engine.OLDEST:
        oldest = ".".join(map(str, engine.OLDEST))
        return problem("sqlite", f"{text} is too old; {oldest} or newer is needed", "Use a newer Python.")
    race = (
        "; its WAL-reset race needs two connections that write, and a job has one" if engine.may_race(version) else ""
    )
    return ok("sqlite", f"{text}{race}")


def _text(encoding: str, names: str) -> Sign:
    strange = [each for each in (encoding, names) if each.lower().replace("-", "") != "utf8"]
    if not strange:
        return ok("text", "UTF-8")
    return warning(
        "text", f"{strange[0]}, not UTF-8: Chinese text and names cannot be shown", "export PYTHONUTF8=1 LANG=C.UTF-8"
    )


def _trust(environ: Mapping[str, str]) -> Sign:
    try:
        count = tls_context().cert_store_stats()["x509_ca"]
    except (OSError, ssl.SSLError) as error:
        return problem("tls", f"the trust store {certifi.where()}: {error}", "pip install --force-reinstall certifi")
    if ignored := [name for name in _TRUST if environ.get(name)]:
        said = f"{', '.join(ignored)} set and ignored: the {count} roots of certifi count, and no others"
        return warning("tls", said, "Where your network signs certificates of its own, providers cannot be reached.")
    return ok("tls", f"{count} roots of certifi, TLS 1.2 or newer")


def _proxies(environ: Mapping[str, str]) -> Sign:
    found = [name for name in environ if name.lower() in _PROXIES and environ[name]]
    if not found:
        return ok("proxies", "none in the environment")
    said = f"{', '.join(sorted(found))} set and ignored: requests go straight to the provider"
    return warning("proxies", said, "`runner doctor --online` shows whether they arrive.")


def _clock(now: float) -> Sign:
    if now < _BEFORE_US:
        return problem("clock", f"it says {timestamp(now)}", "Set it, best by NTP: keys and certificates depend on it.")
    return ok("clock", f"{timestamp(now)}; `--online` compares it with the provider's")
