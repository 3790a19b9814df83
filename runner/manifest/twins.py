"""Find identical tasks, which are created once and reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.blame import Provenance
    from runner.manifest.combine import Combination

#: largest number of merged tasks that a warning shows
_MAX_DUPLICATES_SHOWN = 5
#: bytes of a digest that choose its bucket, bytes of it stored there, and bytes of the line or number behind them
_PREFIX_BYTES, _SUFFIX_BYTES, _NUMBER_BYTES = 2, 14, 5
_RECORD_BYTES = _SUFFIX_BYTES + _NUMBER_BYTES


class Duplicates:
    """Digests of 16 bytes of all tasks, each with the line of its row, or with its number if there are no rows.

    They are stored in byte arrays of about 25 MB for a million tasks, where a dict takes 140 MB.
    """

    def __init__(self, provenance: Provenance, *, by_row: bool) -> None:
        self.merged = 0
        self._provenance = provenance
        self._by_row = by_row
        self._buckets: dict[bytes, bytearray] = {}
        self._shown: list[str] = []

    def merge_if_known(self, digest: bytes, combination: Combination) -> bool:
        """Return whether the task is identical to an earlier one, and count it if so."""
        first = self._first_seen(digest)
        if first is None:
            return False
        self.merged += 1
        if len(self._shown) < _MAX_DUPLICATES_SHOWN:
            self._shown.append(
                f"{self._provenance.describe_combination(combination)} as {'line' if self._by_row else 'task'} {first}"
            )
        return True

    def remember(self, digest: bytes, combination: Combination, index: int) -> None:
        """Remember a new task."""
        number = combination.row.line if self._by_row else index
        bucket = self._buckets.setdefault(digest[:_PREFIX_BYTES], bytearray())
        bucket += digest[_PREFIX_BYTES:]
        bucket += number.to_bytes(_NUMBER_BYTES, "big")

    def _first_seen(self, digest: bytes) -> int | None:
        """Return line or number of the first task with this digest, else None."""
        bucket, rest = self._buckets.get(digest[:_PREFIX_BYTES], b""), digest[_PREFIX_BYTES:]
        at = bucket.find(rest)
        while at % _RECORD_BYTES and at >= 0:  # a match across two records is none
            at = bucket.find(rest, at + 1)
        return None if at < 0 else int.from_bytes(bucket[at + _SUFFIX_BYTES : at + _RECORD_BYTES], "big")

    def report(self) -> None:
        """Add a warning if tasks were merged."""
        if self.merged:
            more = ", …" if self.merged > len(self._shown) else ""
            message = f"{self.merged:,} tasks are identical to earlier ones and merge with them"
            if self.merged == 1:
                message = "1 task is identical to an earlier one and merges with it"
            shown = f"{', '.join(self._shown)}{more}"
            path = ("items",) if self._by_row else ("matrix",)
            self._provenance.report_at(
                path, f"{message}: {shown}", "`repeat` makes several of each", key=True, warn=True
            )
