"""A provider's configuration: address and credentials from the settings, limits from manifest and spec."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import AbstractAsyncContextManager  # noqa: TC003 - part of a protocol's signature
from typing import TYPE_CHECKING, Any

from runner._imports import without_module
from runner.errors import ConfigError, UsageError
from runner.files import ACCOUNTS
from runner.net import auth
from runner.net.addresses import is_loopback
from runner.net.auth import AccessToken
from runner.net.client import Deadlines, ProviderClient
from runner.net.proxy import WayOut, company_context, parse_proxy
from runner.providers import spec as specs
from runner.store.account import TokenFile
from runner.tasks.retry_policy import RetryPolicy
from runner.units import Rate, parse_rate

with without_module("pygments"):  # as in `net`
    import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.manifest.model import Manifest
    from runner.net.auth import Scheme
    from runner.providers.spec import Spec
    from runner.settings import Settings

#: environment variable of a sandbox run; with it no provider is reached at its real address
SANDBOX_VARIABLE = "RUNNER_PRETEND"
#: rate on loopback if the manifest sets none; requests there cost nothing
_LOOPBACK_RATE = Rate(20.0)
#: seconds of quiet time on loopback, where no request stays under way for minutes
_LOOPBACK_DOUBT = 10.0
#: submits on the wire at once at the start of a run, and at most, where a lost answer can be looked up
FIRST_SUBMITS, _MOST_SUBMITS = 8, 128
#: the same where it cannot: each answer that is lost is a task that the user must decide about
BLIND_SUBMITS = 2


def credential_names(spec: Spec) -> Sequence[tuple[str, ...]]:
    """Return the sets of environment variables, each of which is a complete credential."""
    match spec.auth.scheme:
        case "chanjing":
            return ((f"{spec.env}_APP_ID", f"{spec.env}_SECRET_KEY"), (f"{spec.env}_ACCESS_TOKEN",))
        case "kling":
            return ((f"{spec.env}_API_KEY",), (f"{spec.env}_ACCESS_KEY", f"{spec.env}_SECRET_KEY"))
        case _:
            return ((f"{spec.env}_API_KEY",),)


def credentials(spec: Spec, settings: Settings) -> dict[str, str]:
    """Return the first complete set of credentials by variable name.

    Raises ConfigError if none is complete.
    """
    for names in credential_names(spec):
        found = {name: secret.reveal() for name in names if (secret := settings.secret(name))}
        if len(found) == len(names):
            return found
    wanted = " or ".join(" and ".join(names) for names in credential_names(spec))
    sandbox = ", or try it with --sandbox" if spec.name in specs.spec_paths() else ""
    raise ConfigError(
        f"there are no credentials for {spec.name}",
        hint=f"Set {wanted} in the environment (or the same names with _FILE){sandbox}.",
    )


def base_url(spec: Spec, settings: Settings) -> str:
    """Return the provider's base URL.

    Raises ConfigError if neither the environment nor the spec has one, UsageError if the sandbox does not serve it.
    """
    url = settings.text(f"{spec.env}_BASE_URL") or (None if settings.text(SANDBOX_VARIABLE) else spec.base_url)
    if url is None and settings.text(SANDBOX_VARIABLE):
        raise UsageError(
            f"the sandbox does not serve {spec.name}", hint="Run it without --sandbox, against its own address."
        )
    if url is None:
        raise ConfigError(
            f"nobody says where {spec.name} is", hint=f"Set {spec.env}_BASE_URL, e.g. https://api.example.com"
        )
    return url


def origin(url: str) -> str:
    """Return scheme, host and port of a URL."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


def account_hash(spec: Spec, settings: Settings) -> str:
    """Return 16 hexadecimal digits that identify host and account, or "" if the credentials do not name an account."""
    values = credentials(spec, settings)
    name = next(iter(values))
    if name.endswith("_ACCESS_TOKEN"):
        return ""
    url = base_url(spec, settings)
    host = "loopback" if is_on_loopback(url) else origin(url)  # a sandbox gets a new port at every start
    return hashlib.sha256(f"{host} {values[name]}".encode()).hexdigest()[:16]


def account_directory(spec: Spec, settings: Settings, account: str = "") -> Path:
    """Return the directory that the jobs of an account share: of `account`, a hash, or of the settings' credentials."""
    host = hashlib.sha256(origin(base_url(spec, settings)).encode()).hexdigest()[:8]
    account = account or account_hash(spec, settings) or "unnamed"
    return settings.home / ACCOUNTS / f"{spec.name}-{host}-{account}"


def daily_cost_cap(spec: Spec, settings: Settings) -> float | None:
    """Return what the account's jobs may spend together in a day, in the provider's unit, or None if unlimited.

    Raises ConfigError if the environment variable is not a valid amount.
    """
    name = f"{spec.env}_DAILY_COST"
    text = settings.text(name)
    try:
        cap = None if text is None else float(text)
    except ValueError:
        cap = -1.0
    if cap is not None and not 0 <= cap < math.inf:
        raise ConfigError(f"{name}: {text!r} is no amount", hint=f"A number in {spec.unit}, e.g. {name}=500.")
    return cap


class _AccountTokens:
    """Token store of an account, as the auth scheme expects it."""

    def __init__(self, directory: Path) -> None:
        self._file = TokenFile(directory)

    async def read(self) -> AccessToken | None:
        stored = await self._file.read()
        return AccessToken(*stored) if stored else None

    async def write(self, token: AccessToken) -> None:
        await self._file.write(token.value, token.expires)

    def lock(self) -> AbstractAsyncContextManager[Any]:
        return self._file.lock()


def auth_scheme(spec: Spec, settings: Settings) -> Scheme:
    """Return the provider's auth scheme with this account's credentials.

    Raises ConfigError if there are none.
    """
    values = credentials(spec, settings)
    names = list(values)
    match spec.auth.scheme:
        case "chanjing" if len(names) > 1:
            tokens = _AccountTokens(account_directory(spec, settings))
            return auth.ChanjingToken(
                values[names[0]],
                values[names[1]],
                tokens,
                wall=time.time,
                clock=time.monotonic,
                path=spec.auth.path,
                name=spec.auth.header,
            )
        case "kling" if len(names) > 1:
            return auth.kling(access_key=values[names[0]], secret_key=values[names[1]], wall=time.time)
        case "chanjing":
            return auth.header(spec.auth.header, values[names[0]])
        case "kling":
            return auth.bearer(values[names[0]])
        case "bearer" | "header":
            return auth.header(spec.auth.header, values[names[0]], spec.auth.prefix)


def has_signed_requests(spec: Spec, settings: Settings) -> bool:
    """Return True if this account's requests are signed with the time of this machine's clock."""
    return isinstance(auth_scheme(spec, settings), auth.KlingJwt)


def provider_client(spec: Spec, settings: Settings) -> ProviderClient:
    """Return the client that sends this provider's requests."""
    return ProviderClient(base_url(spec, settings), auth_scheme(spec, settings), **way_out(settings))


def way_out(settings: Settings) -> WayOut:
    """Return the proxy of RUNNER_PROXY, and a context that trusts RUNNER_CA_FILE, each None if it is not set.

    Raises ConfigError if one cannot be used.
    """
    proxy, ca_file = settings.secret("RUNNER_PROXY"), settings.text("RUNNER_CA_FILE")
    return {
        "proxy": None if proxy is None else parse_proxy(proxy.reveal()),
        "context": None if ca_file is None else company_context(ca_file),
    }


def endpoint_rates(spec: Spec, manifest: Manifest, *, loopback: bool) -> dict[str, Rate]:
    """Return the rate of each endpoint: the manifest's, else the cautious one of the spec."""
    texts = {"submit": spec.limits.submit, "query": spec.limits.query}
    defaults = {endpoint: _LOOPBACK_RATE if loopback else parse_rate(text) for endpoint, text in texts.items()}
    uploads = {"upload": _LOOPBACK_RATE if loopback else parse_rate(spec.limits.upload)} if spec.upload else {}
    return {endpoint: manifest.limits.qps or default for endpoint, default in defaults.items()} | uploads


def most_submits(spec: Spec, manifest: Manifest, *, can_look_up: bool = True) -> int:
    """Return how many submits may be on the wire at once, which is how many answers can be lost at once.

    Where a lost answer cannot be looked up, or is not to be, these are few unless the manifest says more.
    """
    is_blind = not (spec.can_reconcile and can_look_up)
    return manifest.limits.submits_at_once or (BLIND_SUBMITS if is_blind else _MOST_SUBMITS)


def retry_policy(spec: Spec, manifest: Manifest, *, loopback: bool) -> RetryPolicy:
    """Return the retry policy of this provider's tasks.

    A manifest may lengthen the quiet time before a doubtful task is called absent, but never shorten it.
    On loopback the manifest alone decides.
    """
    wanted = manifest.retry.doubt
    floor = max(2 * Deadlines().total, spec.doubt)
    doubt = (wanted or _LOOPBACK_DOUBT) if loopback else max(floor, wanted or 0.0)
    return RetryPolicy(
        max_attempts=manifest.retry.attempts,
        paid_timeout=manifest.retry.patience,
        quiet_time=doubt,
        can_reconcile=spec.can_reconcile,
        witnessed_only=manifest.retry.absence == "witnessed",
        first_poll=min(spec.first_poll, 0.5) if loopback else spec.first_poll,
    )


def is_on_loopback(url: str) -> bool:
    """Return True if a URL leads to this machine."""
    return is_loopback(httpx.URL(url).host)
