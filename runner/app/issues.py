"""The open issues of a job, for summaries and `status`.

This module imports little, because `status` is called often and must start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.report.summary import JobIssues

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.settings import Settings
    from runner.store.read_only import ReadOnlyQueries


def job_issues(
    job: ReadOnlyQueries, settings: Settings, words: Sequence[str], endings: Sequence[tuple[int, str]] = ()
) -> JobIssues:
    """Return what needs attention in a job: failed, held, doubtful and unfinished tasks.

    `words` are the command-line arguments that name the job. `endings` are exit codes and reasons of the last run.
    """
    return JobIssues(
        groups=job.error_groups(),
        held=job.in_state("held"),
        in_doubt=job.counts().get("in_doubt", 0),
        suspects=job.suspects("in_doubt"),
        held_suspects=job.suspects("held"),
        removed=job.removed_sent_count(),
        removed_failed=job.removed_failed_count(),
        endings=endings,
        unit=cost_unit(job.bound_providers(), settings) if job.has_costs() else "",
        arguments=words,
    )


def cost_unit(providers: Iterable[str], settings: Settings) -> str:
    """Return the unit that all providers share, or "" if they differ or a spec is missing."""
    from runner.providers import spec as specs  # noqa: PLC0415 - takes 0.2 s, which `status` mostly does not need

    known = specs.spec_paths(settings.providers)
    units = {specs.load(name, settings.providers).unit if name in known else "" for name in providers}
    return units.pop() if len(units) == 1 else ""
