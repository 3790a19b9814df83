"""`runner validate` and `runner plan`: check a manifest and show its tasks before anything is sent."""

from __future__ import annotations

import os
import sys
from itertools import islice
from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.parameters import (
    MANIFEST,
    all_lines,
    as_json,
    errors_in_full,
    in_sandbox,
    out,
    refuse_warnings,
    strict,
    warning_lines,
)
from runner.errors import MAX_SHOWN, ManifestError
from runner.report.guarantee_text import safety_lines
from runner.report.progress import show_checking
from runner.report.summary import codes_text
from runner.scheduler.clock import Clock
from runner.text import format_duration, pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.api import Job, Plan
    from runner.errors import Diagnostic

#: most changes that `plan` shows
_MAX_CHANGES = 3
#: columns of what is wrapped, and fields that are named
_WIDTH, _MAX_FIELDS = 100, 5
#: most characters of a warning
_MAX_WARNING = 1000
#: seconds that an answer to a submit is taken to need
_ANSWER_SECONDS = 1.0


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@all_lines
@strict
@as_json
def validate(manifests: tuple[Path, ...], show_all: bool, strict: bool, as_json: bool) -> int:
    """Every mistake in a manifest, with line and column; sends nothing."""
    from runner.api import load_checked  # noqa: PLC0415 - a shell that completes an option imports this module for it

    code = 0
    for path in manifests:
        try:
            with errors_in_full(show_all), show_checking(str(path), sys.stderr, Clock().now) as on_progress:
                job = load_checked(path, env=os.environ, on_progress=on_progress)
                if not as_json:
                    refuse_warnings(job.warnings, strict=strict)
        except ManifestError as error:
            code = error.exit_code
            _print_diagnostics(path, error, as_json=as_json)
        else:
            is_valid = not (strict and job.warnings)
            code = code if is_valid else ManifestError.exit_code
            entry = {"manifest": str(path), "valid": is_valid, "tasks": job.task_count, "problems": [],
                     "warnings": _print_warnings(job, show_all=show_all)}  # fmt: skip
            click.echo(
                orjson.dumps(entry)
                if as_json
                else f"{path}: valid, {pluralize(job.task_count, 'task')}{_merged_note(job)}"
            )
    return code


def _print_diagnostics(path: Path, error: ManifestError, *, as_json: bool) -> None:
    if not as_json:
        click.echo(str(error), err=True)
        return
    problems = [_diagnostic_entry(diagnostic) for diagnostic in error.diagnostics]
    warnings = [_diagnostic_entry(warning) for warning in error.warnings[:MAX_SHOWN]]
    entry = {"manifest": str(path), "valid": False, "tasks": None, "problems": problems, "warnings": warnings}
    click.echo(orjson.dumps(entry))


def _diagnostic_entry(diagnostic: Diagnostic) -> dict[str, Any]:
    return {name: getattr(diagnostic, name) for name in ("file", "line", "column", "key", "message", "hint")}


def _print_warnings(job: Job, *, show_all: bool) -> list[dict[str, Any]]:
    """Print the warnings of a manifest on stderr, and return them for `--json`."""
    for line in warning_lines(job.warnings, show_all=show_all):
        click.echo(f"warning: {sanitize(line, _MAX_WARNING)}", err=True)
    return [_diagnostic_entry(warning) for warning in job.warnings[:MAX_SHOWN]]


def _merged_note(job: Job) -> str:
    merged = job.merged_count
    copies = "1 identical one" if merged == 1 else f"{merged} identical ones"
    return f" ({copies} merged; `repeat` makes several of each)" if merged else ""


@click.command()
@click.argument("manifest", type=MANIFEST)
@out
@in_sandbox
@click.option("--tasks", is_flag=True, help="A line for every task: new, kept, changed or gone.")
@all_lines
@strict
@as_json
def plan(
    manifest: Path, out: Path | None, in_sandbox: bool, tasks: bool, show_all: bool, strict: bool, as_json: bool
) -> int:
    """Tasks, price, time at the limit, what changed, sample requests; sends nothing and writes nothing."""
    from runner.api import load_and_plan  # noqa: PLC0415 - see above

    on_task = _task_printer(as_json=as_json) if tasks else None
    with (
        errors_in_full(show_all),
        show_checking(str(manifest), sys.stderr, Clock().now, quiet=tasks) as on_progress,
    ):
        planned = load_and_plan(
            manifest, out=out, sandbox=in_sandbox, env=os.environ, on_task=on_task, on_progress=on_progress
        )
        refuse_warnings(planned.job.warnings, strict=strict)
    plan = {**planned.to_dict(), "warnings": _print_warnings(planned.job, show_all=show_all)}
    if as_json:
        click.echo(orjson.dumps(plan))
    else:
        click.echo("\n".join(_plan_lines(planned, plan)))
    return 0


def _plan_lines(planned: Plan, plan: dict[str, Any]) -> list[str]:
    job = planned.job
    known = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in plan["known"].items())
    models = ", ".join(f"{entry['provider']} {sanitize(entry['model'], 80)}" for entry in plan["models"])
    rates = ", ".join(dict.fromkeys(plan["rate"].values()))
    lines = [
        f"{plan['job']}: {pluralize(plan['tasks'], 'task')} for {models}{_merged_note(job)}",
        f"  to submit  {plan['new']} new{f' (here already: {known})' if known else ''}",
        f"  price      {_price_text(plan)}",
        f"  time       {format_duration(plan['seconds'])} to submit them at {rates}",
        f"  files      {sanitize(plan['directory'], 500)}",
        *_safety_lines(plan),
    ]
    lines += (f"  kept       {sanitize(line, _MAX_WARNING)}" for line in planned.restated())
    lines += _suspect_lines(plan)
    lines += _earlier_lines(plan)
    lines += _change_lines(plan)
    for sample in plan["samples"]:
        request = sanitize(orjson.dumps(sample["request"]).decode(), _terminal_width() - 16)
        lines.append(f"  {sample['key'][:8]}   {sanitize(sample['name'], 40)}")
        lines.append(f"             {request}")
    return lines


def _safety_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield lines about what happens to a purchase whose answer is lost."""
    label = "safety"
    first = f"{', '.join(plan['one_by_one'])}: the first two tasks go one by one" if plan["one_by_one"] else None
    notes = (
        *_lost_notes(plan),
        *_refusal_notes(plan),
        *_backup_notes(plan),
        *_hidden_notes(plan),
        *_published_notes(plan),
    )
    for line in (*safety_lines(plan["guarantees"]), *filter(None, [first]), *notes):
        for part in wrap(
            line, max(40, min(_terminal_width(), _WIDTH) - 13), break_on_hyphens=False, break_long_words=False
        ):
            yield f"  {label:<9}  {part}"
            label = ""


def _lost_notes(plan: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each provider about how many answers can be lost at once, and what that bound costs in time."""
    for each in plan["lost_at_once"] if plan["guarantees"] else ():
        fate = "each is looked up" if each["looked_up"] else "none can be looked up: you would decide about each"
        line = f"{each['provider']}: at most {pluralize(each['answers'], 'answer')} can be lost at once, and {fate}"
        allowed, at_once = each["submits_per_second"], each["submits_at_once"]
        needed = ceil(allowed * _ANSWER_SECONDS)
        if at_once < needed and each["answers"] == at_once:
            rate = f"{at_once / _ANSWER_SECONDS:g} submits a second of the {allowed:g} allowed"
            more = f"limits.submits_at_once: {needed} would reach them, and as many could be lost"
            line += f". At {_ANSWER_SECONDS:g} s an answer that is about {rate}; {more}"
        yield line


def _refusal_notes(plan: dict[str, Any]) -> Iterator[str]:
    """Yield lines about providers that were seen to differ from what their documents say of refusals, or of more."""
    for each in plan["charged_refusals"]:
        codes = ", ".join(sanitize(code, 40) for code in each["codes"])
        then = "such an answer is looked up, and nothing is simply sent again"
        yield f"{each['provider']}: a task was made although it was refused ({codes}): {then}"
    for name in plan["distrusted"]:
        yield (
            f"{name}: three things that its documents say were contradicted within a day: a run buys nothing there "
            "before the day has passed, or without --trust-less"
        )


def _suspect_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield a line about tasks of the job that were refused and are not known to have cost nothing."""
    if number := sum(plan["suspects"].values()):
        then = "looked up first, and bought if nothing was made"
        yield f"  refused    {number} before ({codes_text(plan['suspects'])}), perhaps paid for all the same: {then}"


def _backup_notes(plan: dict[str, Any]) -> Iterator[str]:
    """Yield a line about the providers that cannot tell what was bought after a backup was made."""
    names = {each["provider"]: None for each in plan["guarantees"] if each["claimed"] == 0}
    if names:
        hint = "after restoring a backup, run adopt-state and look at its console, or set RUNNER_LEASE"
        yield f"{', '.join(names)}: {hint}"


def _published_notes(plan: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each provider that others have measured and this account has not, or that broke its word."""
    measured = {each["provider"] for each in plan["guarantees"] if each["basis"] in {"measured", "declared"}}
    for each in plan["published"]:
        if each["provider"] not in measured or each["contradicted"]:
            yield f"{each['provider']}: {each['text']}"


def _hidden_notes(plan: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each model with tasks that the list shows only in part."""
    for each in plan["hidden"]:
        fields = ", ".join(sanitize(name, 40) for name in each["fields"][:_MAX_FIELDS])
        have = "task has a field" if each["tasks"] == 1 else "tasks have a field"
        where = "" if each["shared_account"] else ", should another task look like it"
        yield (
            f"{each['tasks']:,} {have} that the list does not show ({fields}): a lost answer among them is held for "
            f"you{where}"
        )


def _earlier_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield lines about tasks that other jobs of the account have bought before."""
    for where in plan["linked_from"][:_MAX_CHANGES]:
        bought = f"{where['tasks']} of {plan['tasks']} were bought before in {sanitize(where['directory'], 500)}"
        yield f"  bought     {bought} ({where['bought_at']}): linked, 0 to pay. --buy-again buys them anew"
    for directory, count in islice(plan["resting"].items(), _MAX_CHANGES):
        yield f"  resting    {count} are bought in {sanitize(directory, 500)} and not finished there: go on there"


def _change_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield lines about tasks that were changed or removed since the last run."""
    if plan["changed"]:
        yield f"  changed    {len(plan['changed'])} of the new ones stand where another task stood:"
    for change in plan["changed"][:_MAX_CHANGES]:
        keys = f"{change['was'][:8]} ({change['was_state'].replace('_', ' ')}) → {change['key'][:8]}"
        yield f"             task {change['index']}: {keys}"
        for name, field in change["fields"].items():
            was, is_now = (sanitize(_value_text(field[side]), 60) for side in ("was", "is"))
            yield f"               {name}: {was} → {is_now}"
    if plan["gone"]:
        gone = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in plan["gone"].items())
        yield f"  gone       {gone}: no longer in the manifest; what was bought is kept, the rest is not bought"


def _value_text(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()


def _task_printer(*, as_json: bool) -> Callable[[dict[str, Any]], None]:
    """Return a function that prints a task."""

    def show(task: dict[str, Any]) -> None:
        if as_json:
            click.echo(orjson.dumps(task))
        else:
            state = f" ({task['state'].replace('_', ' ')})" if task["state"] else ""
            if task["plan"] == "changed":
                state = f" ({', '.join(task['fields'])}; was {task['was_state'].replace('_', ' ')})"
            click.echo(f"{task['key'][:8]}  {task['plan']}{state}  {sanitize(task['name'], 80)}")

    return show


def _price_text(plan: dict[str, Any]) -> str:
    if plan["cost"] is not None:
        return f"{plan['cost']:g} {plan['unit'] or ''}".rstrip() + _cap_note(plan)
    models = ", ".join(plan["unpriced"])
    return f"unknown for {models}: say it with `cost:`" if models else "in several units"


def _cap_note(plan: dict[str, Any]) -> str:
    """Return a note on the cap, what is spent of it, and whether it suffices for the plan."""
    if plan["max_cost"] is None:
        return ""
    spent = plan["spent"] or 0.0
    short = ": not enough for all" if plan["cost"] and spent + plan["cost"] > plan["max_cost"] else ""
    return f" (max_cost {plan['max_cost']:g}{f', {spent:g} of it spent' if spent else ''}{short})"


def _terminal_width() -> int:
    try:
        return max(60, os.get_terminal_size(sys.stdout.fileno()).columns)
    except OSError:
        return 160
