"""Output files that another job of the account has paid for: named in this job's directory as well, and checked.

A hard link costs no space. Where there can be none, as on another disk, a copy is made, which shares the blocks of the
file where the file system can. An existing file is never overwritten.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.errors import StateError
from runner.files import make_directory, open_to_read
from runner.net.partial_file import disk_errors, link_as, make_shard
from runner.scheduler.download import stems
from runner.store.task_rows import check_output_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.tasks.models import Output, Task

#: bytes that are read at a time
_CHUNK = 1 << 20


def take_over_files(source: Path, outputs: Sequence[Output], directory: Path, task: Task) -> tuple[Output, ...]:
    """Give the recorded files in `source` names in `directory`, as outputs of `task`, and return them.

    Return nothing if one of them is missing there or has other bytes than were recorded. The links are made under
    private names and hashed there first: a name of an output exists only with checked bytes. Blocks. Raises DiskError.
    """
    parts = directory / ".runner" / "parts"
    make_directory(parts)
    linked = [parts / f"{task.id}-linked-{output.number}.part" for output in outputs]
    try:
        checked = [_link_checked(source, output, part) for output, part in zip(outputs, linked, strict=True)]
        if not outputs or not all(checked):
            return ()
        many, pairs = len(outputs) > 1, zip(outputs, linked, strict=True)
        return tuple(_publish(task, output, part, directory, many=many) for output, part in pairs)
    finally:
        for part in linked:
            part.unlink(missing_ok=True)


def _link_checked(source: Path, output: Output, part: Path) -> bool:
    """Link a recorded file to a private name. Return False if it is not there with the recorded bytes."""
    part.unlink(missing_ok=True)
    try:
        name = check_output_name(output.file)
        if name is None:
            return False
        open_to_read(source / name).close()
    except (OSError, StateError):
        return False
    return link_as(source / name, part, mode=0o666) and hash_file(part) == output.sha256


def _publish(task: Task, output: Output, part: Path, directory: Path, *, many: bool) -> Output:
    """Give a checked file the first of its names that is free, or that a file with the same bytes has already.

    A run that was killed may have left that file, and a user may have copied the directory.
    """
    extension = str(output.file).rpartition(".")[2]
    for stem in stems(task.name, task.key, output.number, many=many):
        name = f"{stem}.{extension}"
        target = directory / name
        with disk_errors(target):
            make_shard(target, directory)
        if link_as(part, target) or hash_file(target) == output.sha256:
            return replace(output, file=name)
    raise FileExistsError(f"every name like {task.name} is taken in {directory}")


def hash_file(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if it is no plain file or cannot be read."""
    digest = hashlib.sha256()
    with suppress(OSError), open_to_read(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()
    return None
