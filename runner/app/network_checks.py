"""Checks of `doctor`: which authorities are trusted, and which proxies are used."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import certifi

from runner.app.check_result import CheckResult, ok, problem, warning
from runner.errors import ConfigError
from runner.net.proxy import company_context, parse_proxy
from runner.net.transport import tls_context
from runner.providers.responses import sanitize_reply
from runner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

#: variables from which other programs take their certificates and proxies, and which runner ignores
_TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def check_trust_store(environ: Mapping[str, str]) -> CheckResult:
    """Check that certifi's certificates can be loaded, and name variables that would replace them elsewhere."""
    try:
        count = tls_context().cert_store_stats()["x509_ca"]
    except (OSError, ssl.SSLError) as error:
        return problem("tls", f"the trust store {certifi.where()}: {error}", "pip install --force-reinstall certifi")
    own = ""
    if path := Settings(environ).text("RUNNER_CA_FILE"):
        try:
            company_context(path)
        except ConfigError as error:
            return problem("tls", error.message, error.hint)
        own = f", and those of {sanitize_reply(path)}"
    if not own and (ignored := [name for name in _TRUST_VARIABLES if environ.get(name)]):
        message = f"{', '.join(ignored)} set and ignored: the {count} roots of certifi count, and no others"
        return warning("tls", message, "Where your network signs certificates of its own, set RUNNER_CA_FILE.")
    return ok("tls", f"{count} roots of certifi{own}, TLS 1.2 or newer")


def check_proxies(environ: Mapping[str, str]) -> CheckResult:
    """Check for proxy variables, which runner ignores.

    Their values may hold passwords and are not shown.
    """
    try:
        proxy = Settings(environ).secret("RUNNER_PROXY")
        if proxy is not None:
            return ok("proxies", f"requests go through {parse_proxy(proxy.reveal())}, in tunnels")
    except ConfigError as error:
        return problem("proxies", error.message, error.hint)
    found = [name for name in environ if name.lower() in _PROXY_VARIABLES and environ[name]]
    if not found:
        return ok("proxies", "none in the environment")
    message = f"{', '.join(sorted(found))} set and ignored: requests go straight to the provider"
    hint = "`runner doctor --online` shows whether they arrive; RUNNER_PROXY names a proxy to use."
    return warning("proxies", message, hint)
