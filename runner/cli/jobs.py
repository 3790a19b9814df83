"""`runner recover`, `audit` and `resolve`: look into a job, and decide about its held tasks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner import api
from runner.app.audit_job import audit_job
from runner.app.resolve import recover as rebuild_state
from runner.cli.console import ConsoleObserver
from runner.cli.parameters import MANIFEST, as_json, in_sandbox, job_directory, out
from runner.errors import UsageError
from runner.tasks.remote_ids import show_remote_id
from runner.text import pluralize, sanitize, shell_join

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
@out
@in_sandbox
@as_json
def audit(manifest: Path, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """The provider's own list and bills against ours: orphans, duplicates, money drift. Sends nothing that costs."""
    job = api.load(manifest, out=out, sandbox=in_sandbox, env=os.environ)
    result = audit_job(job.loaded, ConsoleObserver())
    click.echo(orjson.dumps(result) if as_json else "\n".join(_audit_lines(result, str(manifest))))
    code: int = result["exit_code"]
    return code


def _audit_lines(result: dict[str, Any], manifest: str) -> Iterator[str]:
    charged = "" if result["charged"] is None else f"; {result['charged']:g} charged in the provider's unit"
    yield f"{result['job']}: {pluralize(len(result['findings']), 'finding')}{charged}"
    if result["strangers"]:
        yield f"  {pluralize(result['strangers'], 'task')} on the account not of this job"
    for name, why in result["not_asked"].items():
        yield f"  {name} cannot tell: {sanitize(why)}"
    for finding in result["findings"]:
        yield f"  {finding['kind']:<9} {show_remote_id(finding['remote_id'])}  {sanitize(finding['why'])}"
        if finding["kind"] == "orphan" and finding["key"]:
            words = ["runner", "resolve", manifest, finding["key"][:8], "--adopt", show_remote_id(finding["remote_id"])]
            yield f"            if its task is held: {shell_join(*words)}"


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
