"""The end of a run: results file, summary, and the job's page."""

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

#: seconds that thumbnails may take at the end of a run, and bytes of files that need none
_THUMBNAILS, _LIGHT = 2.0, 32 << 20


def closed(
    job: Job, options: Choices, outcome: RunOutcome, stats: Tally, seconds: float
) -> tuple[dict[str, Any], Findings]:
    """Write results.jsonl and return the summary of a run of `seconds`, with the issues that it left.

    Raises DiskError if the results cannot be written.
    """
    with view(job.state) as queries:
        try:
            results.write(job.directory / "results.jsonl", queries.results())
        except OSError as error:
            raise DiskError(
                f"results.jsonl: {error.strerror}", hint="The state is safe; run the command again."
            ) from None
        endings = [(int(ending.exit), ending.why) for ending in outcome.endings]
        found = findings(queries, job.settings, _words(job, options), endings)
        report = summary(
            job.manifest.name,
            exit_code=outcome.exit,
            reasons=[why for _, why in endings],
            counts=queries.counts(),
            tally=stats,
            in_doubt=[task["key"] for task in (*queries.in_state("in_doubt"), *found.held)],
            seconds=seconds,
            findings=found,
        )
        return report, found


def shown(job: Job, clock: Clock, unit: str, *, hurried: bool) -> None:
    """Write the job's page.

    A failure is logged and stops nothing, because the run itself has ended.
    Thumbnails take two seconds at most, and none are made in a hurry. `runner gallery` makes the rest.
    """
    from runner.app.showing import show  # noqa: PLC0415 - `status` has no need of it

    end = clock.now() + (0.0 if hurried else _THUMBNAILS)
    try:
        show(job.directory, now=clock.now(), unit=unit, has_time=lambda: clock.now() < end, light=_LIGHT)
    except (OSError, RunnerError) as error:
        logs.warn(f"the page of the job was not written: {error}")
    except KeyboardInterrupt:
        logs.warn("the page of the job was not written: interrupted; `runner gallery` makes it")
    except Exception as error:  # noqa: BLE001 - a bug in a page must not cost a run its summary; it is logged
        logs.bug(error)


def _words(job: Job, options: Choices) -> list[str]:
    """Return the command-line arguments that name this job: the manifest, `--sandbox` and `--out`."""
    out = ["--out", str(options.out)] if options.out else []
    return [job.manifest.file, *(["--sandbox"] if job.in_sandbox else []), *out]
