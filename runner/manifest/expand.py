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
from runner.manifest.report import Diagnostics
from runner.manifest.walk import ManifestExpander

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.errors import Diagnostic
    from runner.lifecycle.task import Draft
    from runner.manifest.parse import ParsedManifest
    from runner.manifest.recipe import ModelCatalogue


#: callback that gets each draft of a manifest while the manifest is checked
DraftCallback = Callable[["ParsedManifest", "Draft"], None]


@dataclass(frozen=True, slots=True)
class ExpansionSummary:
    """Result of checking a manifest."""

    tasks: int
    #: number of tasks that were identical to an earlier one and merged with it
    merged: int
    #: warnings in the order of the files
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False)


def expand(parsed: ParsedManifest, catalogue: ModelCatalogue) -> Iterator[Draft]:
    """Yield the drafts of a manifest one by one. Raise ManifestError at the first that is wrong."""
    diagnostics = Diagnostics(parsed.manifest.file)
    for draft in ManifestExpander(parsed, catalogue, diagnostics).drafts():
        diagnostics.raise_any()
        yield draft
    diagnostics.raise_any()


def check(parsed: ParsedManifest, catalogue: ModelCatalogue) -> ExpansionSummary:
    """Expand a manifest without keeping its drafts, and return the summary.

    Raise ManifestError with all diagnostics if there are errors.
    """
    diagnostics = Diagnostics(parsed.manifest.file)
    summary = _summarize(parsed, catalogue, diagnostics)
    diagnostics.raise_any()
    return summary


def parse_and_check(
    text: bytes,
    path: Path,
    catalogue: ModelCatalogue,
    *,
    out: Path | None = None,
    on_draft: DraftCallback | None = None,
) -> tuple[ParsedManifest, ExpansionSummary]:
    """Parse and check a manifest in one step, so that the user sees the errors of both at once.

    Call `on_draft` with every draft. Raise ManifestError with all diagnostics if there are errors.
    """
    parsed, diagnostics = parse.try_parse(text, path, out=out)
    if parsed is None:
        raise diagnostics.error()
    summary = _summarize(parsed, catalogue, diagnostics, on_draft)
    diagnostics.raise_any()
    return parsed, summary


def _summarize(
    parsed: ParsedManifest, catalogue: ModelCatalogue, diagnostics: Diagnostics, on_draft: DraftCallback | None = None
) -> ExpansionSummary:
    expander = ManifestExpander(parsed, catalogue, diagnostics)
    for draft in expander.drafts():
        if on_draft is not None:
            on_draft(parsed, draft)
    return ExpansionSummary(expander.draft_count, expander.merged_count, diagnostics.warnings)
