"""A provider's lane: its address and credentials from the settings, its limits from manifest and spec."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import AbstractAsyncContextManager  # noqa: TC003 - part of a protocol's signature
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, UsageError
from runner.lean import without
from runner.lifecycle.patience import Patience
from runner.manifest.model import Rate
from runner.manifest.units import rate
from runner.net import auth
from runner.net.auth import Token
from runner.net.gateway import Deadlines, Gateway
from runner.net.guard import is_loopback
from runner.providers import spec as specs
from runner.store.account import TokenFile
from runner.store.directories import ACCOUNTS

with without("pygments"):  # as in `net`
    import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.manifest.model import Manifest
    from runner.net.auth import Scheme
    from runner.providers.spec import Spec
    from runner.settings import Settings

#: set in the environment of a run in the sandbox: a provider that it does not serve is not reached elsewhere
PRETEND = "RUNNER_PRETEND"
#: submits a second on loopback where the manifest says nothing: nobody is paid there
_LOOPBACK_RATE = Rate(20.0)
#: quiet time on loopback, where no request can be under way for minutes
_LOOPBACK_DOUBT = 10.0


def credential_names(spec: Spec) -> Sequence[tuple[str, ...]]:
    """The sets of environment variables, each of which is enough."""
    match spec.auth.scheme:
        case "chanjing":
            return ((f"{spec.env}_APP_ID", f"{spec.env}_SECRET_KEY"), (f"{spec.env}_ACCESS_TOKEN",))
        case "kling":
            return ((f"{spec.env}_API_KEY",), (f"{spec.env}_ACCESS_KEY", f"{spec.env}_SECRET_KEY"))
        case _:
            return ((f"{spec.env}_API_KEY",),)


def credentials(spec: Spec, settings: Settings) -> dict[str, str]:
    """The first complete set, by variable name; raises ConfigError that names what is missing."""
    for names in credential_names(spec):
        found = {name: secret.reveal() for name in names if (secret := settings.secret(name))}
        if len(found) == len(names):
            return found
    wanted = " or ".join(" and ".join(names) for names in credential_names(spec))
    pretend = ", or try it with --sandbox" if spec.name in specs.names() else ""
    raise ConfigError(
        f"there are no credentials for {spec.name}",
        hint=f"Set {wanted} in the environment (or the same names with _FILE){pretend}.",
    )


def base_url(spec: Spec, settings: Settings) -> str:
    """Where the provider is; raises ConfigError where nobody says."""
    url = settings.text(f"{spec.env}_BASE_URL") or (None if settings.text(PRETEND) else spec.base_url)
    if url is None and settings.text(PRETEND):
        raise UsageError(
            f"the sandbox does not serve {spec.name}", hint="Run it without --sandbox, against its own address."
        )
    if url is None:
        raise ConfigError(
            f"nobody says where {spec.name} is", hint=f"Set {spec.env}_BASE_URL, e.g. https://api.example.com"
        )
    return url


def origin(url: str) -> str:
    """Scheme, host and port."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


def account(spec: Spec, settings: Settings) -> str:
    """A hash of host and account, to tell accounts apart; empty where the credentials do not name theirs."""
    held = credentials(spec, settings)
    name = next(iter(held))
    if name.endswith("_ACCESS_TOKEN"):
        return ""
    url = base_url(spec, settings)
    where = "loopback" if on_loopback(url) else origin(url)  # a sandbox gets a new port at every start
    return hashlib.sha256(f"{where} {held[name]}".encode()).hexdigest()[:16]


def home(spec: Spec, settings: Settings) -> Path:
    """What the jobs of this account share."""
    place = hashlib.sha256(origin(base_url(spec, settings)).encode()).hexdigest()[:8]
    return settings.home / ACCOUNTS / f"{spec.name}-{place}-{account(spec, settings) or 'unnamed'}"


def daily_cost(spec: Spec, settings: Settings) -> float | None:
    """What the account's jobs may spend in a day together, in the provider's unit; raises ConfigError."""
    name = f"{spec.env}_DAILY_COST"
    text = settings.text(name)
    try:
        cap = None if text is None else float(text)
    except ValueError:
        cap = -1.0
    if cap is not None and not 0 <= cap < math.inf:
        raise ConfigError(f"{name}: {text!r} is no amount", hint=f"A number in {spec.unit}, e.g. {name}=500.")
    return cap


class _Tokens:
    """The account's token file in the words of the auth scheme."""

    def __init__(self, directory: Path) -> None:
        self._file = TokenFile(directory)

    async def read(self) -> Token | None:
        stored = await self._file.read()
        return Token(*stored) if stored else None

    async def write(self, token: Token) -> None:
        await self._file.write(token.value, token.expires)

    def lock(self) -> AbstractAsyncContextManager[Any]:
        return self._file.lock()


def scheme(spec: Spec, settings: Settings) -> Scheme:
    """The named scheme with this account's credentials."""
    held = credentials(spec, settings)
    names = list(held)
    match spec.auth.scheme:
        case "chanjing" if len(names) > 1:
            tokens = _Tokens(home(spec, settings))
            return auth.Chanjing(
                held[names[0]],
                held[names[1]],
                tokens,
                wall=time.time,
                clock=time.monotonic,
                path=spec.auth.path,
                name=spec.auth.header,
            )
        case "kling" if len(names) > 1:
            return auth.kling(access_key=held[names[0]], secret_key=held[names[1]], wall=time.time)
        case "chanjing":
            return auth.header(spec.auth.header, held[names[0]])
        case "kling":
            return auth.bearer(held[names[0]])
        case "bearer" | "header":
            return auth.header(spec.auth.header, held[names[0]], spec.auth.prefix)


def signs(spec: Spec, settings: Settings) -> bool:
    """Whether this account's requests are signed by our clock."""
    return isinstance(scheme(spec, settings), auth.KlingJwt)


def gateway(spec: Spec, settings: Settings) -> Gateway:
    """What carries this provider's requests."""
    return Gateway(base_url(spec, settings), scheme(spec, settings))


def rates(spec: Spec, manifest: Manifest, *, loopback: bool) -> dict[str, Rate]:
    """One for each endpoint: the manifest's, else the spec's cautious one."""
    wanted = {"submit": spec.limits.submit, "query": spec.limits.query}
    usual = {endpoint: _LOOPBACK_RATE if loopback else rate(text) for endpoint, text in wanted.items()}
    uploads = {"upload": _LOOPBACK_RATE if loopback else rate(spec.limits.upload)} if spec.upload else {}
    return {endpoint: manifest.limits.qps or found for endpoint, found in usual.items()} | uploads


def patience(spec: Spec, manifest: Manifest, *, loopback: bool) -> Patience:
    """The bounds of this provider's tasks; a manifest may lengthen the quiet time, never shorten it (R4)."""
    asked = manifest.retry.doubt
    floor = max(2 * Deadlines().total, spec.doubt)
    doubt = (asked or _LOOPBACK_DOUBT) if loopback else max(floor, asked or 0.0)
    return Patience(
        attempts=manifest.retry.attempts,
        paid=manifest.retry.patience,
        doubt=doubt,
        can_look_up=spec.can_look_up,
        first_look=min(spec.first_look, 0.5) if loopback else spec.first_look,
    )


def on_loopback(url: str) -> bool:
    """Whether the provider is on this machine."""
    return is_loopback(httpx.URL(url).host)
