"""How many tasks a manifest may come to: counted before any is made, and watched while they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.blame import Blame
    from runner.manifest.combine import Combinations
    from runner.manifest.model import Manifest

#: combinations without a new task that are looked at, for each task that `max_tasks` allows
_PATIENCE = 10


class Bounds:
    """Tells once when there is too much; `over` then."""

    def __init__(self, manifest: Manifest, combinations: Combinations, blame: Blame) -> None:
        self.over = False
        self._manifest = manifest
        self._combinations = combinations
        self._blame = blame
        self._most = manifest.limits.max_tasks
        self._idle = 0
        self._wide = False

    def check(self) -> bool:
        """Whether there is too much by arithmetic alone; rows may be identical and `exclude` may take most away."""
        each = self._combinations.size * self._manifest.repeat
        fewer = _PATIENCE if self._manifest.matrix.exclude else 1
        if each > self._most * fewer or self._all() > self._most * _PATIENCE:
            self._tell()
        return self.over

    def full(self, made: int) -> bool:
        """Whether one more is too many."""
        if made >= self._most:
            self._tell()
        return self.over

    def idle(self) -> bool:
        """Whether the walk ends here: many combinations that make few tasks are too many as well."""
        self._idle += 1
        if self._idle > self._most * _PATIENCE:
            self._tell(f"more than {self._most * _PATIENCE:,} combinations that make no new task")
        return self.over

    def skipped(self) -> bool:
        """The same for one that `exclude` took; a row that goes as a whole costs no more than to read it."""
        return self._combinations.size > 1 and self.idle()

    def watch(self, slots: int) -> int:
        """The slots of the account that a task takes; told once where the window never has so many."""
        most = self._manifest.limits.in_flight
        if most is not None and slots > most and not self._wide:
            self._wide = True
            message = f"allows {most} at once, and one task takes {slots} slots by itself"
            hint = f"raise it to {slots} or more if the account has as many, or ask for fewer outputs a task"
            self._blame.at(("limits", "in_flight"), message, hint)
        return slots

    def _all(self) -> int:
        """Tasks that there can be at the most, as far as that is known before the rows are read."""
        given = self._manifest.items
        rows = len(given.rows) if given is not None and given.file is None else 1
        return self._combinations.size * self._manifest.repeat * rows

    def _tell(self, why: str = "") -> None:
        if self.over:
            return
        self.over = True
        hint = "take some away, or raise `limits.max_tasks`"
        self._blame.at(
            ("limits", "max_tasks"), f"{why or self._counted()}, and at most {self._most:,} are allowed", hint
        )

    def _counted(self) -> str:
        told = self._product() or "a row each"
        if self._manifest.matrix.exclude:
            return f"too many tasks of {self._all():,} combinations ({told})"
        return f"at least {max(self._all(), self._most + 1):,} tasks ({told})"

    def _product(self) -> str:
        """The sizes that multiply, as `3 style × 2 repeat`."""
        told, given = [str(self._combinations)] if self._combinations.size > 1 else [], self._manifest.items
        if told and "+" in told[0] and (self._manifest.repeat > 1 or given):
            told = [f"({told[0]})"]
        if self._manifest.repeat > 1:
            told.append(f"{self._manifest.repeat:,} repeat")
        if given is not None and len(given.rows) > 1:
            told.append(f"{len(given.rows):,} items")
        return " × ".join(told)
