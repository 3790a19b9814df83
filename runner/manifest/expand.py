"""Expand a manifest into drafts of tasks, lazily and always in the same order.

Rows are the outer loop, then the axes of `matrix` as written (the last one changes fastest, those of a `zip` change
together where the `zip` stands), then its added rows, then `repeat`. A parameter is set by the matrix, else by
`params`, else by a column of its name. The same content always has the same key. Identical tasks merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.manifest import parse
from runner.manifest.report import Report
from runner.manifest.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.errors import Problem
    from runner.lifecycle.task import Draft
    from runner.manifest.parse import Parsed
    from runner.manifest.recipe import Catalogue


#: callback that gets each draft of a manifest while the manifest is checked
Each = Callable[["Parsed", "Draft"], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of checking a manifest."""

    tasks: int
    #: number of tasks that were identical to an earlier one and merged with it
    merged: int
    #: warnings in the order of the files
    warnings: tuple[Problem, ...] = field(default=(), compare=False)


def expand(parsed: Parsed, catalogue: Catalogue) -> Iterator[Draft]:
    """Yield the drafts of a manifest one by one. Raise ManifestError at the first that is wrong."""
    diagnostics = Report(parsed.manifest.file)
    for draft in Walk(parsed, catalogue, diagnostics).drafts():
        diagnostics.raise_any()
        yield draft
    diagnostics.raise_any()


def check(parsed: Parsed, catalogue: Catalogue) -> Summary:
    """Expand a manifest without keeping its drafts, and return the summary.

    Raise ManifestError with all diagnostics if there are errors.
    """
    diagnostics = Report(parsed.manifest.file)
    summary = _counted(parsed, catalogue, diagnostics)
    diagnostics.raise_any()
    return summary


def examine(
    text: bytes, path: Path, catalogue: Catalogue, *, out: Path | None = None, each: Each | None = None
) -> tuple[Parsed, Summary]:
    """Parse and check a manifest in one step, so that the user sees the errors of both at once.

    Call `on_draft` with every draft. Raise ManifestError with all diagnostics if there are errors.
    """
    parsed, diagnostics = parse.attempt(text, path, out=out)
    if parsed is None:
        raise diagnostics.error()
    summary = _counted(parsed, catalogue, diagnostics, each)
    diagnostics.raise_any()
    return parsed, summary


def _counted(parsed: Parsed, catalogue: Catalogue, diagnostics: Report, on_draft: Each | None = None) -> Summary:
    expander = Walk(parsed, catalogue, diagnostics)
    for draft in expander.drafts():
        if on_draft is not None:
            on_draft(parsed, draft)
    return Summary(expander.made, expander.merged, diagnostics.warnings)
