"""`runner recover`, `audit`, `resolve` and `adopt-state`: look into a job, and decide about its tasks and its state."""

from __future__ import annotations

import getpass
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner import api, logs
from runner.app.adopt_state import adopt_state as adopt
from runner.app.audit_job import audit_job
from runner.app.decision_file import read_decisions
from runner.app.resolve import Choice, resolve_tasks
from runner.app.resolve import recover as rebuild_state
from runner.cli.console import ConsoleObserver
from runner.cli.parameters import MANIFEST, PATH, as_json, in_sandbox, job_directory, out
from runner.errors import UsageError
from runner.settings import Settings
from runner.tasks.events import Resolved
from runner.tasks.remote_ids import show_remote_id
from runner.text import pluralize, sanitize, shell_join

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.app.adopt_state import StateReport
    from runner.tasks.models import Task


@click.command()
@click.argument("manifest", type=MANIFEST)
@out
@in_sandbox
@as_json
def recover(manifest: Path, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """Rebuild a lost state from the journal, or a lost journal from the state; the old one is kept. Sends nothing."""
    result = rebuild_state(api.load(manifest, out=out, sandbox=in_sandbox, env=os.environ).loaded)
    counts = " · ".join(f"{count} {state.replace('_', ' ')}" for state, count in result["recovered"].items())
    text = f"{result['job']}: {counts or 'nothing was ever sent'}"
    text += "; the journal was written anew from the state" if result["rebuilt"] == "journal" else ""
    text += "\n  next: runner run looks up what is in doubt, and goes on"
    click.echo(orjson.dumps(result) if as_json else text)
    return 0


@click.command()
@click.argument("manifest", type=MANIFEST)
@click.option("--adopt", is_flag=True, help="Adopt everything that carries the reference of a task without an id.")
@out
@in_sandbox
@as_json
def audit(manifest: Path, adopt: bool, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """The provider's own list and bills against ours: orphans, duplicates, money drift. Sends nothing that costs."""
    logs.configure(None, quiet=False, file=None)
    job = api.load(manifest, out=out, sandbox=in_sandbox, env=os.environ)
    result = audit_job(job.loaded, ConsoleObserver(), adopt_by=getpass.getuser() if adopt else None)
    place = [str(manifest), *(["--sandbox"] if in_sandbox else []), *(["--out", str(out)] if out else [])]
    click.echo(orjson.dumps(result) if as_json else "\n".join(_audit_lines(result, place)))
    code: int = result["exit_code"]
    return code


def _audit_lines(result: dict[str, Any], place: list[str]) -> Iterator[str]:
    charged = "" if result["charged"] is None else f"; {result['charged']:g} charged in the provider's unit"
    yield f"{result['job']}: {pluralize(len(result['findings']), 'finding')}{charged}"
    if result["adopted"]:
        adopted = pluralize(len(result["adopted"]), "task")
        yield f"  {adopted} adopted by reference; next: {shell_join('runner', 'run', *place)}"
    if certain := sum(finding["certain"] for finding in result["findings"]):
        yield f"  {pluralize(certain, 'task')} by our references: {shell_join('runner', 'audit', *place, '--adopt')}"
    if result["strangers"]:
        yield f"  {pluralize(result['strangers'], 'task')} on the account not of this job"
    for name, why in result["not_asked"].items():
        yield f"  {name} cannot tell: {sanitize(why)}"
    if contradicted := result["contradicted"]:
        many = pluralize(len(contradicted), "purchase")
        yield f"  {many} may be paid for twice, by what was contradicted within a day: look at the provider's console"
    for each in contradicted:
        bought = show_remote_id(each["remote_id"]) if each["remote_id"] is not None else "failed"
        yield f"    {each['key'][:8]} {sanitize(each['name'], 60)}: {bought}, {each['at']}: {sanitize(each['why'])}"
    for finding in result["findings"]:
        yield f"  {finding['kind']:<9} {show_remote_id(finding['remote_id'])}  {sanitize(finding['why'])}"
        if finding["kind"] == "orphan" and finding["key"] and not finding["certain"]:
            manifest, *options = place
            words = ["runner", "resolve", manifest, finding["key"][:8], *options]
            words += ["--adopt", show_remote_id(finding["remote_id"])]
            yield f"            if it is that task's: {shell_join(*words)}"


@click.command()
@click.argument("manifest", type=MANIFEST)
@click.argument("keys", nargs=-1, metavar="[KEY…]")
@click.option("--all", "every", is_flag=True, help="Every held task, and those in doubt after their quiet time.")
@click.option("--reason", metavar="TEXT", help="With --all: only those of which `status` shows this text.")
@click.option("--from", "file", type=PATH, metavar="FILE", help="Keys from a file, a line each; KEY ID adopts.")
@click.option("--adopt", metavar="ID", help="It was accepted: this is its id at the provider.")
@click.option("--absent", is_flag=True, help="It was never accepted: buy it again at the next run.")
@click.option("--abandon", is_flag=True, help="Give it up.")
@click.option("--yes", is_flag=True, help="Do not ask before many tasks are bought again.")
@out
@in_sandbox
@as_json
def resolve(
    manifest: Path, keys: tuple[str, ...], out: Path | None, in_sandbox: bool, as_json: bool, **options: Any
) -> int:
    """A person's decision on tasks, held or in doubt; KEY may be shortened. It is written down with your name."""
    choice = _choice(keys, **{name: value for name, value in options.items() if name != "yes"})
    directory = job_directory(manifest, out, in_sandbox=in_sandbox)
    decided = resolve_tasks(
        directory,
        choice,
        Settings(os.environ),
        confirm=lambda tasks: _confirm(tasks, options["yes"], options["absent"]),
    )
    warnings = Counter(each["warning"] for each in decided.resolved if each["warning"])
    if len(decided.resolved) == 1:
        warnings = Counter({decided.resolved[0]["warning"]: 1} if decided.resolved[0]["warning"] else {})
    elif warnings:
        warnings = Counter({f"{warnings.total()} of them were sent so lately that they may still be accepted": 1})
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if decided.too_early:
        left = f"{pluralize(decided.too_early, 'task')} in doubt left out, sent so lately that it may still be accepted"
        click.echo(f"warning: {left}: the next run looks it up", err=True)
    if decided.accepted:
        left = f"{pluralize(decided.accepted, 'task')} left out, since an answer said that it was made"
        click.echo(
            f"warning: {left}: `runner status` shows it; decide by KEY, with --adopt ID if it is there", err=True
        )
    if len(keys) == 1:
        result = decided.resolved[0]
        text = f"{result['key'][:8]} is now {result['state']}: {result['next']}"
        click.echo(orjson.dumps(result) if as_json else text)
        return 0
    if as_json:
        click.echo(
            orjson.dumps({"resolved": decided.resolved, "too_early": decided.too_early, "accepted": decided.accepted})
        )
        return 0
    for (state, then), count in Counter((each["state"], each["next"]) for each in decided.resolved).items():
        click.echo(f"{pluralize(count, 'task')} now {state}: {then if count == 1 else then.replace(' it', ' them')}")
    return 0


def _choice(
    keys: tuple[str, ...],
    *,
    every: bool,
    reason: str | None,
    file: Path | None,
    adopt: str | None,
    absent: bool,
    abandon: bool,
) -> Choice:
    """Return which tasks are decided about, and how; raises UsageError if the options do not say that."""
    decisions = sum((adopt is not None, absent, abandon))
    if decisions > 1 or (decisions == 0 and file is None):
        raise UsageError("one decision is needed", hint="Give one of --adopt ID, --absent or --abandon.")
    if sum((bool(keys), every, file is not None)) != 1:
        raise UsageError("which tasks?", hint="Name their keys, or give --all, or --from FILE.")
    if reason is not None and not every:
        raise UsageError("--reason chooses among all tasks that wait", hint="Give --all with it.")
    if adopt is not None and (every or len(keys) != 1):
        raise UsageError("an id belongs to one task", hint="Name its key; or many as lines `KEY ID`, with --from FILE.")
    event = Resolved("adopt" if adopt is not None else "absent" if absent else "abandon", getpass.getuser(), adopt)
    if file is not None:
        return Choice(decisions=read_decisions(file, event if decisions else None, event.by))
    return Choice(every=event, reason=reason) if every else Choice(decisions=[(key, event) for key in keys])


def _confirm(tasks: Sequence[Task], yes: bool, absent: bool) -> None:
    """Ask at a terminal before many tasks are bought again; raises UsageError if the user declines."""
    if yes or not absent or len(tasks) < 2 or not (sys.stdin and sys.stdin.isatty()):  # noqa: PLR2004 - many
        return
    costs = [task.cost for task in tasks]
    price = "" if None in costs else f", {sum(cost or 0.0 for cost in costs):g} in the provider's unit"
    if not click.confirm(f"let the next run buy {len(tasks)} tasks again{price}?", err=True):
        raise UsageError("nothing was decided", hint="--yes does not ask.")


@click.command()
@click.argument("manifest", type=MANIFEST)
@click.option("--yes", is_flag=True, help="Do not ask.")
@out
@in_sandbox
@as_json
def adopt_state(manifest: Path, yes: bool, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """Let a state that was copied, moved or put back buy again: shows what differs, reads the lists, and asks."""

    def confirm(report: StateReport) -> bool:
        for number, line in enumerate(report.lines()):
            click.echo(f"{'  ' if number else ''}{sanitize(line, 500)}", err=as_json)
        if yes:
            return True
        if not (sys.stdin and sys.stdin.isatty()):
            raise UsageError("nobody can be asked here", hint="Read the lines above, then add --yes if they are right.")
        return click.confirm("Go on with this state?", default=report.is_clean, err=True)

    logs.configure(None, quiet=False, file=None)
    job = manifest if manifest.is_dir() else api.load(manifest, out=out, sandbox=in_sandbox, env=os.environ).loaded
    result = adopt(job, Settings(os.environ), ConsoleObserver(quiet=True), confirm=confirm)
    if as_json:
        click.echo(orjson.dumps(result))
    elif result["differences"]:
        click.echo(f"{result['job']}: this state goes on; next: runner run")
    else:
        click.echo(f"{result['job']}: this state is the one that ran last; there is nothing to decide")
    return 0
