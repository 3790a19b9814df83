"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem


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
