"""Limit the number of tasks of a manifest, before the first is created and while they are created."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.blame import Blame
    from runner.manifest.combine import Combinations
    from runner.manifest.model import Manifest

#: combinations without a new task that are tried, for each task that `max_tasks` allows
_PATIENCE = 10


class Bounds:
    """Limit of `limits.max_tasks`, reported once when `exceeded` becomes true."""

    def __init__(self, manifest: Manifest, combinations: Combinations, provenance: Blame) -> None:
        self.over = False
        self._manifest = manifest
        self._combinations = combinations
        self._blame = provenance
        self._most = manifest.limits.max_tasks
        self._idle = 0
        self._wide = False

    def check(self) -> bool:
        """Report and return whether the product alone exceeds the limit.

        Leave a margin, since rows may be identical and `exclude` may remove most combinations.
        """
        per_row = self._combinations.size * self._manifest.repeat
        margin = _PATIENCE if self._manifest.matrix.exclude else 1
        if per_row > self._most * margin or self._all() > self._most * _PATIENCE:
            self._tell()
        return self.over

    def full(self, made: int) -> bool:
        """Report and return whether one task more exceeds the limit."""
        if made >= self._most:
            self._tell()
        return self.over

    def idle(self) -> bool:
        """Count a combination without a new task, and return whether there are too many of them."""
        self._idle += 1
        if self._idle > self._most * _PATIENCE:
            self._tell(f"more than {self._most * _PATIENCE:,} combinations that make no new task")
        return self.over

    def skipped(self) -> bool:
        """Count a combination that `exclude` removed, and return whether there are too many of them.

        Do not count it if its row has no other one, since such a row costs no more than reading it.
        """
        return self._combinations.size > 1 and self.idle()

    def watch(self, slots: int) -> int:
        """Return `slots`, the account's slots that one task takes. Report once if `limits.in_flight` is smaller."""
        window = self._manifest.limits.in_flight
        if window is not None and slots > window and not self._wide:
            self._wide = True
            message = f"allows {window} at once, and one task takes {slots} slots by itself"
            hint = f"raise it to {slots} or more if the account has as many, or ask for fewer outputs a task"
            self._blame.at(("limits", "in_flight"), message, hint)
        return slots

    def _all(self) -> int:
        """Return the largest number of tasks that is known before the rows of a file are read."""
        source = self._manifest.items
        rows = len(source.rows) if source is not None and source.file is None else 1
        return self._combinations.size * self._manifest.repeat * rows

    def _tell(self, reason: str = "") -> None:
        if self.over:
            return
        self.over = True
        hint = "take some away, or raise `limits.max_tasks`"
        self._blame.at(
            ("limits", "max_tasks"), f"{reason or self._counted()}, and at most {self._most:,} are allowed", hint
        )

    def _counted(self) -> str:
        sizes = self._product() or "a row each"
        if self._manifest.matrix.exclude:
            return f"too many tasks of {self._all():,} combinations ({sizes})"
        return f"at least {max(self._all(), self._most + 1):,} tasks ({sizes})"

    def _product(self) -> str:
        """Return the sizes that multiply as text, like `3 style × 2 repeat`."""
        sizes, source = [str(self._combinations)] if self._combinations.size > 1 else [], self._manifest.items
        if sizes and "+" in sizes[0] and (self._manifest.repeat > 1 or source):
            sizes = [f"({sizes[0]})"]
        if self._manifest.repeat > 1:
            sizes.append(f"{self._manifest.repeat:,} repeat")
        if source is not None and len(source.rows) > 1:
            sizes.append(f"{len(source.rows):,} items")
        return " × ".join(sizes)
