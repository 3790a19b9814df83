"""Bound the number of tasks of a manifest, and the work for combinations that make none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.combinations import Combinations
    from runner.manifest.model import Manifest
    from runner.manifest.provenance import Provenance

#: combinations without a new task that are tried, for each task that `max_tasks` allows
_IDLE_FACTOR = 10


class TaskLimit:
    """Limit of `limits.max_tasks`, reported once when `exceeded` becomes true."""

    def __init__(self, manifest: Manifest, combinations: Combinations, provenance: Provenance) -> None:
        self.exceeded = False
        self._manifest = manifest
        self._combinations = combinations
        self._provenance = provenance
        self._max_tasks = manifest.limits.max_tasks
        self._idle_count = 0
        self._slots_reported = False

    def check_product(self) -> bool:
        """Report and return whether the product alone exceeds the limit.

        Leave a margin, since rows may be identical and `exclude` may remove most combinations.
        """
        per_row = self._combinations.size * self._manifest.repeat
        margin = _IDLE_FACTOR if self._manifest.matrix.exclude else 1
        if per_row > self._max_tasks * margin or self._combination_count() > self._max_tasks * _IDLE_FACTOR:
            self._report()
        return self.exceeded

    def check_next(self, made: int) -> bool:
        """Report and return whether one task more exceeds the limit."""
        if made >= self._max_tasks:
            self._report()
        return self.exceeded

    def count_idle(self) -> bool:
        """Count a combination without a new task, and return whether there are too many of them."""
        self._idle_count += 1
        if self._idle_count > self._max_tasks * _IDLE_FACTOR:
            self._report(f"more than {self._max_tasks * _IDLE_FACTOR:,} combinations that make no new task")
        return self.exceeded

    def count_skipped(self) -> bool:
        """Count a combination that `exclude` removed, and return whether there are too many of them.

        Do not count it if its row has no other one, since such a row costs no more than reading it.
        """
        return self._combinations.size > 1 and self.count_idle()

    def check_slots(self, slots: int) -> int:
        """Return `slots`, the account's slots that one task takes. Report once if `limits.in_flight` is smaller."""
        window = self._manifest.limits.in_flight
        if window is not None and slots > window and not self._slots_reported:
            self._slots_reported = True
            message = f"allows {window} at once, and one task takes {slots} slots by itself"
            hint = f"raise it to {slots} or more if the account has as many, or ask for fewer outputs a task"
            self._provenance.report_at(("limits", "in_flight"), message, hint)
        return slots

    def _combination_count(self) -> int:
        """Return the largest number of tasks that is known before the rows of a file are read."""
        source = self._manifest.items
        rows = len(source.rows) if source is not None and source.file is None else 1
        return self._combinations.size * self._manifest.repeat * rows

    def _report(self, reason: str = "") -> None:
        if self.exceeded:
            return
        self.exceeded = True
        sizes, count = self._product_text() or "a row each", self._combination_count()
        if not reason and self._manifest.matrix.exclude:
            reason = f"too many tasks of {count:,} combinations ({sizes})"
        elif not reason:
            reason = f"at least {max(count, self._max_tasks + 1):,} tasks ({sizes})"
        message = f"{reason}, and at most {self._max_tasks:,} are allowed"
        hint = "take some away, or raise `limits.max_tasks`"
        self._provenance.report_at(("limits", "max_tasks"), message, hint)

    def _product_text(self) -> str:
        """Return the sizes that multiply as text, like `3 style × 2 repeat`."""
        sizes, source = [str(self._combinations)] if self._combinations.size > 1 else [], self._manifest.items
        if sizes and "+" in sizes[0] and (self._manifest.repeat > 1 or source):
            sizes = [f"({sizes[0]})"]
        if self._manifest.repeat > 1:
            sizes.append(f"{self._manifest.repeat:,} repeat")
        if source is not None and len(source.rows) > 1:
            sizes.append(f"{len(source.rows):,} items")
        return " × ".join(sizes)
