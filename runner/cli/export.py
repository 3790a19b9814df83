"""`runner export`: write results for other programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from runner.cli.parameters import MANIFEST, PATH, in_sandbox, job_directory, out
from runner.errors import DiskError, UsageError
from runner.tasks.models import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.store.merged_rows import MergedRows
    from runner.store.read_only import ReadOnlyQueries

#: first bytes of each format; a file that begins otherwise is no export and is not overwritten
_FORMATS = {"jsonl": b'{"key":', "csv": b"\xef\xbb\xbfkey,index,", "parquet": b"PAR1"}


@click.command()
@click.argument("where", type=MANIFEST, metavar="MANIFEST or DIR")
@click.option("--format", "kind", type=click.Choice(list(_FORMATS)), help="Default: as FILE ends, else jsonl.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write here, whole or not at all; default: stdout.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State]),
    help="Only these; may be repeated.",
)
@out
@in_sandbox
def export(
    where: Path, kind: str | None, output: Path | None, states: tuple[str, ...], out: Path | None, in_sandbox: bool
) -> int:
    """Results as jsonl, csv or parquet; works while a run is on.

    jsonl has the lines of results.jsonl. In csv and parquet a row is a task, with a column for every name in `vars` and
    `request`. csv is for spreadsheets: text that would run as a formula, and ids too long for them, begin with '.
    """
    from runner.store.merged_rows import MergedRows  # noqa: PLC0415
    from runner.store.read_only import open_read_only  # noqa: PLC0415
    from runner.text import pluralize  # noqa: PLC0415 - loaded only by verbs that need it

    suffix = output.suffix.lower().removeprefix(".") if output else ""
    chosen = kind or (suffix if suffix in _FORMATS else "jsonl")
    _check_output(output, chosen)
    directory = job_directory(where, out, in_sandbox=in_sandbox)
    merged = MergedRows.read(directory / ".runner")
    with open_read_only(directory / ".runner") as job, job.snapshot():
        if output is None:
            _write_stdout(chosen, job, set(states), merged)
            return 0
        count = _write_file(output, chosen, job, set(states), merged)
    click.echo(f"{output}: {pluralize(count, 'task')} as {chosen}")
    return 0


def _check_output(output: Path | None, kind: str) -> None:
    """Raise UsageError or ConfigError if the export cannot be written, before any result is read."""
    if kind == "parquet":
        from runner.report.results import import_pyarrow  # noqa: PLC0415

        import_pyarrow()
        if output is None:
            raise UsageError("parquet is not for a terminal or a pipe", hint="Name a file with -o.")
    if output is None:
        return
    if output.exists() and not _is_export(output):
        raise UsageError(f"-o: {output} is there already and is no export", hint="Name another file, or move it away.")
    if not output.parent.is_dir():
        raise UsageError(f"-o: there is no directory {output.parent}", hint="Make it, or name another file.")


def _is_export(path: Path) -> bool:
    """Return whether an existing file may be replaced, since it is an earlier export or empty."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(16)
    return not head or any(head.startswith(magic) for magic in _FORMATS.values())


def _write_stdout(kind: str, job: ReadOnlyQueries, states: set[str], merged: MergedRows) -> None:
    try:
        _write(kind, job, states, merged, sys.stdout.buffer)
    except BrokenPipeError:
        raise  # the reader closed the pipe, which is no error
    except OSError as error:
        raise DiskError(f"stdout: {error.strerror}", hint="Make room, or write elsewhere.") from None


def _write_file(output: Path, kind: str, job: ReadOnlyQueries, states: set[str], merged: MergedRows) -> int:
    from runner.files import atomic_write  # noqa: PLC0415

    try:
        with atomic_write(output) as file:
            return _write(kind, job, states, merged, file)
    except OSError as error:
        hint = "Make room or mend the permissions, or name another file; what was there is untouched."
        raise DiskError(f"{output}: {error.strerror or error}", hint=hint) from None


def _write(kind: str, job: ReadOnlyQueries, states: set[str], merged: MergedRows, file: BinaryIO) -> int:
    """Write the rows in a format, and return their number."""
    from runner.report import results  # noqa: PLC0415

    rows = _SelectedRows(job, states, merged)
    match kind:
        case "csv":
            results.write_csv(rows, results.ColumnTypes().scan(job.task_values(states)), file)
        case "parquet":
            from runner.report.results import write_parquet  # noqa: PLC0415

            write_parquet(rows, results.ColumnTypes().scan(job.task_values(states)), file)
        case _:
            results.write_jsonl(rows, file)
    file.flush()
    return rows.count


class _SelectedRows:
    """Results of a job in the chosen states; every iteration starts from the beginning and counts the rows."""

    def __init__(self, job: ReadOnlyQueries, states: set[str], merged: MergedRows) -> None:
        self._job, self._states, self._merged = job, states, merged
        self.count = 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        self.count = 0
        for row in self._job.results():
            if not self._states or row["state"] in self._states:
                for each in (row, *self._merged.result_rows(row)):
                    self.count += 1
                    yield each
