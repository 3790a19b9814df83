"""`doctor`: check this machine, a job's directories and its providers before a run, and leave no trace."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import sys
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING

import anyio

from runner import __version__
from runner.app import provider_config
from runner.app.account_state import known_accounts
from runner.app.check_result import CheckResult, ok, problem, warning
from runner.app.job import load
from runner.app.network_checks import check_proxies, check_trust_store
from runner.errors import ConfigError, DiskError
from runner.files import ACCOUNTS
from runner.net.addresses import check_base
from runner.net.client import Deadlines, ProviderClient
from runner.providers import spec as specs
from runner.providers.requests import Dialect, NoAnswer, NotSent, Reply
from runner.providers.responses import classify_response, is_success, sanitize_reply, server_time
from runner.report.guarantee_text import class_text, grouped
from runner.report.results import iso_timestamp
from runner.scheduler.clock import Clock
from runner.scheduler.outcome import Ending, Exit, run_outcome
from runner.store import database, filesystem
from runner.store.account import TokenFile
from runner.store.binding import is_fleeting, mark_file
from runner.text import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from runner.app.account_state import AccountState
    from runner.manifest.parser import ParsedManifest
    from runner.providers.spec import Spec
    from runner.settings import Secret, Settings
    from runner.tasks.models import Draft


def run_checks(
    settings: Settings, manifest: Path | None, *, out: Path | None, encoding: str, online: bool
) -> Iterator[CheckResult]:
    """Yield every check's result as soon as it is known.

    With a manifest, check only its job directory and its providers. `encoding` is that of stdout. Raises ManifestError.
    """
    clock = Clock()
    directory, used = _directory_and_providers(settings, manifest, out)
    yield from check_machine(settings.environ, encoding=encoding, now=clock.now())
    yield from check_home(settings.home)
    if directory is not None:
        yield from check_job_directory(directory)
    known = [specs.load(name, settings.providers) for name in used or sorted(specs.spec_paths(settings.providers))]
    yield from _check_providers(known, settings, needed=bool(used))
    for spec, account in zip(known, known_accounts(known, settings).values(), strict=True):
        yield from check_account(spec, account, clock.now())
    if not online:
        yield ok("providers", "not asked: --online asks each a question that is free of charge")
        return
    for spec in known:
        yield from anyio.run(check_online, spec, settings, clock.now)


def worst_exit_code(results: list[CheckResult]) -> Exit:
    """Return the exit code of the worst problem."""
    return run_outcome(Ending(result.exit_code, result.message) for result in results if result.exit_code).exit


def _directory_and_providers(
    settings: Settings, manifest: Path | None, out: Path | None
) -> tuple[Path | None, list[str]]:
    """Return the job's directory and the sorted names of the providers that its tasks use."""
    if manifest is None:
        return None, []
    used: set[str] = set()

    def add_provider(_parsed: ParsedManifest, draft: Draft) -> None:
        used.add(draft.provider)

    return load(manifest, settings, out=out, on_draft=add_provider).directory, sorted(used)


def _check_providers(known: list[Spec], settings: Settings, *, needed: bool) -> Iterator[CheckResult]:
    """Check address and credentials of every provider.

    `needed` says that a job uses them.
    """
    for spec in known:
        yield check_credentials(spec, settings, needed=needed)
        yield from check_address(spec, settings, needed=needed)
    if not needed and not any(has_any_credential(spec, settings) for spec in known):
        yield warning(
            "providers", "none has credentials, so that only --sandbox works", "`runner providers` names them."
        )


#: seconds; short, because the user waits for the result
_ONLINE_DEADLINES = Deadlines(connect=5.0, read=10.0, total=15.0)
#: seconds of clock difference above which `doctor` warns, and above which reconciling goes wrong
_CLOCK_TOLERANCE, _CLOCK_LIMIT = 30.0, 300.0


def check_credentials(spec: Spec, settings: Settings, *, needed: bool) -> CheckResult:
    """Check which credential variables of a provider are set.

    An incomplete set is always a problem. No credentials at all are one only if they are `needed`.
    """
    sets = provider_config.credential_names(spec)
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
    message = ", ".join(
        f"{name}{_variable_source(settings, name)} {_secret_mark(secret)}" for name, secret in found.items()
    )
    if not any(set(names) <= set(found) for names in sets):
        return problem(spec.name, f"{message}: not a whole set", f"Set {wanted}.", Exit.CREDENTIALS)
    if odd := [name for name, secret in found.items() if _has_odd_characters(secret)]:
        return warning(
            spec.name, f"{message}; {odd[0]} has blanks, quotes or letters that no key has", "Copy it again."
        )
    return ok(spec.name, message)


def check_account(spec: Spec, account: AccountState, now: float) -> Iterator[CheckResult]:
    """Check what is known of a provider's account, if a job has run there. `now` is in seconds since the epoch."""
    for text in account.published.problems:
        yield warning(spec.name, text, "It is left out; mend or remove it.")
    if broken := account.published.contradicted:
        seen = f"others saw it not keep its word: {', '.join(broken[:3])}"
        yield warning(spec.name, seen, f"Before a large job: runner probe {spec.name} measures it on your account.")
    if account.problem and (account.address or any(account.facts.values())):
        yield warning(spec.name, account.problem, "Until then nothing is known of the account.")
    if not any(account.facts.values()):
        return
    found = [each for each in account.guarantees(now) if each.basis != "unknown" or each.measured_at or each.tasks]
    for names, text in grouped(found, lambda each: class_text(each, now)):
        bases = {each.basis: each for each in found if class_text(each, now) == text}
        if "contradicted" in bases:
            yield warning(
                spec.name, f"{names}: {text}", f"Lost answers are held. To measure it anew: runner probe {spec.name}"
            )
        elif "unknown" in bases:
            yield warning(spec.name, f"{names}: {text}", "The next run measures it again with its first tasks (free).")
        else:
            yield ok(spec.name, f"{names}: {text}")


def has_any_credential(spec: Spec, settings: Settings) -> bool:
    """Return True if any credential variable of the provider is set."""
    names = (name for names in provider_config.credential_names(spec) for name in names)
    return any(settings.text(name) or settings.text(f"{name}_FILE") for name in names)


def _variable_source(settings: Settings, name: str) -> str:
    """Return a note if a credential comes from a file, as a suffix of its variable's name."""
    if not settings.text(f"{name}_FILE"):
        return ""
    return " (its file; the variable itself is not looked at)" if settings.text(name) else " (its file)"


def _secret_mark(secret: Secret) -> str:
    """Return four hexadecimal digits by which the user can recognise a secret."""
    return f"#{hashlib.sha256(secret.reveal().encode()).hexdigest()[:4]}"


def _has_odd_characters(secret: Secret) -> bool:
    """Return True if a secret has characters that no provider's key has."""
    text = secret.reveal()
    return not text.isascii() or not text.isprintable() or any(char in " \"'" for char in text)


def check_address(spec: Spec, settings: Settings, *, needed: bool) -> Iterator[CheckResult]:
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
        yield problem(spec.name, f"{name}: {sanitize_reply(error.message)}", error.hint)
        return
    if provider_config.is_on_loopback(url):
        yield warning(spec.name, f"{name} leads to this machine, as for a sandbox", f"For real: unset {name}")
    elif url != spec.base_url:
        yield ok(spec.name, f"at {sanitize_reply(url)} ({name})")


async def check_online(spec: Spec, settings: Settings, now: Callable[[], float]) -> Iterator[CheckResult]:
    """Send one request that is free of charge, with the credentials, and check the answer.

    `now` returns seconds since the epoch. A provider without credentials or address is not asked.
    """
    try:
        token = await TokenFile(provider_config.account_directory(spec, settings)).read()
        client = ProviderClient(
            provider_config.base_url(spec, settings),
            provider_config.auth_scheme(spec, settings),
            deadlines=_ONLINE_DEADLINES,
            **provider_config.way_out(settings),
        )
    except ConfigError as error:
        return iter([ok(spec.name, f"not asked: {error.message}")])
    try:
        outcome = await client.send(Dialect(spec).probe())
    finally:
        await client.aclose()
    return _online_results(spec, outcome, now(), has_stored_token=token is not None and token[1] > now())


def _online_results(
    spec: Spec, outcome: Reply | NotSent | NoAnswer, now: float, *, has_stored_token: bool
) -> Iterator[CheckResult]:
    """Yield what the outcome of the free request shows.

    `now` is in seconds since the epoch.
    """
    match outcome:
        case NotSent(error):
            yield problem(
                spec.name, f"cannot be reached: {sanitize_reply(error)}", "Check the network, the address and proxies."
            )
        case NoAnswer(error):
            yield warning(spec.name, f"no whole answer: {sanitize_reply(error)}", "Try again later.")
        case Reply():
            yield _reply_result(spec, outcome, has_stored_token=has_stored_token)
            yield from _clock_results(spec, outcome, now)


def _reply_result(spec: Spec, reply: Reply, *, has_stored_token: bool) -> CheckResult:
    """Return what the provider's answer says about the credentials and the account."""
    used = "the token that is kept; the secret key is tried when that ends" if has_stored_token else "the credentials"
    if is_success(spec, reply, "query"):
        return ok(spec.name, f"answers, and takes {used}")
    classification = classify_response(spec, reply, "query")
    reason = f"{classification.error.message or ''} (code {classification.error.code})"
    match classification.meaning:
        case "absent":
            return ok(spec.name, f"answers, and takes {used}")
        case "credentials":
            return problem(spec.name, f"refuses the credentials: {reason}", "Renew them.", Exit.CREDENTIALS)
        case "configuration" | "account":
            return problem(spec.name, f"does not answer as it should: {reason}", f"Check {spec.env}_BASE_URL.")
        case _:
            return warning(spec.name, f"answers: {reason}", "Try again later; its console may know more.")


def _clock_results(spec: Spec, reply: Reply, now: float) -> Iterator[CheckResult]:
    """Compare this machine's clock with the answer's Date header.

    Yields nothing if the answer has none.
    """
    server = server_time(reply)
    if server is None:
        return
    ahead = now - server
    message = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {spec.name}'s"
    hint = "Let NTP set it, e.g. timedatectl set-ntp true."
    if abs(ahead) <= _CLOCK_TOLERANCE:
        yield ok("clock", f"{message}, as good as the same")
    elif abs(ahead) <= _CLOCK_LIMIT:
        yield warning("clock", message, hint)
    else:
        yield problem("clock", message, hint)


#: by optional dependency, the modules that it installs
_EXTRAS = {
    "sandbox": ("av", "h11", "PIL"),
    "gallery": ("av", "PIL"),
    "web": ("starlette", "uvicorn"),
    "parquet": ("pyarrow",),
    "notify": ("apprise",),
    "tables": ("python_calamine",),
}
#: seconds since the epoch: 2025-01-01; a clock before that was never set
_EARLIEST_CLOCK = 1_735_689_600.0


def check_machine(environ: Mapping[str, str], *, encoding: str, now: float) -> Iterator[CheckResult]:
    """Yield the result of every check.

    `encoding` is that of stdout, `now` is in seconds since the epoch.
    """
    yield ok("program", f"genrunner {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield _check_extras()
    yield _check_sqlite(database.SQLITE_VERSION)
    yield _check_encoding(encoding, sys.getfilesystemencoding())
    yield check_trust_store(environ)
    yield check_proxies(environ)
    yield _check_clock(now)


def _check_extras() -> CheckResult:
    """Check which optional dependencies are installed."""
    missing = [name for name, modules in _EXTRAS.items() if not all(find_spec(module) for module in modules)]
    if not missing:
        return ok("extras", f"all are installed: {', '.join(_EXTRAS)}")
    return ok("extras", f"not installed: {', '.join(missing)}", f'pip install "genrunner[{",".join(missing)}]"')


def _check_sqlite(version: tuple[int, ...]) -> CheckResult:
    """Check that SQLite is new enough, and name its WAL-reset race if it has it."""
    text = ".".join(map(str, version))
    if version < database.MIN_SQLITE_VERSION:
        oldest = ".".join(map(str, database.MIN_SQLITE_VERSION))
        return problem("sqlite", f"{text} is too old; {oldest} or newer is needed", "Use a newer Python.")
    race = (
        "; its WAL-reset race needs two connections that write, and a job has one"
        if database.has_wal_race(version)
        else ""
    )
    return ok("sqlite", f"{text}{race}")


def _check_encoding(encoding: str, names: str) -> CheckResult:
    """Check that stdout and file names are encoded as UTF-8."""
    others = [each for each in (encoding, names) if each.lower().replace("-", "") != "utf8"]
    if not others:
        return ok("text", "UTF-8")
    return warning(
        "text", f"{others[0]}, not UTF-8: Chinese text and names cannot be shown", "export PYTHONUTF8=1 LANG=C.UTF-8"
    )


def _check_clock(now: float) -> CheckResult:
    """Check that the clock was ever set."""
    if now < _EARLIEST_CLOCK:
        return problem(
            "clock", f"it says {iso_timestamp(now)}", "Set it, best by NTP: keys and certificates depend on it."
        )
    return ok("clock", f"{iso_timestamp(now)}; `--online` compares it with the provider's")


#: bytes of free space below which a run will stop soon, and below which it may stop
_MIN_FREE_BYTES, _LOW_FREE_BYTES = 50 * 10**6, 10**9
#: files that must still fit into a file system's table of names
_MIN_FREE_NAMES = 1_000
#: files whose owner is checked
_MAX_OWNER_CHECKS = 1_000


def check_home(path: Path) -> Iterator[CheckResult]:
    """Check `RUNNER_HOME`, the directory that an account's jobs share."""
    yield from _check_directory("home", path, "Set RUNNER_HOME to a directory of yours on a disk of this machine.")
    if (kind := filesystem.filesystem_kind(_nearest_existing(path))) and is_fleeting(_nearest_existing(path)):
        message = f"{path} is on {kind}, which ends with the machine or container: purchases are forgotten with it"
        yield warning("home", message, "Set RUNNER_HOME to a directory on a disk, or mount a volume there.")
    if path.is_dir():
        yield from _check_owner("home", path)
        yield from _check_rights("home", [path, path / ACCOUNTS], stat.S_IWGRP | stat.S_IWOTH)
        yield from _check_rights("home", path.glob(f"{ACCOUNTS}/*"), stat.S_IRWXG | stat.S_IRWXO)


def check_job_directory(directory: Path) -> Iterator[CheckResult]:
    """Check a job directory and its private state directory."""
    yield from _check_directory("job", directory, "Mend that, or choose another directory with --out.")
    state = directory / ".runner"
    if not state.is_dir():
        return
    mark = mark_file(state / "journal.jsonl")
    if mark is not None and not mark.is_lasting:
        message = f"{state}: its file system gives files no lasting marks, so that a copy of this job is not recognised"
        yield warning("job", message, "Never start a copy of it; RUNNER_LEASE on another disk recognises one.")
    yield from _check_owner("job", state)
    yield from _check_rights("job", [state], stat.S_IRWXG | stat.S_IRWXO)
    if not (state / "ballast").exists():
        yield warning("job", f"{state}/ballast is gone: room for ids when the disk is full", "The next run makes it.")


def _check_directory(check: str, path: Path, hint: str) -> Iterator[CheckResult]:
    """Check file system and free space of a directory.

    `hint` says what to do if the file system is unfit.
    """
    existing = _nearest_existing(path)
    try:
        filesystem.check(existing)
    except DiskError as error:
        yield problem(check, error.message, hint, Exit.DISK)
        return
    free = shutil.disk_usage(existing).free
    kind = filesystem.filesystem_kind(existing)
    message = (
        f"{path}{'' if existing == path else ' (to be made)'}, {format_size(free)} free{f' on {kind}' if kind else ''}"
    )
    names = os.statvfs(existing)
    if free < _MIN_FREE_BYTES or (names.f_files and names.f_favail < _MIN_FREE_NAMES):
        yield problem(check, f"{message}: the disk is full", "Make room.", Exit.DISK)
    elif free < _LOW_FREE_BYTES:
        yield warning(check, f"{message}: little", "Make room before a large job.")
    else:
        yield ok(check, message)


def _nearest_existing(path: Path) -> Path:
    """Return the directory, or its nearest parent that exists, in which it would be made."""
    path = path.absolute()
    return next(directory for directory in (path, *path.parents) if directory.exists())


def _check_owner(check: str, directory: Path) -> Iterator[CheckResult]:
    """Report the first file of another user, as a run with sudo leaves them."""
    user = os.geteuid()
    for path in islice((directory, *directory.rglob("*")), _MAX_OWNER_CHECKS if user else 0):
        with suppress(FileNotFoundError):  # a run may delete files meanwhile
            if path.lstat().st_uid != user:
                yield problem(check, f"{path} belongs to another user", f"sudo chown -R {user} {directory}")
                return


def _check_rights(check: str, directories: Iterable[Path], rights: int) -> Iterator[CheckResult]:
    """Report the directories that give any of these access rights to other users."""
    for directory in directories:
        if directory.is_dir() and directory.stat().st_mode & rights:
            yield warning(check, f"{directory} is open to others", f"chmod go-rwx {directory}")
