"""The command and its verbs; the module of a verb is imported only when that verb is called."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

import click

from runner import __version__
from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

#: module and one-line help of each verb; the help is here so that `--help` imports nothing
_VERBS = {
    "init": ("runner.cli.init", "write a commented manifest, for a provider or for a table of your own"),
    "validate": ("runner.cli.plan", "every mistake in a manifest, with line and column"),
    "plan": ("runner.cli.plan", "tasks, price, time, what was changed, sample requests; sends nothing"),
    "run": ("runner.cli.runs", "do it; the same command again is resume, and with nothing new it submits nothing"),
    "retry": ("runner.cli.runs", "fetch what is stranded, free of charge; with --failed pay anew for what failed"),
    "reconcile": ("runner.cli.runs", "look up tasks in doubt; sends nothing that costs"),
    "verify": ("runner.cli.runs", "hash every file again; fetch what is missing, never buy it"),
    "audit": ("runner.cli.jobs", "the provider's own list and bills against ours"),
    "recover": ("runner.cli.jobs", "rebuild the state from the journal, into a new file"),
    "status": ("runner.cli.status", "counts, oldest waiting, reasons; works while a run is on"),
    "resolve": ("runner.cli.jobs", "a person's decision on a task that may be paid for"),
    "adopt-state": ("runner.cli.jobs", "let a copied, moved or restored state buy again, after a look at what differs"),
    "export": ("runner.cli.export", "results as jsonl, csv or parquet; works while a run is on"),
    "gallery": ("runner.cli.gallery", "index.html of the job, with thumbnails; works while a run is on"),
    "serve": ("runner.cli.gallery", "a live page of every job below a directory, on loopback"),
    "providers": ("runner.cli.providers", "what can be called"),
    "models": ("runner.cli.providers", "models by any word, with their parameters and prices"),
    "probe": ("runner.cli.probe", "measure on your account what runs cannot; buys a few tasks, and asks first"),
    "sandbox": ("runner.cli.sandbox", "the providers' APIs on loopback, with faults on demand"),
    "doctor": ("runner.cli.doctor", "credentials, clock, disk, permissions, TLS, proxies; writes nothing"),
    "schema": ("runner.cli.init", "JSON Schema of the manifest, for editors"),
    "completion": ("runner.cli.completion", "what a shell must know to complete verbs and options"),
}

_EXIT_CODES = """\b
Exit codes:
  0  everything is done
  1  internal error: a bug
  2  usage or manifest invalid; nothing was sent
  3  finished; some tasks failed or could not be fetched
  4  possibly paid: tasks are held; a person must decide
  5  stopped early and resumable: run the same command again
  6  out of credit at the provider
  7  configuration, TLS or permission
  8  max_cost reached
  10 no such job
  11 locked by another run
  12 credentials wrong or expired
  13 state corrupt, mismatched or of a newer version
  14 disk full or I/O error
  129, 130, 143  ended by HUP, INT, TERM; consistent and resumable
"""


class _VerbGroup(click.Group):
    """Command group that imports the module of a verb when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(_VERBS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _VERBS and not args[0].startswith("-"):
            ctx.fail(f"There is no verb {args[0]!r}.{_suggestion(args[0])}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - needed only for shell completion

        verbs = [CompletionItem(verb, help=about) for verb, (_, about) in _VERBS.items() if verb.startswith(incomplete)]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # the reader closed the pipe; a run must still report its own exit code
            if _VERBS.get(ctx.invoked_subcommand or "", ("", ""))[0] == "runner.cli.runs":
                raise
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, about) for verb, (_, about) in _VERBS.items()])


def _suggestion(word: str) -> str:
    """Return a suggestion for an unknown verb, or an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415 - needed only for an unknown verb

    from runner.text import shell_join  # noqa: PLC0415

    if word.endswith((".yaml", ".yml")):
        return f" For a manifest: runner plan {shell_join(word)}, then runner run {shell_join(word)}."
    if word == "help":
        return " For all verbs: runner --help; for one: runner run --help."
    matches = get_close_matches(word, _VERBS, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


@click.group(cls=_VerbGroup, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="runner")
def runner() -> None:
    """Bulk generation against asynchronous image and video APIs: every task paid for once, every result kept."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; errors are printed on stderr."""
    _open_streams()
    _disable_core_dumps()
    try:
        return _run(arguments)
    finally:
        _flush_streams()


def _open_streams() -> None:
    """Open missing standard streams on the null device.

    Otherwise a file of the job would get the descriptor of a standard stream, and output would be written into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # open() takes the lowest free descriptor, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - takes no keyword
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a prompt that the locale cannot encode must not end a run


def _disable_core_dumps() -> None:
    """Disable core dumps, since the memory of the process holds credentials."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _flush_streams() -> None:
    """Flush the output, so that a closed pipe does not turn the exit code into the interpreter's 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for the interpreter's final flush


def _run(arguments: Sequence[str]) -> int:
    try:
        code = runner.main(args=list(arguments), prog_name="runner", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except RunnerError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
