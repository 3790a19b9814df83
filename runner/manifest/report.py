"""Collect the errors and warnings of a manifest: each once, in the order of the file, at most fifty shown."""

from __future__ import annotations

import re

from runner.errors import ManifestError, Problem

#: largest number of errors shown to the user; the others are counted
SHOWN = 50
#: largest number of errors kept for sorting; a file with an error in each of 10^6 rows must not fill the memory
KEPT = 2_000
_FIGURES = re.compile(r"([0-9]+)")


class Report:
    """Errors and warnings of the manifest `file`. Length and truth are those of the errors."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: set[Problem] = set()
        self._warnings: set[Problem] = set()
        self._beyond = 0

    def __len__(self) -> int:
        return len(self._problems) + self._beyond

    def __bool__(self) -> bool:
        return bool(self._problems)

    def add(
        self,
        location: tuple[int, int],
        key: str,
        message: str,
        hint: str = "",
        *,
        file: str = "",
        warn: bool = False,
    ) -> None:
        """Add an error, or a warning if `warn` is set, at (line, column) of a file, by default the manifest."""
        diagnostic = Problem(file or self.file, *location, key, message, hint)
        if warn:
            self._warnings.add(diagnostic)
        else:
            self.extend([diagnostic])

    def extend(self, errors: list[Problem]) -> None:
        """Add errors. Only count those beyond the largest number to keep."""
        for error in errors:
            if len(self._problems) < KEPT or error in self._problems:
                self._problems.add(error)
            else:
                self._beyond += 1

    def error(self) -> ManifestError:
        """Return the exception that holds the first errors and the number of the others."""
        ordered = self._ordered(self._problems)
        return ManifestError(ordered[:SHOWN], omitted=max(0, len(ordered) - SHOWN) + self._beyond)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Return the first warnings in the order of the files."""
        return tuple(self._ordered(self._warnings)[:SHOWN])

    def blames(self, file: str) -> bool:
        """Return whether there is an error in `file`."""
        return any(error.file == file for error in self._problems)

    def raise_any(self) -> None:
        """Raise ManifestError if there are errors."""
        if self._problems:
            raise self.error()

    def _ordered(self, diagnostics: set[Problem]) -> list[Problem]:
        return sorted(
            diagnostics, key=lambda each: (each.file != self.file, each.file, each.line, each.column, _natural(each))
        )


def _natural(diagnostic: Problem) -> tuple[list[tuple[bool, int, str]], Problem]:
    """Return a sort key that has `matrix.n[9]` before `matrix.n[10]`."""
    parts = _FIGURES.split(diagnostic.key)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], diagnostic
