"""The end of a run: results on the disk, the promised summary, and what a person should do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner import logs
from runner.app.amiss import findings
from runner.errors import DiskError, RunnerError
from runner.report import results
from runner.report.summary import summary
from runner.store.view import view

if TYPE_CHECKING:
    from runner.app.jobs import Job
    from runner.app.rooms import Choices
    from runner.pipeline.clock import Clock
    from runner.pipeline.outcome import RunOutcome
    from runner.report.advice import Findings
    from runner.report.tally import Tally

#: seconds that thumbnails may take at the end of a run, and bytes of files that a browser shows as they are
_THUMBNAILS, _LIGHT = 2.0, 32 << 20


def closed(
    job: Job, choices: Choices, outcome: RunOutcome, tally: Tally, seconds: float
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


def shown(job: Job, clock: Clock, unit: str, *, hurried: bool) -> None:
    """Write the job's page; whatever comes of it, the run has ended as it has ended.

    Thumbnails take seconds at the most, none where a person is in a hurry; `runner gallery` makes the rest.
    """
    from runner.app.showing import show  # noqa: PLC0415 - `status` has no need of it

    end = clock.now() + (0.0 if hurried else _THUMBNAILS)
    try:
        show(job.directory, now=clock.now(), unit=unit, has_time=lambda: clock.now() < end, light=_LIGHT)
    except (OSError, RunnerError) as error:
        logs.warn(f"the page of the job was not written: {error}")
    except KeyboardInterrupt:
        logs.warn("the page of the job was not written: interrupted; `runner gallery` makes it")
    except Exception as error:  # noqa: BLE001 - a bug in a view must not cost a run its summary; it is told
        logs.bug(error)


def _words(job: Job, choices: Choices) -> list[str]:
    """The manifest and the options that the next command needs as well: without them it would be another job."""
    out = ["--out", str(choices.out)] if choices.out else []
    return [job.manifest.file, *(["--sandbox"] if job.in_sandbox else []), *out]
