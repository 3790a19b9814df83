"""Tasks that ask for the same under the same number of `repeat`: made once, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.blame import Blame
    from runner.manifest.combine import Spot

#: merged tasks that are shown
_SHOWN = 5
#: bytes of a digest that choose its bucket, those that stand in it, and those of a line or number behind them
_HEAD, _REST, _PLACE = 2, 14, 5
_RECORD = _REST + _PLACE


class Twins:
    """Knows every task by 16 bytes, and where a person finds it: the line of its row, else its number.

    They stand in rows of bytes, some 25 MB for a million tasks where a dict takes 140.
    """

    def __init__(self, blame: Blame, *, rows: bool) -> None:
        self.merged = 0
        self._blame = blame
        self._rows = rows
        self._buckets: dict[bytes, bytearray] = {}
        self._shown: list[str] = []

    def merge(self, digest: bytes, spot: Spot) -> bool:
        """Whether there was such a task already."""
        first = self._place(digest)
        if first is None:
            return False
        self.merged += 1
        if len(self._shown) < _SHOWN:
            self._shown.append(f"{self._blame.words(spot)} as {'line' if self._rows else 'task'} {first}")
        return True

    def keep(self, digest: bytes, spot: Spot, index: int) -> None:
        """Remember a new task."""
        place = spot.row.line if self._rows else index
        bucket = self._buckets.setdefault(digest[:_HEAD], bytearray())
        bucket += digest[_HEAD:]
        bucket += place.to_bytes(_PLACE, "big")

    def _place(self, digest: bytes) -> int | None:
        """Where that task was seen first."""
        bucket, rest = self._buckets.get(digest[:_HEAD], b""), digest[_HEAD:]
        at = bucket.find(rest)
        while at % _RECORD and at >= 0:  # across two records, which means nothing
            at = bucket.find(rest, at + 1)
        return None if at < 0 else int.from_bytes(bucket[at + _REST : at + _RECORD], "big")

    def tell(self) -> None:
        """A warning, if any merged."""
        if self.merged:
            more = ", …" if self.merged > len(self._shown) else ""
            message = f"{self.merged:,} tasks are identical to earlier ones and merge with them"
            if self.merged == 1:
                message = "1 task is identical to an earlier one and merges with it"
            shown = f"{', '.join(self._shown)}{more}"
            path = ("items",) if self._rows else ("matrix",)
            self._blame.at(path, f"{message}: {shown}", "`repeat` makes several of each", key=True, warn=True)
