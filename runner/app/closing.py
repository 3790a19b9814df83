"""The end of a run: results on the disk, the promised summary, and what a person should do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import DiskError
from runner.report import results
from runner.report.advice import Findings
from runner.report.summary import summary
from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.app.jobs import Job
    from runner.app.rooms import Choices
    from runner.pipeline.outcome import Outcome
    from runner.report.tally import Tally
    from runner.settings import Settings
    from runner.store.view import View


def closed(
    job: Job, choices: Choices, outcome: Outcome, tally: Tally, seconds: float
) -> tuple[dict[str, Any], Findings]:
    """The summary of a run that took so many seconds, and what it left; raises DiskError."""
    with view(job.state) as seen:
        try:
            results.write(job.directory / "results.jsonl", seen.results())
        except OSError as error:
            raise DiskError(
                f"results.jsonl: {error.strerror}", hint="The state is safe; run the command again."
            ) from None
        endings = [(int(ending.exit), ending.why) for ending in outcome.endings]
        found = findings(seen, job.settings, _words(job, choices), endings)
        told = summary(
            job.manifest.name,
            exit_code=outcome.exit,
            reasons=[why for _, why in endings],
            counts=seen.counts(),
            tally=tally,
            in_doubt=[task["key"] for task in (*seen.in_state("in_doubt"), *found.held)],
            seconds=seconds,
            findings=found,
        )
        return told, found


def findings(seen: View, settings: Settings, words: Sequence[str], endings: Sequence[tuple[int, str]] = ()) -> Findings:
    """What a job has that is not as it should be; `words` name it on a command line."""
    return Findings(
        faults=seen.faults(),
        held=seen.in_state("held"),
        in_doubt=seen.counts().get("in_doubt", 0),
        left=seen.left(),
        endings=endings,
        unit=_unit(seen.providers(), settings) if seen.has_costs() else "",
        words=words,
    )


def _unit(providers: Iterable[str], settings: Settings) -> str:
    """What all of them count costs in; empty where they differ, or where one's spec is not at hand."""
    from runner.providers import spec as specs  # noqa: PLC0415 - 0.2 s, which `status` has no other need of

    known = specs.names(settings.providers)
    units = {specs.load(name, settings.providers).unit if name in known else "" for name in providers}
    return units.pop() if len(units) == 1 else ""


def _words(job: Job, choices: Choices) -> list[str]:
    """The manifest and the options that the next command needs as well: without them it would be another job."""
    out = ["--out", str(choices.out)] if choices.out else []
    return [job.manifest.file, *(["--sandbox"] if job.in_sandbox else []), *out]
