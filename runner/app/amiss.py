"""What is not as it should be in a job; on its own, since `status` is asked often and loads no more than this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.app.units import unit_of
from runner.report.advice import Findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.settings import Settings
    from runner.store.view import View


def findings(seen: View, settings: Settings, words: Sequence[str], endings: Sequence[tuple[int, str]] = ()) -> Findings:
    """What a job has that is not as it should be; `words` name it on a command line."""
    return Findings(
        faults=seen.faults(),
        held=seen.in_state("held"),
        in_doubt=seen.counts().get("in_doubt", 0),
        left=seen.left(),
        given_up=seen.given_up(),
        endings=endings,
        unit=unit_of(seen.providers(), settings) if seen.has_costs() else "",
        words=words,
    )
