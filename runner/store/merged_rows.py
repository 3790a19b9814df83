"""Rows of a table whose tasks merged with that of an earlier row: one purchase, and a line and a file for each row.

They are not in the database, since nothing is bought for them. `merged.jsonl` in the state directory holds a head with
the digest of the manifest, then a row a line: the task's key, the row's variables, the name that it asks for, and its
files by the number of the output. It can be made again from the manifest at any time.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import StateError
from runner.files import atomic_write, open_to_read
from runner.store.task_rows import check_output_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_FILE = "merged.jsonl"
#: rows that are kept, and bytes of a line
MAX_MERGED, _MAX_LINE = 100_000, 4 << 20


@dataclass(slots=True)
class SharingRow:
    """A row that shares the purchase of the task with the key `key`."""

    key: str
    vars: Mapping[str, Any]
    #: file name without extension that the row asks for; empty: it has none of its own
    name: str = ""
    #: its own file by the number of the output
    files: dict[int, str] = field(default_factory=dict)

    @property
    def own_key(self) -> str:
        """Return 32 hex digits that name the row's line in results.jsonl; no task has this key."""
        content = orjson.dumps([self.key, self.vars], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(content).hexdigest()[:32]


@dataclass(slots=True)
class MergedRows:
    """The rows of one manifest that share a purchase, by the key of its task and in the order of the manifest."""

    digest: str = ""
    rows: dict[str, list[SharingRow]] = field(default_factory=dict)
    #: rows beyond the most that are kept
    left_out: int = 0
    _count: int = 0

    @classmethod
    def read(cls, state_directory: Path) -> MergedRows:
        """Return the rows that are on record, none if there is no record that can be read."""
        found = cls()
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, StateError):
            with open_to_read(state_directory / _FILE) as file:
                head = orjson.loads(file.readline(_MAX_LINE))
                for line in file:
                    found.add(_row_from(orjson.loads(line)))
            found.digest, found.left_out = str(head["digest"]), int(head["left_out"])
        return found

    def add(self, row: SharingRow) -> None:
        """Add a row, or count it if there are too many."""
        if self._count < MAX_MERGED:
            self._count += 1
            self.rows.setdefault(row.key, []).append(row)
        else:
            self.left_out += 1

    def write(self, state_directory: Path) -> None:
        """Write the record atomically. Raises OSError."""
        with atomic_write(state_directory / _FILE, 0o600) as file:
            head = {"digest": self.digest, "left_out": self.left_out}
            file.write(orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE))
            for rows in self.rows.values():
                file.writelines(
                    orjson.dumps(
                        {"key": row.key, "vars": row.vars, "name": row.name, "files": list(row.files.items())},
                        option=orjson.OPT_APPEND_NEWLINE,
                    )
                    for row in rows
                )

    def attach(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield rows of the store, each with those that share its purchase as `shared`, if there are any."""
        for row in rows:
            if row["key"] in self.rows:
                row["shared"] = list(self.result_rows(row))
            yield row

    def result_rows(self, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield what the store would return for the rows that share the purchase of a task's row.

        A row whose variables are those of the task is the same once more, and has nothing of its own.
        """
        for shared in self.rows.get(row["key"], ()):
            if shared.vars != row["vars"]:
                outputs = [
                    {**output, "file": shared.files.get(output["number"], output["file"])} for output in row["outputs"]
                ]
                yield {
                    **row, "key": shared.own_key, "vars": shared.vars, "outputs": outputs, "spent": 0.0,
                    "same_as": row["key"],
                }  # fmt: skip


def _row_from(stored: Mapping[str, Any]) -> SharingRow:
    files = {int(number): check_output_name(str(name)) or "" for number, name in stored["files"]}
    return SharingRow(str(stored["key"]), dict(stored["vars"]), str(stored["name"]), files)
