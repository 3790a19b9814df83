"""The company's proxy: which requests go through it, and how none of them shows it a credential.

Only https is sent through a proxy, inside a tunnel (CONNECT) that TLS closes from this machine to the provider: the
proxy sees the names of hosts. What stays on this machine never goes there. The password of a proxy itself is sent only
where nobody between can read it: to an https proxy, or to one on this machine.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from yarl import URL

from runner.errors import ConfigError
from runner.net.addresses import is_loopback
from runner.net.transport import tls_context

if TYPE_CHECKING:
    from collections.abc import Mapping

#: name of the setting, in messages
_PROXY = "RUNNER_PROXY"
_FORMS = "E.g. http://proxy.example.com:3128, or https://user:password@proxy.example.com:3129."


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that opens tunnels."""

    #: scheme, host and port
    url: URL
    #: headers of the request for a tunnel, which the provider never sees
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def serves(self, url: URL) -> bool:
        """Return True if a request goes through the proxy."""
        return url.scheme == "https" and not is_loopback(url.host or "")

    def __str__(self) -> str:
        return str(self.url)


class WayOut(TypedDict):
    """How requests leave this machine: options of everything that sends."""

    proxy: Proxy | None
    #: trusts more authorities than certifi's; None: those alone
    context: ssl.SSLContext | None


def parse_proxy(text: str) -> Proxy:
    """Return the proxy of `RUNNER_PROXY`. Raises ConfigError, which never shows the value: it may hold a password."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
        host, port = url.host, url.port
    except ValueError:
        host, port, url = None, None, URL()
    if not host or not port or url.scheme not in {"http", "https"}:
        why = "is no address of an HTTP proxy" + (", and others such as SOCKS are not known" if "socks" in text else "")
        raise ConfigError(f"{_PROXY} {why}", hint=_FORMS)
    if url.path not in {"", "/"} or url.query_string or url.fragment:
        raise ConfigError(f"{_PROXY} holds more than scheme, host and port", hint=_FORMS)
    login = f"{url.user or ''}:{url.password or ''}" if url.user or url.password else None
    if login is not None and url.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"{_PROXY}: its password would travel in plain text",
            hint="Use an https:// address of the proxy, or a forwarder on this machine that logs in (such as cntlm).",
        )
    encoded = None if login is None else base64.b64encode(login.encode()).decode()
    headers = {} if encoded is None else {"Proxy-Authorization": f"Basic {encoded}"}
    return Proxy(URL.build(scheme=url.scheme, host=host, port=port), headers)


def company_context(path: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities in a PEM file beside certifi's. Raises ConfigError."""
    try:
        return tls_context(path)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        raise ConfigError(
            f"RUNNER_CA_FILE: {path}: {reason or 'holds no certificate that can be read'}",
            hint="A file in PEM form: -----BEGIN CERTIFICATE----- and so on.",
        ) from None
