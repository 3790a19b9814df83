"""A small file in a job's state directory: what stood in the lists of its providers before the job bought anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import DiskError
from runner.files import atomic_write, open_to_read
from runner.tasks.list_record import EarlierRows

if TYPE_CHECKING:
    from pathlib import Path

#: bytes of the file that are read at most
_MAX_BYTES = 16 << 20


class EarlierRowsFile:
    """Keeps the earlier rows of each list by its name. A file that cannot be read counts as none."""

    def __init__(self, state_directory: Path) -> None:
        self._path = state_directory / "earlier.json"

    def load(self, name: str) -> EarlierRows | None:
        """Return what is known of a list, or None if it was never read."""
        try:
            entry = self._read()[name]
            ids = frozenset(each for each in entry["ids"] if isinstance(each, str))
            return EarlierRows(ids, float(entry["since"]), float(entry["ahead"]))
        except (TypeError, KeyError, ValueError):
            return None

    def save(self, name: str, rows: EarlierRows) -> None:
        """Store what is known of a list. Raises DiskError."""
        lists = self._read() | {name: {"ids": sorted(rows.ids), "since": rows.since, "ahead": rows.ahead}}
        try:
            with atomic_write(self._path, 0o600) as file:
                file.write(orjson.dumps({"lists": lists}))
        except OSError as error:
            raise DiskError(
                f"{self._path}: {error.strerror}", hint="Make room or mend the permissions, then run again."
            ) from None

    def _read(self) -> dict[str, Any]:
        try:
            with open_to_read(self._path) as file:
                stored = orjson.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError):
            return {}
        lists = stored.get("lists") if isinstance(stored, dict) else None
        return lists if isinstance(lists, dict) else {}
