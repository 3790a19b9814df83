"""Checks of this machine for `doctor`: program, extras, SQLite, text encoding, trust store, proxies and clock."""

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

#: by optional dependency, the modules that it installs
_EXTRAS = {
    "sandbox": ("av", "h11", "PIL"),
    "gallery": ("av", "PIL"),
    "web": ("starlette", "uvicorn"),
    "parquet": ("pyarrow",),
    "notify": ("apprise",),
}
#: variables from which other programs take their certificates and proxies, and which runner ignores
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
#: seconds since the epoch: 2025-01-01; a clock before that was never set
_BEFORE_US = 1_735_689_600.0


def signs(environ: Mapping[str, str], *, encoding: str, now: float) -> Iterator[Sign]:
    """Yield the result of every check.

    `encoding` is that of stdout, `now` is in seconds since the epoch.
    """
    yield ok("program", f"genrunner {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield _extras()
    yield _sqlite(engine.VERSION)
    yield _text(encoding, sys.getfilesystemencoding())
    yield _trust(environ)
    yield _proxies(environ)
    yield _clock(now)


def _extras() -> Sign:
    """Check which optional dependencies are installed."""
    missing = [name for name, modules in _EXTRAS.items() if not all(find_spec(module) for module in modules)]
    if not missing:
        return ok("extras", f"all are installed: {', '.join(_EXTRAS)}")
    return ok("extras", f"not installed: {', '.join(missing)}", f'pip install "genrunner[{",".join(missing)}]"')


def _sqlite(version: tuple[int, ...]) -> Sign:
    """Check that SQLite is new enough, and name its WAL-reset race if it has it."""
    text = ".".join(map(str, version))
    if version < engine.OLDEST:
        oldest = ".".join(map(str, engine.OLDEST))
        return problem("sqlite", f"{text} is too old; {oldest} or newer is needed", "Use a newer Python.")
    race = (
        "; its WAL-reset race needs two connections that write, and a job has one" if engine.may_race(version) else ""
    )
    return ok("sqlite", f"{text}{race}")


def _text(encoding: str, names: str) -> Sign:
    """Check that stdout and file names are encoded as UTF-8."""
    others = [each for each in (encoding, names) if each.lower().replace("-", "") != "utf8"]
    if not others:
        return ok("text", "UTF-8")
    return warning(
        "text", f"{others[0]}, not UTF-8: Chinese text and names cannot be shown", "export PYTHONUTF8=1 LANG=C.UTF-8"
    )


def _trust(environ: Mapping[str, str]) -> Sign:
    """Check that certifi's certificates can be loaded, and name variables that would replace them elsewhere."""
    try:
        count = tls_context().cert_store_stats()["x509_ca"]
    except (OSError, ssl.SSLError) as error:
        return problem("tls", f"the trust store {certifi.where()}: {error}", "pip install --force-reinstall certifi")
    if ignored := [name for name in _TRUST if environ.get(name)]:
        message = f"{', '.join(ignored)} set and ignored: the {count} roots of certifi count, and no others"
        return warning("tls", message, "Where your network signs certificates of its own, providers cannot be reached.")
    return ok("tls", f"{count} roots of certifi, TLS 1.2 or newer")


def _proxies(environ: Mapping[str, str]) -> Sign:
    """Check for proxy variables, which runner ignores.

    Their values may hold passwords and are not shown.
    """
    found = [name for name in environ if name.lower() in _PROXIES and environ[name]]
    if not found:
        return ok("proxies", "none in the environment")
    message = f"{', '.join(sorted(found))} set and ignored: requests go straight to the provider"
    return warning("proxies", message, "`runner doctor --online` shows whether they arrive.")


def _clock(now: float) -> Sign:
    """Check that the clock was ever set."""
    if now < _BEFORE_US:
        return problem("clock", f"it says {timestamp(now)}", "Set it, best by NTP: keys and certificates depend on it.")
    return ok("clock", f"{timestamp(now)}; `--online` compares it with the provider's")
