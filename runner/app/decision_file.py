"""Read a user's decisions about many tasks from a text file: a line for each task, `KEY` or `KEY ID`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runner.errors import UsageError
from runner.tasks.events import Resolved
from runner.tasks.remote_ids import read_remote_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: bytes of a file that are read at most: enough for 100,000 tasks
_MAX_BYTES = 16 << 20
_KEY = re.compile(r"[0-9a-f]{4,32}\Z")
#: between a key and an id
_SEPARATOR = re.compile(r"[\s,;]+")
#: mistakes that a message names
_MOST_NAMED = 3


def read_decisions(path: Path, event: Resolved | None, by: str) -> Sequence[tuple[str, Resolved]]:
    """Return key and decision of each line. `by` names who decides.

    `event` is the decision about every line; None: each line names the id under which its task is adopted. Blank lines
    and lines that begin with `#` are left out. Raises UsageError for a file or a line that cannot be read.
    """
    found, mistakes = [], []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, *rest = _SEPARATOR.split(text, maxsplit=1)
        id_ = rest[0].strip() if rest else ""
        where = f"{path}:{number}"
        if not _KEY.match(key):
            mistakes.append(f"{where}: {key[:40]!r} is no key")
        elif event is not None and id_:
            mistakes.append(f"{where}: an id, and nothing is adopted")
        elif event is None and read_remote_id(id_) is None:
            mistakes.append(f"{where}: {'no id of a provider' if id_ else 'no id'} behind the key")
        else:
            found.append((key, Resolved("adopt", by, id_) if event is None else event))
    if mistakes:
        more = f" and {len(mistakes) - _MOST_NAMED} more" if len(mistakes) > _MOST_NAMED else ""
        raise UsageError(
            f"{'; '.join(mistakes[:_MOST_NAMED])}{more}: nothing was decided",
            hint="A line is a key of `runner status`, and its id behind it; or keys alone, with --absent or --abandon.",
        )
    if not found:
        raise UsageError(f"{path} names no task", hint="A line for each task: its key, and its id if it has one.")
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="Name a text file.") from None
    if len(raw) > _MAX_BYTES:
        raise UsageError(f"{path} is larger than {_MAX_BYTES >> 20} MiB", hint="Split it.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8", hint="Save it as UTF-8.") from None
