"""`runner status`, `recover`, `audit` and `resolve`: inspect a job, and decide about its held tasks."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.options import MANIFEST, as_json, in_sandbox, out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.report.advice import Findings


@click.command()
@click.argument("where", required=False, type=MANIFEST, metavar="[MANIFEST or DIR]")
@out
@in_sandbox
@as_json
def status(where: Path | None, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """Counts, oldest waiting, reasons; works while a run is on. Without an argument: every job below here."""
    from runner.errors import NoSuchJob  # noqa: PLC0415

    directories = list(_below(Path())) if where is None else [_directory(where, out, in_sandbox=in_sandbox)]
    if not directories:
        raise NoSuchJob("there is no job below this directory", hint="Name a manifest or a job directory.")
    for directory in directories:
        report, issues = _status(directory, _words(where, out, in_sandbox=in_sandbox))
        click.echo(orjson.dumps(report) if as_json else "\n".join(_lines(report, issues)))
    return 0


def _words(where: Path | None, out: Path | None, *, in_sandbox: bool) -> list[str]:
    """Return the arguments that name the job on a command line; a directory does not tell its manifest."""
    if where is None or where.is_dir():
        return ["MANIFEST"]
    return [str(where), *(["--sandbox"] if in_sandbox else []), *(["--out", str(out)] if out else [])]


def _below(root: Path) -> Iterator[Path]:
    for depth in ("*", "*/*", "*/*/*"):
        yield from (state.parent.parent for state in sorted(root.glob(f"{depth}/.runner/state.db")))


def _directory(where: Path, out: Path | None, *, in_sandbox: bool) -> Path:
    """Return the job directory of a manifest, or the given directory itself."""
    if where.is_dir():
        return where
    from runner.app.jobs import directory_of  # noqa: PLC0415

    return directory_of(where, out=out, in_sandbox=in_sandbox)


def _status(directory: Path, words: list[str]) -> tuple[dict[str, Any], Findings]:
    from runner.app.amiss import findings  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415
    from runner.store.view import view  # noqa: PLC0415

    with view(directory / ".runner") as job:
        oldest = job.oldest()
        waiting = None if oldest is None else round(max(0.0, time.time() - oldest), 1)
        report = {
            "job": directory.resolve().name,
            "directory": str(directory),
            "counts": job.counts(),
            "gone": job.gone(),
            "oldest_waiting_seconds": waiting,
            "cost": job.spent(),
            "faults": job.faults(),
            "held": job.in_state("held"),
            "in_doubt": job.in_state("in_doubt"),
        }
        return report, findings(job, Settings(os.environ), words)


def _lines(report: dict[str, Any], issues: Findings) -> Iterator[str]:
    from runner.report.advice import lines  # noqa: PLC0415
    from runner.report.text import duration, harmless, many  # noqa: PLC0415

    counts = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in report["counts"].items())
    yield f"{report['job']}: {counts or 'nothing yet'}"
    yield f"  files   {harmless(report['directory'], 500)}"
    if report["cost"]:
        yield f"  cost    {report['cost']:g}{f' {issues.unit}' if issues.unit else ''} so far, with what is in doubt"
    if report["oldest_waiting_seconds"] is not None:
        yield f"  oldest  waiting for {duration(report['oldest_waiting_seconds'])}"
    if report["gone"]:
        yield f"  gone    {many(report['gone'], 'unbought task')} left the manifest"
    yield from (f"  {line}" for line in lines(issues))
    for task in (*report["in_doubt"], *report["held"]):
        yield f"  {task['key'][:8]}  {harmless(task['name'], 40)}  {harmless(task['evidence'])}"


@click.command()
@click.argument("manifest", type=MANIFEST)
@out
@in_sandbox
@as_json
def recover(manifest: Path, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """Rebuild the state from the journal, into a new file; the old one is kept. Sends nothing."""
    from runner.app.jobs import load  # noqa: PLC0415
    from runner.app.rebuilding import recover as rebuilt  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    result = rebuilt(load(manifest, Settings(os.environ), out=out, in_sandbox=in_sandbox))
    counts = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in result["recovered"].items())
    text = f"{result['job']}: {counts or 'nothing was ever sent'}"
    text += "\n  next: runner run looks up what is in doubt, and goes on"
    click.echo(orjson.dumps(result) if as_json else text)
    return 0


@click.command()
@click.argument("manifest", type=MANIFEST)
@out
@in_sandbox
@as_json
def audit(manifest: Path, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """The provider's own list and bills against ours: orphans, duplicates, money drift. Sends nothing that costs."""
    from runner.app.auditing import audited  # noqa: PLC0415
    from runner.app.jobs import load  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    result = audited(load(manifest, Settings(os.environ), out=out, in_sandbox=in_sandbox))
    click.echo(orjson.dumps(result) if as_json else "\n".join(_audit_lines(result, str(manifest))))
    code: int = result["exit_code"]
    return code


def _audit_lines(result: dict[str, Any], manifest: str) -> Iterator[str]:
    from runner.report.text import harmless, many, shell  # noqa: PLC0415

    charged = "" if result["charged"] is None else f"; {result['charged']:g} charged in the provider's unit"
    yield f"{result['job']}: {many(len(result['findings']), 'finding')}{charged}"
    if result["strangers"]:
        yield f"  {many(result['strangers'], 'task')} on the account not of this job"
    for name, why in result["not_asked"].items():
        yield f"  {name} was not asked: {harmless(why)}"
    for finding in result["findings"]:
        yield f"  {finding['kind']:<9} {harmless(finding['remote_id'])}  {harmless(finding['why'])}"
        if finding["kind"] == "orphan" and finding["key"]:
            words = ["runner", "resolve", manifest, finding["key"][:8], "--adopt", finding["remote_id"]]
            yield f"            if its task is held: {shell(*words)}"


@click.command()
@click.argument("manifest", type=MANIFEST)
@click.argument("key")
@click.option("--adopt", metavar="ID", help="It was accepted: this is its id at the provider.")
@click.option("--absent", is_flag=True, help="It was never accepted: buy it again at the next run.")
@click.option("--abandon", is_flag=True, help="Give it up.")
@out
@in_sandbox
@as_json
def resolve(
    manifest: Path,
    key: str,
    adopt: str | None,
    absent: bool,
    abandon: bool,
    out: Path | None,
    in_sandbox: bool,
    as_json: bool,
) -> int:
    """A person's decision on a held task; KEY may be shortened. It is written down with your name."""
    from runner.app.deciding import decide  # noqa: PLC0415
    from runner.errors import UsageError  # noqa: PLC0415
    from runner.lifecycle.events import Resolved, Verdict  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    if sum((adopt is not None, absent, abandon)) != 1:
        raise UsageError("one decision is needed", hint="Give one of --adopt ID, --absent or --abandon.")
    decision: Verdict = "adopt" if adopt is not None else "absent" if absent else "abandon"
    event = Resolved(decision, getpass.getuser(), adopt)
    result = decide(_directory(manifest, out, in_sandbox=in_sandbox), key, event, Settings(os.environ))
    if result["warning"]:
        click.echo(f"warning: {result['warning']}", err=True)
    click.echo(orjson.dumps(result) if as_json else f"{result['key'][:8]} is now {result['state']}: {result['next']}")
    return 0
