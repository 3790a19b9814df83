"""Check the address of `notify`. It is a secret, so it comes from the environment as `${NAME}`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

#: events that can be notified, in the order in which they happen
WORDS = ("start", "success", "failure")
_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: endings of the names of providers' credentials, which only the provider may get
_CREDENTIALS = ("_API_KEY", "_APP_ID", "_SECRET_KEY", "_ACCESS_KEY", "_ACCESS_TOKEN")
#: words in a name that suggest a secret; a manifest that also names the host could have it sent anywhere
_SECRETS = frozenset((
    "AUTH", "COOKIE", "CREDENTIAL", "CREDENTIALS", "KEY", "PASS", "PASSWD", "PASSWORD", "PASSPHRASE", "PAT", "PWD",
    "SECRET", "SESSION", "TOKEN",
))  # fmt: skip
_AUTHORITY = re.compile(r"[^:/]*://([^/?#]*)")


def variables(url: str) -> list[str]:
    """Return the names that stand in the address as `${NAME}`, each once."""
    return list(dict.fromkeys(_NAME.findall(url)))


def filled(url: str, values: Mapping[str, str]) -> str:
    """Return the address with each `${NAME}` replaced once. A `${NAME}` within a value is not replaced."""
    return _NAME.sub(lambda found: values[found[1]], url)


def unfit(url: str) -> tuple[str, str] | None:
    """Return message and hint if the address cannot be used as it is written, else None."""
    names = variables(url)
    if any(name.upper().endswith(_CREDENTIALS) for name in names):
        return "a provider's credential has no place in an address", "give the monitor's address a name of its own"
    if _names_a_host(url) and (secrets := [name for name in names if _SECRETS & set(name.upper().split("_"))]):
        message = f"`{secrets[0]}` looks like a secret, and the host it would go to is written here"
        return message, 'put the whole address into one variable: `url: "${HEALTHCHECK_URL}"`'
    if "$" in _NAME.sub("", url):
        return "a `$` that begins no `${NAME}`", "write `${NAME}`, e.g. `${HEALTHCHECK_URL}`"
    if not names and not _is_local(url):
        hint = 'write `url: "${HEALTHCHECK_URL}"` and set HEALTHCHECK_URL in the environment'
        return "an address that lets anyone report for this job is a secret", hint
    return None


def _names_a_host(url: str) -> bool:
    """Return whether any part of the host is written out. If not, the environment alone decides where requests go."""
    found = _AUTHORITY.match(url)
    return not url.startswith("${") and (found is None or _NAME.sub("", found[1]) != "") and not _is_local(url)


def _is_local(url: str) -> bool:
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:
        return False
