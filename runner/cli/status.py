"""`runner status`: the counts and issues of jobs, beside a run or after it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.app.issues import job_issues
from runner.app.job_directories import job_directories
from runner.cli.parameters import MANIFEST, as_json, in_sandbox, job_directory, out
from runner.errors import JobNotFoundError
from runner.report.run_info import read_run_info, wait_text
from runner.report.summary import issue_lines
from runner.scheduler.outcome import files_text, unlisted_text
from runner.settings import Settings
from runner.store.lock import is_run_active
from runner.store.read_only import open_read_only
from runner.text import format_duration, pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.report.summary import JobIssues


@click.command()
@click.argument("where", required=False, type=MANIFEST, metavar="[MANIFEST or DIR]")
@out
@in_sandbox
@as_json
def status(where: Path | None, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """Counts, oldest waiting, reasons; works while a run is on. Without an argument: every job below here."""
    here = [each for each in job_directories(Path()) if each != Path()] if where is None else []
    directories = here if where is None else [job_directory(where, out, in_sandbox=in_sandbox)]
    if not directories:
        raise JobNotFoundError("there is no job below this directory", hint="Name a manifest or a job directory.")
    for directory in directories:
        report, issues = _status(directory, _job_arguments(where, out, in_sandbox=in_sandbox))
        click.echo(orjson.dumps(report) if as_json else "\n".join(_status_lines(report, issues)))
    return 0


def _job_arguments(where: Path | None, out: Path | None, *, in_sandbox: bool) -> list[str]:
    """Return the arguments that name the job on a command line; a directory does not tell its manifest."""
    if where is None or where.is_dir():
        return ["MANIFEST"]
    return [str(where), *(["--sandbox"] if in_sandbox else []), *(["--out", str(out)] if out else [])]


def _status(directory: Path, words: list[str]) -> tuple[dict[str, Any], JobIssues]:
    state = directory / ".runner"
    with open_read_only(state) as job:
        oldest = job.oldest_submitted_at()
        waiting = None if oldest is None else round(max(0.0, time.time() - oldest), 1)
        report = {
            "job": directory.resolve().name,
            "directory": str(directory),
            "counts": job.counts(),
            "gone": job.removed_unsent_count(),
            "oldest_waiting_seconds": waiting,
            "cost": job.spent(),
            "faults": job.error_groups(),
            "files": job.waiting_files(),
            "unlisted": job.unlisted_states(),
            "waits": dict(read_run_info(state).waits) if is_run_active(state) else {},
            "held": job.in_state("held"),
            "in_doubt": job.in_state("in_doubt"),
            "suspects": job.suspects("in_doubt"),
        }
        return report, job_issues(job, Settings(os.environ), words)


def _status_lines(report: dict[str, Any], issues: JobIssues) -> Iterator[str]:
    counts = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in report["counts"].items())
    yield f"{report['job']}: {counts or 'nothing yet'}"
    yield f"  files   {sanitize(report['directory'], 500)}"
    if report["cost"]:
        yield f"  cost    {report['cost']:g}{f' {issues.unit}' if issues.unit else ''} so far, with what is in doubt"
    if report["oldest_waiting_seconds"] is not None:
        yield f"  oldest  waiting for {format_duration(report['oldest_waiting_seconds'])}"
    if files := files_text(report["files"]):
        yield f"  waits   {files}"
    if words := unlisted_text(report["unlisted"]):
        yield f"  states  {words}"
    if wait := wait_text(report["waits"], report["counts"]):
        yield f"  now     {wait}"
    if report["gone"]:
        yield f"  gone    {pluralize(report['gone'], 'unbought task')} left the manifest"
    yield from (f"  {line}" for line in issue_lines(issues))
    for task in (*report["in_doubt"], *report["held"]):
        yield f"  {task['key'][:8]}  {sanitize(task['name'], 40)}  {sanitize(task['evidence'])}"
