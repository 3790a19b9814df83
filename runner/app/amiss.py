"""The open issues of a job, for summaries and `status`.

This module imports little, because `status` is called often and must start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.app.units import unit_of
from runner.report.advice import Findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.settings import Settings
    from runner.store.view import View


def findings(job: View, settings: Settings, words: Sequence[str], endings: Sequence[tuple[int, str]] = ()) -> Findings:
    """Return what needs attention in a job: failed, held, doubtful and unfinished tasks.

    `words` are the command-line arguments that name the job. `endings` are exit codes and reasons of the last run.
    """
    return Findings(
        faults=job.faults(),
        held=job.in_state("held"),
        in_doubt=job.counts().get("in_doubt", 0),
        left=job.left(),
        given_up=job.given_up(),
        endings=endings,
        unit=unit_of(job.providers(), settings) if job.has_costs() else "",
        words=words,
    )
