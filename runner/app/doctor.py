"""`doctor`: check this machine, a job's directories and its providers before a run, and leave no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from runner.app import accounts, machine, places
from runner.app.jobs import load
from runner.app.sign import Sign, ok, warning
from runner.pipeline.clock import Clock
from runner.pipeline.outcome import Ending, Exit, run_outcome
from runner.providers import spec as specs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.lifecycle.task import Draft
    from runner.manifest.parse import Parsed
    from runner.providers.spec import Spec
    from runner.settings import Settings


def examined(
    settings: Settings, manifest: Path | None, *, out: Path | None, encoding: str, online: bool
) -> Iterator[Sign]:
    """Yield every check's result as soon as it is known.

    With a manifest, check only its job directory and its providers. `encoding` is that of stdout. Raises ManifestError.
    """
    clock = Clock()
    directory, used = _job(settings, manifest, out)
    yield from machine.signs(settings.environ, encoding=encoding, now=clock.now())
    yield from places.home(settings.home)
    if directory is not None:
        yield from places.job(directory)
    known = [specs.load(name, settings.providers) for name in used or sorted(specs.names(settings.providers))]
    yield from _providers(known, settings, needed=bool(used))
    if not online:
        yield ok("providers", "not asked: --online asks each a question that is free of charge")
        return
    for spec in known:
        yield from anyio.run(accounts.asked, spec, settings, clock.now)


def verdict(results: list[Sign]) -> Exit:
    """Return the exit code of the worst problem."""
    return run_outcome(Ending(result.exit, result.said) for result in results if result.exit).exit


def _job(settings: Settings, manifest: Path | None, out: Path | None) -> tuple[Path | None, list[str]]:
    """Return the job's directory and the sorted names of the providers that its tasks use."""
    if manifest is None:
        return None, []
    used: set[str] = set()

    def add_provider(_parsed: Parsed, draft: Draft) -> None:
        used.add(draft.provider)

    return load(manifest, settings, out=out, each=add_provider).directory, sorted(used)


def _providers(known: list[Spec], settings: Settings, *, needed: bool) -> Iterator[Sign]:
    """Check address and credentials of every provider.

    `needed` says that a job uses them.
    """
    for spec in known:
        yield accounts.credentials(spec, settings, needed=needed)
        yield from accounts.address(spec, settings, needed=needed)
    if not needed and not any(accounts.any_set(spec, settings) for spec in known):
        yield warning(
            "providers", "none has credentials, so that only --sandbox works", "`runner providers` names them."
        )
