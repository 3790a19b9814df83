"""Options that several verbs share."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.errors import MAX_SHOWN, ManifestError, condense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from click.shell_completion import CompletionItem

    from runner.errors import Diagnostic


class _Manifest(click.Path):
    """Path that a shell completes to manifests first."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from runner.cli.completion import complete_manifest  # noqa: PLC0415 - needed only for shell completion

        return complete_manifest(ctx, param, incomplete)


#: a manifest or a job directory; the verb opens it, so that errors have our form and not click's
MANIFEST = _Manifest(path_type=Path)
#: any other path
PATH = click.Path(path_type=Path)


def job_directory(where: Path, out: Path | None, *, in_sandbox: bool) -> Path:
    """Return the job directory of a manifest, or the given directory itself.

    Raises JobNotFoundError or ManifestError.
    """
    if where.is_dir():
        return where
    from runner.app.job import directory_of  # noqa: PLC0415 - slow to import, and a directory needs no manifest

    return directory_of(where, out=out, in_sandbox=in_sandbox)


def as_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, which prints JSON on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")(function)


def all_lines(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--all`, which shows every mistake and warning and not one of each kind."""
    return click.option("--all", "show_all", is_flag=True, help="Every mistake and warning, not one line a kind.")(
        function
    )


def strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--strict`, which makes warnings of a manifest errors."""
    return click.option("--strict", is_flag=True, help="Take warnings of the manifest as errors: exit code 2.")(
        function
    )


@contextmanager
def errors_in_full(show_all: bool) -> Iterator[None]:
    """Show every mistake of a manifest that is raised in the block, if the user asked for that."""
    try:
        yield
    except ManifestError as error:
        raise (error.in_full() if show_all else error) from None


def warning_lines(warnings: Sequence[Diagnostic], *, show_all: bool) -> list[str]:
    """Return a line for each kind of warning, or for every one."""
    return [str(warning) for warning in warnings] if show_all else condense(warnings)


def refuse_warnings(warnings: Sequence[Diagnostic], *, strict: bool) -> None:
    """Raise ManifestError if there are warnings and the user takes them as errors."""
    if strict and warnings:
        first, others = warnings[:MAX_SHOWN], warnings[MAX_SHOWN:]
        raise ManifestError(
            first,
            omitted=len(others),
            others=others,
            hint="Nothing was sent: --strict takes warnings as errors. Correct them, or leave it out.",
        )


def out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--out`, which sets the job directory."""
    return click.option("--out", type=PATH, metavar="DIR", help="The job directory, instead of the manifest's.")(
        function
    )


def in_sandbox(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--sandbox`, which uses the sandbox and a separate job directory."""
    return click.option("--sandbox", "in_sandbox", is_flag=True, help="Use the sandbox and its own job directory.")(
        function
    )
