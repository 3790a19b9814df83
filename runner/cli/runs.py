"""`runner run`, `retry`, `reconcile` and `verify`: the verbs that work on a job's tasks."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner import logs
from runner.app.task_changes import DEFAULT_CHANGES
from runner.cli.parameters import (
    MANIFEST,
    PATH,
    all_lines,
    as_json,
    errors_in_full,
    in_sandbox,
    out,
    refuse_warnings,
    strict,
    warning_lines,
)
from runner.errors import UsageError
from runner.report.progress import show_checking
from runner.report.summary import write as write_summary
from runner.scheduler.clock import Clock
from runner.scheduler.outcome import Ending, Exit, run_outcome
from runner.text import pluralize
from runner.units import TimeOfDay, parse_duration, parse_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.api import Plan, RunResult


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return 0.0 if value in {0.0, "0", "0s"} else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _End(click.ParamType["float | TimeOfDay"]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | TimeOfDay:
        try:
            return value if isinstance(value, TimeOfDay) else parse_end(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


#: number of new tasks from which the user at a terminal must confirm the purchase
_CONFIRM_TASKS = 50
#: the key of a task, which may be shortened
_KEY = re.compile(r"[0-9a-f]{4,32}")
_AMOUNT = click.FloatRange(min=0)


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            out,
            in_sandbox,
            click.option("--deadline", type=_Duration(), help="Stop submitting after this long; finish what is paid."),
            click.option(
                "--until", type=_End(), metavar="TIME", help="End the run then (06:30, or after 6h); the next goes on."
            ),
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
            click.option(
                "--buy-again",
                is_flag=True,
                help="Buy even what was bought before: all, or the tasks of these keys.",
            ),
            click.option("--buy-again-task", "buy_again_keys", multiple=True, hidden=True),
            click.option(
                "--elsewhere",
                type=click.Choice(["link", "ignore"]),
                default="link",
                help="Link what other jobs of the account have bought, or ignore it.",
            ),
            click.option(
                "--changes",
                type=click.IntRange(min=0),
                metavar="N",
                help=f"Buy up to N tasks unasked where bought ones stood, after edits (default {DEFAULT_CHANGES}).",
            ),
            click.option(
                "--lease",
                type=click.Choice(["optional", "required"]),
                default="optional",
                help="Whether to buy while the lease of RUNNER_LEASE cannot be reached.",
            ),
            click.option(
                "--trust-less",
                is_flag=True,
                help="Go on though much was contradicted: leave each lost answer to me.",
            ),
            all_lines,
            strict,
            click.option("--yes", is_flag=True, help=f"Do not ask before {_CONFIRM_TASKS} tasks or more are bought."),
            as_json,
        )
    ):
        function = option(function)
    return function


class _RunCommand(click.Command):
    """Command whose `--buy-again` may be followed by keys of tasks: `--buy-again 0bfde814 5a7c21f0`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_keys(args)))


def _with_keys(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments with an option of its own for each key behind `--buy-again`.

    A word counts as a key if it is hexadecimal and no file is called so: a manifest may follow as well.
    """
    left = deque(arguments)
    while left:
        word = left.popleft()
        if word.startswith("--buy-again="):
            yield word.replace("=", "-task=", 1)
        elif word == "--buy-again":
            keys = []
            while left and _KEY.fullmatch(left[0]) and not Path(left[0]).exists():
                keys.append(f"--buy-again-task={left.popleft()}")
            yield from keys or [word]
        else:
            yield word


@click.command(cls=_RunCommand)
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@_run_options
def run(manifests: tuple[Path, ...], **options: Any) -> int:
    """Do it; the same command again is resume, and with nothing new it submits nothing."""
    return _run_all(manifests, options, verb="run")


@click.command(cls=_RunCommand)
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@click.option("--failed", is_flag=True, help="Also pay anew for what failed.")
@click.option("--reason", metavar="REASON", help="Only what failed for this reason, e.g. moderation.")
@_run_options
def retry(manifests: tuple[Path, ...], failed: bool, reason: str | None, **options: Any) -> int:
    """Fetch what is stranded, free of charge; with --failed pay anew for what failed."""
    return _run_all(manifests, options, verb="retry", failed=failed, reason=reason, again=True)


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@_run_options
def reconcile(manifests: tuple[Path, ...], **options: Any) -> int:
    """Look up tasks in doubt; sends nothing that costs."""
    return _run_all(manifests, options, verb="reconcile")


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=MANIFEST, metavar="MANIFEST…")
@_run_options
def verify(manifests: tuple[Path, ...], **options: Any) -> int:
    """Hash every file again; fetch what is missing or changed, never buy it."""
    return _run_all(manifests, options, verb="verify")


def _run_all(manifests: tuple[Path, ...], options: dict[str, Any], **chosen: Any) -> int:
    """Run the jobs one after the other, and return the most important of their exit codes."""
    for option in ("summary_file", "metrics_file"):
        file = options[option]
        if file and (file.is_dir() or not file.resolve().parent.is_dir()):
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name}: {file} cannot be written", hint="Name a file in a directory that exists.")
    if options["out"] and len(manifests) > 1:
        raise UsageError("--out is one directory, and each manifest needs its own", hint="Run them one by one.")
    if options["metrics_file"] and len(manifests) > 1:
        raise UsageError("--metrics-file is one job's, and each manifest needs its own", hint="Run them one by one.")
    options["log"] = _open_log_file(options["log_file"])
    codes = []
    for path in manifests:
        codes.append(_run_one(path, options, chosen))
        if codes[-1] in {Exit.HUP, Exit.INT, Exit.TERM}:
            break
    return codes[0] if len(codes) == 1 else run_outcome(Ending(Exit(code), "") for code in codes if code).exit


def _open_log_file(path: Path | None) -> logs.LogFile | None:
    """Open the log file that all manifests share until the process ends; raises UsageError."""
    try:
        return None if path is None else logs.LogFile(path)
    except OSError as error:
        raise UsageError(
            f"--log-file: {path} cannot be written: {error.strerror}",
            hint="Name a plain file in a directory that exists.",
        ) from None


def _needs_confirmation(options: dict[str, Any], chosen: dict[str, Any]) -> bool:
    """Return whether the verb buys tasks and a user at a terminal can confirm that."""
    if options["yes"] or options["in_sandbox"] or not (chosen["verb"] == "run" or chosen.get("failed")):
        return False
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def _confirm_purchase(plan: Plan) -> None:
    """Ask the user to confirm the purchase and its highest cost; raises UsageError if the user declines."""
    cost = "at a price nobody knows" if plan.cost is None else f"for {plan.cost:g} {plan.unit}"
    replaced = f" ({plan.replaced:,} of them where bought ones stood)" if plan.replaced else ""
    if not click.confirm(f"{plan.job.name}: buy {pluralize(plan.new, 'task')} {cost}{replaced}?", err=True):
        raise UsageError("nothing was sent", hint="`runner plan` shows what would be bought; --yes does not ask.")


def _run_one(path: Path, options: dict[str, Any], chosen: dict[str, Any]) -> int:
    # imported here because a shell that completes an option imports this module for it
    from runner import api  # noqa: PLC0415
    from runner.app.run_context import RunOptions  # noqa: PLC0415
    from runner.cli.console import ConsoleObserver  # noqa: PLC0415

    logs.configure(options["log_format"], quiet=options["quiet"], file=options["log"])
    place: dict[str, Any] = {"out": options["out"], "sandbox": options["in_sandbox"], "env": os.environ}
    has_cost_cap = options["max_cost"] is not None
    plan = None
    is_quiet = options["quiet"] or options["log_format"] == "json"
    with (
        errors_in_full(options["show_all"]),
        show_checking(str(path), sys.stderr, Clock().now, quiet=is_quiet) as on_progress,
    ):
        if _needs_confirmation(options, chosen):
            plan = api.load_and_plan(
                path,
                **place,
                on_progress=on_progress,
                include_failed=bool(chosen.get("failed")),
                has_cost_cap=has_cost_cap,
                buy_again=options["buy_again"],
                elsewhere=options["elsewhere"],
            )
        job = plan.job if plan else api.load_checked(path, **place, on_progress=on_progress, has_cost_cap=has_cost_cap)
        refuse_warnings(job.warnings, strict=options["strict"] and chosen["verb"] == "run")
    if chosen["verb"] == "run" and not options["quiet"]:  # other verbs buy nothing new
        for line in warning_lines(job.warnings, show_all=options["show_all"]):
            logs.warn(line)
    changes = DEFAULT_CHANGES if options["changes"] is None else options["changes"]
    least = 1 if options["buy_again"] else _CONFIRM_TASKS
    if plan is not None and (plan.new >= least or plan.replaced > changes):
        _confirm_purchase(plan)
        changes = None
    run_options = RunOptions(
        quiet=is_quiet,
        deadline=options["deadline"],
        until=options["until"],
        wait_lock=options["wait_lock"],
        out=options["out"],
        same_account=options["same_account"],
        max_cost=options["max_cost"],
        buy_again=options["buy_again"],
        buy_again_keys=options["buy_again_keys"],
        elsewhere=options["elsewhere"],
        changes=changes,
        lease=options["lease"],
        trust_less=options["trust_less"],
        metrics_file=options["metrics_file"],
        **chosen,
    )

    def on_end(result: RunResult) -> None:
        if options["summary_file"]:
            write_summary(options["summary_file"], result.summary)
        with suppress(OSError):  # stdout may be closed; the exit code still tells the result
            _print_result(options, result)

    return api.run_attached(job, run_options, ConsoleObserver(quiet=run_options.quiet), on_end=on_end).exit_code


def _print_result(options: dict[str, Any], result: RunResult) -> None:
    if options["as_json"]:
        click.echo(orjson.dumps(result.summary))
    elif not options["quiet"] or result.exit_code:
        click.echo(result.describe(), err=options["quiet"])
