"""Tasks that ask for the same under the same number of `repeat`: made once, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.blame import Blame
    from runner.manifest.combine import Spot

#: merged tasks that are shown
_SHOWN = 5


class Twins:
    """Knows every task by 16 bytes, and where a person finds it: the line of its row, else its number."""

    def __init__(self, blame: Blame, *, rows: bool) -> None:
        self.merged = 0
        self._blame = blame
        self._rows = rows
        self._first: dict[bytes, int] = {}
        self._shown: list[str] = []

    def merge(self, digest: bytes, spot: Spot) -> bool:
        """Whether there was such a task already."""
        first = self._first.get(digest)
        if first is None:
            return False
        self.merged += 1
        if len(self._shown) < _SHOWN:
            self._shown.append(f"{self._blame.words(spot)} as {'line' if self._rows else 'task'} {first}")
        return True

    def keep(self, digest: bytes, spot: Spot, index: int) -> None:
        """Remember a new task."""
        self._first[digest] = spot.row.line if self._rows else index

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
