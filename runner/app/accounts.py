"""What `doctor` says of providers: their addresses, what is set of their credentials, and what they answer.

A credential is never shown: four hexadecimal digits of a hash tell whether it is the one that was meant.
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

#: seconds: what a person waits for
_DEADLINES = Deadlines(connect=5.0, read=10.0, total=15.0)
#: seconds by which clocks may differ before it is worth a word, and before look-ups go wrong
_APART, _FAR_APART = 30.0, 300.0


def credentials(spec: Spec, settings: Settings, *, needed: bool) -> Sign:
    """Which variables are set; a set that is not complete is a problem always, none at all where they are needed."""
    sets = lanes.credential_names(spec)
    wanted = " or ".join(" + ".join(names) for names in sets)
    try:
        found = {name: secret for names in sets for name in names if (secret := settings.secret(name)) is not None}
    except ConfigError as error:
        return problem(spec.name, error.message, error.hint)
    if not found:
        cure = f"Set {wanted}."
        return (
            problem(spec.name, "no credentials", cure, Exit.CREDENTIALS) if needed else ok(spec.name, "no credentials")
        )
    said = ", ".join(f"{name}{_source(settings, name)} {_mark(secret)}" for name, secret in found.items())
    if not any(set(names) <= set(found) for names in sets):
        return problem(spec.name, f"{said}: not a whole set", f"Set {wanted}.", Exit.CREDENTIALS)
    if odd := [name for name, secret in found.items() if _is_odd(secret)]:
        return warning(spec.name, f"{said}; {odd[0]} has blanks, quotes or letters that no key has", "Copy it again.")
    return ok(spec.name, said)


def any_set(spec: Spec, settings: Settings) -> bool:
    """Whether the environment says anything about the provider's credentials."""
    names = (name for names in lanes.credential_names(spec) for name in names)
    return any(settings.text(name) or settings.text(f"{name}_FILE") for name in names)


def _source(settings: Settings, name: str) -> str:
    if not settings.text(f"{name}_FILE"):
        return ""
    return " (its file; the variable itself is not looked at)" if settings.text(name) else " (its file)"


def _mark(secret: Secret) -> str:
    return f"#{hashlib.sha256(secret.reveal().encode()).hexdigest()[:4]}"


def _is_odd(secret: Secret) -> bool:
    text = secret.reveal()
    return not text.isascii() or not text.isprintable() or any(char in " \"'" for char in text)


def address(spec: Spec, settings: Settings, *, needed: bool) -> Iterator[Sign]:
    """Where the provider is, if that is worth a word."""
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
    """Ask one question that is free of charge, with the credentials; `now` gives seconds since the epoch."""
    try:
        token = await TokenFile(lanes.home(spec, settings)).read()
        gateway = Gateway(lanes.base_url(spec, settings), lanes.scheme(spec, settings), deadlines=_DEADLINES)
    except ConfigError as error:
        return iter([ok(spec.name, f"not asked: {error.message}")])
    try:
        outcome = await gateway.send(Dialect(spec).probe())
    finally:
        await gateway.aclose()
    return _heard(spec, outcome, now(), kept=token is not None and token[1] > now())


def _heard(spec: Spec, outcome: Reply | NotSent | NoAnswer, now: float, *, kept: bool) -> Iterator[Sign]:
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
    taken = "the token that is kept; the secret key is tried when that ends" if kept else "the credentials"
    if is_good(spec, reply, "query"):
        return ok(spec.name, f"answers, and takes {taken}")
    verdict = judge(spec, reply, "query")
    told = f"{verdict.fault.message or ''} (code {verdict.fault.code})"
    match verdict.meaning:
        case "absent":
            return ok(spec.name, f"answers, and takes {taken}")
        case "credentials":
            return problem(spec.name, f"refuses the credentials: {told}", "Renew them.", Exit.CREDENTIALS)
        case "configuration" | "account":
            return problem(spec.name, f"does not answer as it should: {told}", f"Check {spec.env}_BASE_URL.")
        case _:
            return warning(spec.name, f"answers: {told}", "Try again later; its console may know more.")


def _clock(spec: Spec, reply: Reply, now: float) -> Iterator[Sign]:
    server = server_time(reply)
    if server is None:
        return
    ahead = now - server
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {spec.name}'s"
    cure = "Let NTP set it, e.g. timedatectl set-ntp true."
    if abs(ahead) <= _APART:
        yield ok("clock", f"{said}, as good as the same")
    elif abs(ahead) <= _FAR_APART:
        yield warning("clock", said, cure)
    else:
        yield problem("clock", said, cure)
