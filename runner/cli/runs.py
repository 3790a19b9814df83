"""`runner run`, `retry`, `reconcile` and `verify`: the verbs that work on a job's tasks."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.options import MANIFEST, PATH, as_json, in_sandbox, out
from runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.app.planning import Plan
    from runner.log_file import LogFile
    from runner.report.advice import Findings


def _tell(options: dict[str, Any], summary: dict[str, Any], issues: Findings, directory: str) -> None:
    if options["as_json"]:
        click.echo(orjson.dumps(summary))
    elif not options["quiet"] or summary["exit_code"]:
        from runner.report.summary import told  # noqa: PLC0415

        click.echo(told(summary, issues, directory), err=options["quiet"])


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from runner.manifest.units import duration  # noqa: PLC0415

        try:
            return 0.0 if value in {0.0, "0", "0s"} else duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


#: number of new tasks from which the user at a terminal must confirm the purchase
_MANY = 50
_AMOUNT = click.FloatRange(min=0)


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            out,
            in_sandbox,
            click.option("--deadline", type=_Duration(), help="Stop submitting after this long; finish what is paid."),
            click.option(
                "--wait-lock", type=_Duration(), default=0.0, help="Wait this long for another run of the job."
            ),
            click.option("--summary-file", type=PATH, metavar="FILE", help="Also write the summary here, as JSON."),
            click.option("--metrics-file", type=PATH, metavar="FILE", help="Counts and costs for Prometheus."),
            click.option("--log-file", type=PATH, metavar="FILE", help="Add a JSON log line for every change to it."),
            click.option(
                "--log-format", type=click.Choice(["console", "json"]), help="A log line for every change, on stderr."
            ),
            click.option("--quiet", is_flag=True, help="Print nothing on success; still say why on failure."),
            click.option("--same-account", is_flag=True, help="The account is the same under a new key."),
            click.option("--max-cost", type=_AMOUNT, metavar="N", help="Pause with exit code 8 before it costs more."),
            click.option("--buy-again", is_flag=True, help="Buy even what was bought before and is lost to this job."),
            click.option("--yes", is_flag=True, help=f"Do not ask before {_MANY} tasks or more are bought."),
            as_json,
        )
    ):
        function = option(function)
    return function


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@_run_options
def run(manifests: tuple[Path, ...], **options: Any) -> int:
    """Do it; the same command again is resume, and with nothing new it submits nothing."""
    return _each(manifests, options, verb="run")


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@click.option("--failed", is_flag=True, help="Also pay anew for what failed.")
@click.option("--reason", metavar="REASON", help="Only what failed for this reason, e.g. moderation.")
@_run_options
def retry(manifests: tuple[Path, ...], failed: bool, reason: str | None, **options: Any) -> int:
    """Fetch what is stranded, free of charge; with --failed pay anew for what failed."""
    return _each(manifests, options, verb="retry", failed=failed, reason=reason, again=True)


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@_run_options
def reconcile(manifests: tuple[Path, ...], **options: Any) -> int:
    """Look up tasks in doubt; sends nothing that costs."""
    return _each(manifests, options, verb="reconcile")


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@_run_options
def verify(manifests: tuple[Path, ...], **options: Any) -> int:
    """Hash every file again; fetch what is missing or changed, never buy it."""
    return _each(manifests, options, verb="verify")


def _each(manifests: tuple[Path, ...], options: dict[str, Any], **chosen: Any) -> int:
    """Run the jobs one after the other, and return the most important of their exit codes."""
    from runner.pipeline.outcome import Ending, Exit, run_outcome  # noqa: PLC0415

    for option in ("summary_file", "metrics_file"):
        file = options[option]
        if file and (file.is_dir() or not file.resolve().parent.is_dir()):
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name}: {file} cannot be written", hint="Name a file in a directory that exists.")
    if options["out"] and len(manifests) > 1:
        raise UsageError("--out is one directory, and each manifest needs its own", hint="Run them one by one.")
    if options["metrics_file"] and len(manifests) > 1:
        raise UsageError("--metrics-file is one job's, and each manifest needs its own", hint="Run them one by one.")
    options["log"] = _log_file(options["log_file"])
    codes = []
    for path in manifests:
        codes.append(_one(path, options, chosen))
        if codes[-1] in {Exit.HUP, Exit.INT, Exit.TERM}:
            break
    return codes[0] if len(codes) == 1 else run_outcome(Ending(Exit(code), "") for code in codes if code).exit


def _log_file(path: Path | None) -> LogFile | None:
    """Open the log file that all manifests share until the process ends; raises UsageError."""
    from runner.log_file import LogFile  # noqa: PLC0415

    try:
        return None if path is None else LogFile(path)
    except OSError as error:
        raise UsageError(
            f"--log-file: {path} cannot be written: {error.strerror}",
            hint="Name a plain file in a directory that exists.",
        ) from None


def _asks(options: dict[str, Any], chosen: dict[str, Any]) -> bool:
    """Return whether the verb buys tasks and a user at a terminal can confirm that."""
    if options["yes"] or options["in_sandbox"] or not (chosen["verb"] == "run" or chosen.get("failed")):
        return False
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def _ask(name: str, plan: Plan) -> None:
    """Ask the user to confirm the purchase and its highest cost; raises UsageError if the user declines."""
    from runner.report.text import many  # noqa: PLC0415

    cost = "at a price nobody knows" if plan.cost is None else f"for {plan.cost:g} {plan.unit}"
    if not click.confirm(f"{name}: buy {many(plan.new, 'task')} {cost}?", err=True):
        raise UsageError("nothing was sent", hint="`runner plan` shows what would be bought; --yes does not ask.")


def _one(path: Path, options: dict[str, Any], chosen: dict[str, Any]) -> int:
    from runner import logs  # noqa: PLC0415
    from runner.app.jobs import load  # noqa: PLC0415
    from runner.app.notices import announced  # noqa: PLC0415
    from runner.app.planning import Plan  # noqa: PLC0415
    from runner.app.rooms import Choices  # noqa: PLC0415
    from runner.app.runs import execute  # noqa: PLC0415
    from runner.report import summary as report  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    logs.set_up(options["log_format"], quiet=options["quiet"], file=options["log"])
    settings = Settings(os.environ)
    retry_failed = bool(chosen.get("failed"))
    confirm = _asks(options, chosen)
    plan = Plan(0, options["out"], options["in_sandbox"], settings.providers, anew=retry_failed) if confirm else None
    job = load(
        path,
        settings,
        out=options["out"],
        in_sandbox=options["in_sandbox"],
        each=plan.see if plan else None,
        capped=options["max_cost"] is not None,
    )
    if chosen["verb"] == "run" and not options["quiet"]:  # other verbs buy nothing new
        for warning in job.summary.warnings:
            logs.warn(str(warning))
    if plan is not None and plan.new >= _MANY:
        _ask(job.manifest.name, plan)
    run_options = Choices(
        quiet=options["quiet"] or options["log_format"] == "json",
        deadline=options["deadline"],
        wait_lock=options["wait_lock"],
        out=options["out"],
        same_account=options["same_account"],
        max_cost=options["max_cost"],
        anew=options["buy_again"],
        metrics_file=options["metrics_file"],
        **chosen,
    )
    with announced(job, run_options) as notify_end:
        summary, issues = execute(job, run_options, sys.stderr or io.StringIO())
        if options["summary_file"]:
            report.write(options["summary_file"], summary)
        with suppress(OSError):  # stdout may be closed; the exit code still tells the result
            _tell(options, summary, issues, str(job.directory))
        notify_end(summary)
    code: int = summary["exit_code"]
    return code
