"""`runner recover`, `audit`, `resolve` and `adopt-state`: look into a job, and decide about its tasks and its state."""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner import api, logs
from runner.app.adopt_state import adopt_state as adopt
from runner.app.audit_job import audit_job
from runner.app.resolve import recover as rebuild_state
from runner.cli.console import ConsoleObserver
from runner.cli.parameters import MANIFEST, as_json, in_sandbox, job_directory, out
from runner.errors import UsageError
from runner.settings import Settings
from runner.tasks.remote_ids import show_remote_id
from runner.text import pluralize, sanitize, shell_join

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.app.adopt_state import StateReport


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
            yield f"            if it is held or in doubt: {shell_join(*words)}"


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
    """A person's decision on a task, held or in doubt; KEY may be shortened. It is written down with your name."""
    if sum((adopt is not None, absent, abandon)) != 1:
        raise UsageError("one decision is needed", hint="Give one of --adopt ID, --absent or --abandon.")
    directory = job_directory(manifest, out, in_sandbox=in_sandbox)
    result = api.resolve(directory, key, adopt=adopt, absent=absent, abandon=abandon, env=os.environ)
    if result["warning"]:
        click.echo(f"warning: {result['warning']}", err=True)
    click.echo(orjson.dumps(result) if as_json else f"{result['key'][:8]} is now {result['state']}: {result['next']}")
    return 0


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
