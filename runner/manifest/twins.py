"""Find identical tasks, which are created once and reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.blame import Blame
    from runner.manifest.combine import Spot

#: largest number of merged tasks that a warning shows
_SHOWN = 5
#: bytes of a digest that choose its bucket, bytes of it stored there, and bytes of the line or number behind them
_HEAD, _REST, _PLACE = 2, 14, 5
_RECORD = _REST + _PLACE


class Twins:
    """Digests of 16 bytes of all tasks, each with the line of its row, or with its number if there are no rows.

    They are stored in byte arrays of about 25 MB for a million tasks, where a dict takes 140 MB.
    """

    def __init__(self, provenance: Blame, *, rows: bool) -> None:
        self.merged = 0
        self._blame = provenance
        self._rows = rows
        self._buckets: dict[bytes, bytearray] = {}
        self._shown: list[str] = []

    def merge(self, digest: bytes, combination: Spot) -> bool:
        """Return whether the task is identical to an earlier one, and count it if so."""
        first = self._place(digest)
        if first is None:
            return False
        self.merged += 1
        if len(self._shown) < _SHOWN:
            self._shown.append(f"{self._blame.words(combination)} as {'line' if self._rows else 'task'} {first}")
        return True

    def keep(self, digest: bytes, combination: Spot, index: int) -> None:
        """Remember a new task."""
        number = combination.row.line if self._rows else index
        bucket = self._buckets.setdefault(digest[:_HEAD], bytearray())
        bucket += digest[_HEAD:]
        bucket += number.to_bytes(_PLACE, "big")

    def _place(self, digest: bytes) -> int | None:
        """Return line or number of the first task with this digest, else None."""
        bucket, rest = self._buckets.get(digest[:_HEAD], b""), digest[_HEAD:]
        at = bucket.find(rest)
        while at % _RECORD and at >= 0:  # a match across two records is none
            at = bucket.find(rest, at + 1)
        return None if at < 0 else int.from_bytes(bucket[at + _REST : at + _RECORD], "big")

    def tell(self) -> None:
        """Add a warning if tasks were merged."""
        if self.merged:
            more = ", …" if self.merged > len(self._shown) else ""
            message = f"{self.merged:,} tasks are identical to earlier ones and merge with them"
            if self.merged == 1:
                message = "1 task is identical to an earlier one and merges with it"
            shown = f"{', '.join(self._shown)}{more}"
            path = ("items",) if self._rows else ("matrix",)
            self._blame.at(path, f"{message}: {shown}", "`repeat` makes several of each", key=True, warn=True)
