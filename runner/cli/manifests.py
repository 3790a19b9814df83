"""`runner validate` and `runner plan`: what a manifest says, before anything is sent."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.options import MANIFEST, as_json, in_sandbox, out

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.jobs import Job

#: requests that `plan` shows
_SAMPLES = 3


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@as_json
def validate(manifests: tuple[Path, ...], as_json: bool) -> int:
    """Every mistake in a manifest, with line and column; sends nothing."""
    from runner.app.jobs import load  # noqa: PLC0415 - only the verbs that need it pay for it
    from runner.errors import ManifestError  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    code = 0
    for path in manifests:
        try:
            job = load(path, Settings(os.environ))
        except ManifestError as error:
            code = error.exit_code
            _tell_problems(path, error, as_json=as_json)
        else:
            entry = {"manifest": str(path), "valid": True, "tasks": job.summary.tasks, "problems": []}
            click.echo(orjson.dumps(entry) if as_json else f"{path}: valid, {job.summary.tasks} tasks{_merged(job)}")
    return code


def _tell_problems(path: Path, error: Any, *, as_json: bool) -> None:
    if not as_json:
        click.echo(str(error), err=True)
        return
    names = ("file", "line", "column", "key", "message", "hint")
    problems = [{name: getattr(problem, name) for name in names} for problem in error.problems]
    click.echo(orjson.dumps({"manifest": str(path), "valid": False, "tasks": None, "problems": problems}))


def _merged(job: Job) -> str:
    return (
        f" ({job.summary.merged} identical ones merged; `repeat` makes several of each)" if job.summary.merged else ""
    )


@click.command()
@click.argument("manifest", type=MANIFEST)
@out
@in_sandbox
@as_json
def plan(manifest: Path, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """Tasks, time at the limit, sample requests; sends nothing and writes nothing."""
    from runner.app.jobs import Plan, load  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    seen = Plan(samples=_SAMPLES, out=out, in_sandbox=in_sandbox)
    job = load(manifest, Settings(os.environ), out=out, in_sandbox=in_sandbox, each=seen.see)
    plan = seen.told(job)
    if as_json:
        click.echo(orjson.dumps(plan))
    else:
        click.echo("\n".join(_plan_lines(job, plan)))
    return 0


def _plan_lines(job: Job, plan: dict[str, Any]) -> list[str]:
    from runner.report.text import duration, harmless  # noqa: PLC0415

    known = " · ".join(f"{count} {state}" for state, count in plan["known"].items())
    models = ", ".join(f"{entry['provider']} {entry['model']}" for entry in plan["models"])
    rates = ", ".join(dict.fromkeys(plan["rate"].values()))
    lines = [
        f"{plan['job']}: {plan['tasks']} tasks for {models}{_merged(job)}",
        f"  to submit  {plan['new']} new{f' (here already: {known})' if known else ''}",
        "  price      unknown: the catalogue has no prices yet",
        f"  time       {duration(plan['seconds'])} to submit them at {rates}",
        f"  files      {harmless(plan['directory'], 500)}",
    ]
    if plan["gone"]:
        lines.append(f"  gone       {plan['gone']} tasks of an earlier version are kept and not bought")
    for sample in plan["samples"]:
        request = harmless(orjson.dumps(sample["request"]).decode(), _width() - 16)
        lines.append(f"  {sample['key'][:8]}   {harmless(sample['name'], 40)}")
        lines.append(f"             {request}")
    return lines


def _width() -> int:
    try:
        return max(60, os.get_terminal_size(sys.stdout.fileno()).columns)
    except OSError:
        return 160
