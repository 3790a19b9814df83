"""`runner validate` and `runner plan`: check a manifest and show its tasks before anything is sent."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.options import MANIFEST, as_json, in_sandbox, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.app.jobs import Job
    from runner.errors import Problem

#: most requests and changes that `plan` shows
_SAMPLES = 3
#: most characters of a warning
_LONGEST = 1000


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@as_json
def validate(manifests: tuple[Path, ...], as_json: bool) -> int:
    """Every mistake in a manifest, with line and column; sends nothing."""
    from runner.app.jobs import load  # noqa: PLC0415 - loaded only by verbs that need it
    from runner.errors import ManifestError  # noqa: PLC0415
    from runner.report.text import many  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    code = 0
    for path in manifests:
        try:
            job = load(path, Settings(os.environ))
        except ManifestError as error:
            code = error.exit_code
            _tell_problems(path, error, as_json=as_json)
        else:
            entry = {"manifest": str(path), "valid": True, "tasks": job.summary.tasks, "problems": [],
                     "warnings": _warned(job)}  # fmt: skip
            click.echo(
                orjson.dumps(entry) if as_json else f"{path}: valid, {many(job.summary.tasks, 'task')}{_merged(job)}"
            )
    return code


def _tell_problems(path: Path, error: Any, *, as_json: bool) -> None:
    if not as_json:
        click.echo(str(error), err=True)
        return
    problems = [_entry(diagnostic) for diagnostic in error.problems]
    entry = {"manifest": str(path), "valid": False, "tasks": None, "problems": problems, "warnings": []}
    click.echo(orjson.dumps(entry))


def _entry(diagnostic: Problem) -> dict[str, Any]:
    return {name: getattr(diagnostic, name) for name in ("file", "line", "column", "key", "message", "hint")}


def _warned(job: Job) -> list[dict[str, Any]]:
    """Print the warnings of a manifest on stderr, and return them for `--json`."""
    from runner.report.text import harmless  # noqa: PLC0415

    for warning in job.summary.warnings:
        click.echo(f"warning: {harmless(str(warning), _LONGEST)}", err=True)
    return [_entry(warning) for warning in job.summary.warnings]


def _merged(job: Job) -> str:
    merged = job.summary.merged
    copies = "1 identical one" if merged == 1 else f"{merged} identical ones"
    return f" ({copies} merged; `repeat` makes several of each)" if merged else ""


@click.command()
@click.argument("manifest", type=MANIFEST)
@out
@in_sandbox
@click.option("--tasks", is_flag=True, help="A line for every task: new, kept, changed or gone.")
@as_json
def plan(manifest: Path, out: Path | None, in_sandbox: bool, tasks: bool, as_json: bool) -> int:
    """Tasks, price, time at the limit, what changed, sample requests; sends nothing and writes nothing."""
    from runner.app.jobs import load  # noqa: PLC0415
    from runner.app.planning import Plan  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    settings = Settings(os.environ)
    planned = Plan(_SAMPLES, out, in_sandbox, settings.providers, _line(as_json=as_json) if tasks else None)
    job = load(manifest, settings, out=out, in_sandbox=in_sandbox, each=planned.see)
    planned.finish()
    plan = {**planned.told(job), "warnings": _warned(job)}
    if as_json:
        click.echo(orjson.dumps(plan))
    else:
        click.echo("\n".join(_plan_lines(job, plan)))
    return 0


def _plan_lines(job: Job, plan: dict[str, Any]) -> list[str]:
    from runner.report.text import duration, harmless, many  # noqa: PLC0415

    known = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in plan["known"].items())
    models = ", ".join(f"{entry['provider']} {harmless(entry['model'], 80)}" for entry in plan["models"])
    rates = ", ".join(dict.fromkeys(plan["rate"].values()))
    lines = [
        f"{plan['job']}: {many(plan['tasks'], 'task')} for {models}{_merged(job)}",
        f"  to submit  {plan['new']} new{f' (here already: {known})' if known else ''}",
        f"  price      {_price(plan)}",
        f"  time       {duration(plan['seconds'])} to submit them at {rates}",
        f"  files      {harmless(plan['directory'], 500)}",
    ]
    lines += _changes(plan)
    for sample in plan["samples"]:
        request = harmless(orjson.dumps(sample["request"]).decode(), _width() - 16)
        lines.append(f"  {sample['key'][:8]}   {harmless(sample['name'], 40)}")
        lines.append(f"             {request}")
    return lines


def _changes(plan: dict[str, Any]) -> Iterator[str]:
    """Yield lines about tasks that were changed or removed since the last run."""
    from runner.report.text import harmless  # noqa: PLC0415

    if plan["changed"]:
        yield f"  changed    {len(plan['changed'])} of the new ones stand where another task stood:"
    for change in plan["changed"][:_SAMPLES]:
        keys = f"{change['was'][:8]} ({change['was_state'].replace('_', ' ')}) → {change['key'][:8]}"
        yield f"             task {change['index']}: {keys}"
        for name, field in change["fields"].items():
            yield f"               {name}: {harmless(_short(field['was']), 60)} → {harmless(_short(field['is']), 60)}"
    if plan["gone"]:
        gone = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in plan["gone"].items())
        yield f"  gone       {gone}: no longer in the manifest; what was bought is kept, the rest is not bought"


def _short(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()


def _line(*, as_json: bool) -> Callable[[dict[str, Any]], None]:
    """Return a function that prints a task."""
    from runner.report.text import harmless  # noqa: PLC0415

    def show(task: dict[str, Any]) -> None:
        if as_json:
            click.echo(orjson.dumps(task))
        else:
            state = f" ({task['state'].replace('_', ' ')})" if task["state"] else ""
            if task["plan"] == "changed":
                state = f" ({', '.join(task['fields'])}; was {task['was_state'].replace('_', ' ')})"
            click.echo(f"{task['key'][:8]}  {task['plan']}{state}  {harmless(task['name'], 80)}")

    return show


def _price(plan: dict[str, Any]) -> str:
    if plan["cost"] is not None:
        return f"{plan['cost']:g} {plan['unit'] or ''}".rstrip() + _cap(plan)
    models = ", ".join(plan["unpriced"])
    return f"unknown for {models}: say it with `cost:`" if models else "in several units"


def _cap(plan: dict[str, Any]) -> str:
    """Return a note on the cap, what is spent of it, and whether it suffices for the plan."""
    if plan["max_cost"] is None:
        return ""
    spent = plan["spent"] or 0.0
    short = ": not enough for all" if plan["cost"] and spent + plan["cost"] > plan["max_cost"] else ""
    return f" (max_cost {plan['max_cost']:g}{f', {spent:g} of it spent' if spent else ''}{short})"


def _width() -> int:
    try:
        return max(60, os.get_terminal_size(sys.stdout.fileno()).columns)
    except OSError:
        return 160
