"""`runner probe`: measure on a real account what runs cannot measure for free."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click
import orjson

from runner import logs
from runner.cli.completion import complete_model, complete_provider
from runner.cli.parameters import PATH, as_json
from runner.errors import UsageError
from runner.text import pluralize, sanitize

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.probe_account import ProbeReport
    from runner.app.probe_plan import ProbePlan
    from runner.settings import Settings

#: tasks that a probe may buy where nothing else is said, the same with pictures, and at most
_SPEND, _WITH_PICTURES, _MOST = 3, 5, 20


@click.command()
@click.argument("provider", shell_complete=complete_provider)
@click.option("--model", metavar="MODEL", help="What to buy; else the cheapest.", shell_complete=complete_model)
@click.option(
    "--spend", type=click.IntRange(0, _MOST), help=f"Tasks that it may buy, at most; {_SPEND} if nothing is said."
)
@click.option("--pictures", is_flag=True, help=f"Buy two tasks with pictures too; --spend is {_WITH_PICTURES} then.")
@click.option("--free", is_flag=True, help="Buy nothing: ask only what costs nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before it buys.")
@click.option("--publish", type=PATH, metavar="FILE", help="Write the facts here, without account, ids and prices.")
@click.option("--sandbox", "in_sandbox", is_flag=True, help="Try it against the sandbox.")
@as_json
def probe(
    provider: str,
    model: str | None,
    spend: int | None,
    pictures: bool,
    free: bool,
    yes: bool,
    publish: Path | None,
    in_sandbox: bool,
    as_json: bool,
) -> int:
    """Measure what a provider does with your account: references, list, doubles, refusals, lost answers.

    It buys a few of the cheapest tasks, never more than --spend. What it has learned serves every later run.
    """
    # imported here because a shell that completes an option imports this module for it
    from runner.app.embedded_sandbox import sandbox_process  # noqa: PLC0415
    from runner.app.probe_plan import make_plan  # noqa: PLC0415
    from runner.app.provider_config import account_directory  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    logs.configure(None, quiet=False)
    settings = Settings(os.environ)
    most = 0 if free else spend if spend is not None else _WITH_PICTURES if pictures else _SPEND
    plan = make_plan(provider, settings, model=model, spend=most, pictures=pictures)
    _check_publish(publish)
    with (
        sandbox_process(settings, settings.home / "probe-sandbox.jsonl") if in_sandbox else nullcontext(settings) as own
    ):
        account_directory(plan.spec, own)  # raises where there are no credentials, before anybody is asked
        _confirm(plan, is_free=in_sandbox or yes)
        report = _execute(plan, own)
        if publish is not None:
            _publish(publish, report, own)
    _print(report, as_json=as_json)
    return int(report.exit)


def _check_publish(path: Path | None) -> None:
    """Raise UsageError if the file is there already, or cannot be made, before anything is bought."""
    if path is not None and (path.exists() or path.is_symlink()):
        raise UsageError(f"--publish: {path} is there already", hint="Name a new file, or move it away.")
    if path is not None and not path.resolve().parent.is_dir():
        raise UsageError(f"--publish: {path} cannot be written", hint="Name a file in a directory that exists.")


def _confirm(plan: ProbePlan, *, is_free: bool) -> None:
    """Print the plan, and ask before anything is bought. Raises UsageError."""
    from runner.app.probe_text import plan_lines  # noqa: PLC0415

    for line in plan_lines(plan):
        click.echo(line, err=True)
    if is_free or not plan.most:
        return
    hint = "--yes buys without asking, --free buys nothing."
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        raise UsageError(f"nobody is here to say yes to {pluralize(plan.most, 'task')}; nothing was sent", hint=hint)
    if not click.confirm("Go on?", err=True):
        raise UsageError("nothing was sent", hint=hint)


def _execute(plan: ProbePlan, settings: Settings) -> ProbeReport:
    from runner.app.probe_account import execute  # noqa: PLC0415
    from runner.cli.console import ConsoleObserver  # noqa: PLC0415

    def say(text: str) -> None:
        click.echo(f"… {sanitize(text)}", err=True)

    return execute(plan, settings, ConsoleObserver(quiet=True), say)


def _publish(path: Path, report: ProbeReport, settings: Settings) -> None:
    from runner.app.probe_text import publication  # noqa: PLC0415
    from runner.files import create_file  # noqa: PLC0415

    try:
        with create_file(path, 0o644) as file:
            file.write(publication(report, settings).encode())
    except OSError as error:
        raise UsageError(
            f"--publish: {path}: {error.strerror}", hint="The facts are kept; name another file."
        ) from None


def _print(report: ProbeReport, *, as_json: bool) -> None:
    from runner.app.probe_text import fact_lines, report_to_dict  # noqa: PLC0415

    if as_json:
        click.echo(orjson.dumps(report_to_dict(report)))
        return
    click.echo(f"{report.plan.spec.name} {report.plan.operation}, measured:")
    for line in fact_lines(report):
        click.echo(line)
    for reason in report.reasons:
        click.echo(f"  exit {int(report.exit)}: {sanitize(reason)}")
