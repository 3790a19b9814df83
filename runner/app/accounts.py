"""Checks of the providers for `doctor`: address, credentials, and the answer to one free request.

A credential is never shown. Four hexadecimal digits of its hash let the user recognise it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from runner.app import lanes
from runner.app.sign import Sign, ok, problem, warning
from runner.errors import ConfigError
from runner.net.gateway import Deadlines, Gateway
from runner.net.guard import check_base
from runner.pipeline.outcome import Exit
from runner.providers.dialect import Dialect
from runner.providers.evidence import clean, is_good, judge, server_time
from runner.providers.exchange import NoAnswer, NotSent, Reply
from runner.store.account import TokenFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.providers.spec import Spec
    from runner.settings import Secret, Settings

#: seconds; short, because the user waits for the result
_DEADLINES = Deadlines(connect=5.0, read=10.0, total=15.0)
#: seconds of clock difference above which `doctor` warns, and above which reconciling goes wrong
_APART, _FAR_APART = 30.0, 300.0


def credentials(spec: Spec, settings: Settings, *, needed: bool) -> Sign:
    """Check which credential variables of a provider are set.

    An incomplete set is always a problem. No credentials at all are one only if they are `needed`.
    """
    sets = lanes.credential_names(spec)
    wanted = " or ".join(" + ".join(names) for names in sets)
    try:
        found = {name: secret for names in sets for name in names if (secret := settings.secret(name)) is not None}
    except ConfigError as error:
        return problem(spec.name, error.message, error.hint)
    if not found:
        hint = f"Set {wanted}."
        return (
            problem(spec.name, "no credentials", hint, Exit.CREDENTIALS) if needed else ok(spec.name, "no credentials")
        )
    message = ", ".join(f"{name}{_source(settings, name)} {_mark(secret)}" for name, secret in found.items())
    if not any(set(names) <= set(found) for names in sets):
        return problem(spec.name, f"{message}: not a whole set", f"Set {wanted}.", Exit.CREDENTIALS)
    if odd := [name for name, secret in found.items() if _is_odd(secret)]:
        return warning(
            spec.name, f"{message}; {odd[0]} has blanks, quotes or letters that no key has", "Copy it again."
        )
    return ok(spec.name, message)


def any_set(spec: Spec, settings: Settings) -> bool:
    """Return True if any credential variable of the provider is set."""
    names = (name for names in lanes.credential_names(spec) for name in names)
    return any(settings.text(name) or settings.text(f"{name}_FILE") for name in names)


def _source(settings: Settings, name: str) -> str:
    """Return a note if a credential comes from a file, as a suffix of its variable's name."""
    if not settings.text(f"{name}_FILE"):
        return ""
    return " (its file; the variable itself is not looked at)" if settings.text(name) else " (its file)"


def _mark(secret: Secret) -> str:
    """Return four hexadecimal digits by which the user can recognise a secret."""
    return f"#{hashlib.sha256(secret.reveal().encode()).hexdigest()[:4]}"


def _is_odd(secret: Secret) -> bool:
    """Return True if a secret has characters that no provider's key has."""
    text = secret.reveal()
    return not text.isascii() or not text.isprintable() or any(char in " \"'" for char in text)


def address(spec: Spec, settings: Settings, *, needed: bool) -> Iterator[Sign]:
    """Check the provider's address.

    Yields nothing if it is the usual one.
    """
    name = f"{spec.env}_BASE_URL"
    url = settings.text(name)
    if url is None:
        if spec.base_url is None and needed:
            yield problem(spec.name, "nobody says where it is", f"Set {name}, e.g. https://api.example.com")
        return
    try:
        check_base(url)
    except ConfigError as error:
        yield problem(spec.name, f"{name}: {clean(error.message)}", error.hint)
        return
    if lanes.on_loopback(url):
        yield warning(spec.name, f"{name} leads to this machine, as for a sandbox", f"For real: unset {name}")
    elif url != spec.base_url:
        yield ok(spec.name, f"at {clean(url)} ({name})")


async def asked(spec: Spec, settings: Settings, now: Callable[[], float]) -> Iterator[Sign]:
    """Send one request that is free of charge, with the credentials, and check the answer.

    `now` returns seconds since the epoch. A provider without credentials or address is not asked.
    """
    try:
        token = await TokenFile(lanes.home(spec, settings)).read()
        client = Gateway(lanes.base_url(spec, settings), lanes.scheme(spec, settings), deadlines=_DEADLINES)
    except ConfigError as error:
        return iter([ok(spec.name, f"not asked: {error.message}")])
    try:
        outcome = await client.send(Dialect(spec).probe())
    finally:
        await client.aclose()
    return _heard(spec, outcome, now(), kept=token is not None and token[1] > now())


def _heard(spec: Spec, outcome: Reply | NotSent | NoAnswer, now: float, *, kept: bool) -> Iterator[Sign]:
    """Yield what the outcome of the free request shows.

    `now` is in seconds since the epoch.
    """
    match outcome:
        case NotSent(error):
            yield problem(
                spec.name, f"cannot be reached: {clean(error)}", "Check the network, the address and proxies."
            )
        case NoAnswer(error):
            yield warning(spec.name, f"no whole answer: {clean(error)}", "Try again later.")
        case Reply():
            yield _answer(spec, outcome, kept=kept)
            yield from _clock(spec, outcome, now)


def _answer(spec: Spec, reply: Reply, *, kept: bool) -> Sign:
    """Return what the provider's answer says about the credentials and the account."""
    used = "the token that is kept; the secret key is tried when that ends" if kept else "the credentials"
    if is_good(spec, reply, "query"):
        return ok(spec.name, f"answers, and takes {used}")
    classification = judge(spec, reply, "query")
    reason = f"{classification.fault.message or ''} (code {classification.fault.code})"
    match classification.meaning:
        case "absent":
            return ok(spec.name, f"answers, and takes {used}")
        case "credentials":
            return problem(spec.name, f"refuses the credentials: {reason}", "Renew them.", Exit.CREDENTIALS)
        case "configuration" | "account":
            return problem(spec.name, f"does not answer as it should: {reason}", f"Check {spec.env}_BASE_URL.")
        case _:
            return warning(spec.name, f"answers: {reason}", "Try again later; its console may know more.")


def _clock(spec: Spec, reply: Reply, now: float) -> Iterator[Sign]:
    """Compare this machine's clock with the answer's Date header.

    Yields nothing if the answer has none.
    """
    server = server_time(reply)
    if server is None:
        return
    ahead = now - server
    message = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {spec.name}'s"
    hint = "Let NTP set it, e.g. timedatectl set-ntp true."
    if abs(ahead) <= _APART:
        yield ok("clock", f"{message}, as good as the same")
    elif abs(ahead) <= _FAR_APART:
        yield warning("clock", message, hint)
    else:
        yield problem("clock", message, hint)
