"""Files for rows of a table that share the purchase of an earlier row: each has the name that its row asks for.

Two articles with one text are one purchase. Both have a line in results.jsonl, and where `output.name` gives them names
of their own, a file each: a hard link, or a copy where there can be none. An existing file is never overwritten. The
record in the state directory is written after the files, so that a crash leaves files that the next run finds again.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import orjson

from runner.app.linked_files import hash_file
from runner.errors import RunnerError
from runner.net.partial_file import disk_errors, link_as, make_shard
from runner.scheduler.download import stems
from runner.store.merged_rows import MAX_MERGED, MergedRows, SharingRow
from runner.store.read_only import open_read_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runner.app.job import LoadedJob
    from runner.store.read_only import ReadOnlyQueries
    from runner.store.store import Store
    from runner.tasks.models import MergedRow

#: tasks whose outputs are read at once
_BATCH = 500


async def finish_merged_rows(job: LoadedJob, store: Store, warn: Callable[[str], None]) -> None:
    """Give the rows that share a purchase their files, if all tasks of the manifest are in the job.

    What prevents that is a warning: what was bought is safe, and the next run tries again.
    """
    if not await store.is_added(job.digest) or job.changed_file() is not None:
        return
    try:
        left_out = await anyio.to_thread.run_sync(name_merged_rows, job)
    except RunnerError as error:
        warn(f"rows that share a purchase have no files of their own yet: {error.message}; the next run tries again")
    else:
        if left_out:
            warn(f"{left_out:,} rows beyond {MAX_MERGED:,} share a purchase, without lines and files of their own")


def name_merged_rows(job: LoadedJob) -> int:
    """Give the rows that share a purchase their files, and return how many rows were left out as too many.

    Blocks. All tasks of the manifest must be in the job. Raises DiskError, and ManifestError if a file has changed.
    """
    if not job.summary.merged or job.manifest.items is None:
        return _forget(job.state_directory)
    known = MergedRows.read(job.state_directory)
    with open_read_only(job.state_directory) as queries:
        rows = known if known.digest == job.digest else _collect(job, queries)
        before = {row.own_key: row.files for row in _all_rows(known)}
        is_changed = rows is not known
        for row, outputs in _with_outputs(rows, queries):
            files = _give_names(job.directory, row, outputs)
            former = before.get(row.own_key, {})
            is_changed = is_changed or files != former
            _remove_former(job.directory, row, former, files, outputs)
            row.files = files
    if is_changed:
        with disk_errors(job.state_directory / "merged.jsonl"):
            rows.write(job.state_directory)
            (job.state_directory / "results.index").unlink(missing_ok=True)  # so that every line is written anew
    return rows.left_out


def _forget(state_directory: Path) -> int:
    """Remove the record of an earlier manifest. The files stay."""
    with suppress(FileNotFoundError):
        (state_directory / "merged.jsonl").unlink()
        (state_directory / "results.index").unlink(missing_ok=True)
    return 0


def _collect(job: LoadedJob, queries: ReadOnlyQueries) -> MergedRows:
    """Return the rows of the manifest whose tasks merged with that of an earlier row."""
    rows = MergedRows(job.digest)
    found: list[MergedRow] = []

    def add(row: MergedRow) -> None:
        if len(found) < MAX_MERGED:
            found.append(row)
        else:
            rows.left_out += 1

    for _ in job.drafts(add):
        pass
    wanted = sorted({row.index for row in found})
    keys: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for start in range(0, len(wanted), _BATCH):
        keys |= queries.keys_at(wanted[start : start + _BATCH])
    for row in found:
        key, variables = keys.get(row.index, ("", {}))
        values = orjson.loads(orjson.dumps(dict(row.vars), default=str))
        if key and values != variables:  # else it is the same row once more
            rows.add(SharingRow(key, values, row.name))
    return rows


def _all_rows(rows: MergedRows) -> Iterator[SharingRow]:
    for shared in rows.rows.values():
        yield from shared


def _with_outputs(rows: MergedRows, queries: ReadOnlyQueries) -> Iterator[tuple[SharingRow, list[dict[str, Any]]]]:
    """Yield the rows with a name of their own, and the outputs of their tasks that are on the disk."""
    keys = iter(rows.rows)
    while some := list(islice(keys, _BATCH)):
        for key, outputs in queries.outputs_of_keys(some).items():
            for row in rows.rows[key]:
                yield row, outputs


def _give_names(directory: Path, row: SharingRow, outputs: list[dict[str, Any]]) -> dict[int, str]:
    """Return the row's own file by the number of the output; one that is missing is made."""
    if not row.name:
        return {}
    found = {}
    for output in outputs:
        source, extension = directory / output["file"], output["file"].rpartition(".")[2]
        for stem in stems(row.name, row.own_key, output["number"], many=len(outputs) > 1):
            name = f"{stem}.{extension}"
            if name == output["file"]:
                break  # the row asks for the name that the file has
            if not source.exists():
                break
            with disk_errors(directory / name):
                make_shard(directory / name, directory)
            if link_as(source, directory / name, mode=0o666) or hash_file(directory / name) == output["sha256"]:
                found[output["number"]] = name
                break
    return found


def _remove_former(
    directory: Path, row: SharingRow, former: Mapping[int, str], files: Mapping[int, str], outputs: list[dict[str, Any]]
) -> None:
    """Remove the names that the row's files had before, as long as the same bytes have another name."""
    sums = {output["number"]: output["sha256"] for output in outputs}
    for number, name in former.items():
        if row.name and number in files and files[number] != name and hash_file(directory / name) == sums.get(number):
            (directory / name).unlink(missing_ok=True)
