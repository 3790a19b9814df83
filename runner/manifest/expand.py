"""A Manifest to Drafts: lazily, always in the same order, the same content always under the same key.

Rows are the outer loop, then the axes of `matrix` as written (the last turns fastest; those of a `zip` turn as one,
where the `zip` stands), then its added rows, then `repeat`. A parameter is set by the matrix, else by `params`, else by
a column of its name. Identical tasks merge.
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


#: what a caller does with each draft of a manifest while it is checked
Each = Callable[["Parsed", "Draft"], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a manifest comes to."""

    tasks: int
    #: identical to an earlier task, and merged with it
    merged: int
    #: what may be a slip, in the order of the files
    warnings: tuple[Problem, ...] = field(default=(), compare=False)


def expand(parsed: Parsed, catalogue: Catalogue) -> Iterator[Draft]:
    """The drafts of a manifest, one by one; ManifestError at the first that cannot be made."""
    report = Report(parsed.manifest.file)
    for draft in Walk(parsed, catalogue, report).drafts():
        report.raise_any()
        yield draft
    report.raise_any()


def check(parsed: Parsed, catalogue: Catalogue) -> Summary:
    """Looks at every task; ManifestError with every problem."""
    report = Report(parsed.manifest.file)
    summary = _counted(parsed, catalogue, report)
    report.raise_any()
    return summary


def examine(
    text: bytes, path: Path, catalogue: Catalogue, *, out: Path | None = None, each: Each | None = None
) -> tuple[Parsed, Summary]:
    """Parse and check in one, so that a person sees every problem of both at once; `each` sees every draft."""
    parsed, report = parse.attempt(text, path, out=out)
    if parsed is None:
        raise report.error()
    summary = _counted(parsed, catalogue, report, each)
    report.raise_any()
    return parsed, summary


def _counted(parsed: Parsed, catalogue: Catalogue, report: Report, each: Each | None = None) -> Summary:
    walk = Walk(parsed, catalogue, report)
    for draft in walk.drafts():
        if each is not None:
            each(parsed, draft)
    return Summary(walk.made, walk.merged, report.warnings)
