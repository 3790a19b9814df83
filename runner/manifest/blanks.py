"""Warn of empty cells that a template inserts unconditionally: such a task would be paid for all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.values import dotted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from runner.manifest.blame import Blame
    from runner.manifest.formats import Row
    from runner.manifest.recipe import Param, Path


class Blanks:
    """Empty values of the rows that produce tasks, reported once a column at the first such row.

    Only templates of plain text and names count. A template with a condition, a filter or a `default` already provides
    for empty values.
    """

    def __init__(self, params: Iterable[Param], columns: Collection[str], provenance: Blame) -> None:
        self._blame = provenance
        texts = [text for param in params for text in param.texts]
        used = [(name, text.path) for text in texts for is_text, name in text.template.plain if not is_text]
        self._used: dict[str, Path] = {name: path for name, path in reversed(used) if name in columns}
        self._found: dict[str, tuple[Row, int]] = {}

    def watch(self, row: Row) -> None:
        """Count the empty values of a row."""
        for name in self._used:
            if row.values.get(name) == "":
                first, count = self._found.get(name, (row, 0))
                self._found[name] = first, count + 1

    def tell(self) -> None:
        """Add a warning for each column with empty values."""
        for name, (row, count) in self._found.items():
            more = f" and in {count - 1:,} more" if count > 1 else ""
            message = f"is empty in this row{more}, but `{dotted(self._used[name])}` puts it in as it is"
            hint = f"fill it in, or write {{% if {name} %}}…{{% endif %}} around it"
            self._blame.row(row, name, message, hint, warn=True)
