"""Collect the errors and warnings of a manifest: each once, in the order of the file, at most fifty shown."""

from __future__ import annotations

import re

from runner.errors import Diagnostic, ManifestError

#: largest number of errors shown to the user; the others are counted
MAX_SHOWN = 50
#: largest number of errors kept for sorting; a file with an error in each of 10^6 rows must not fill the memory
MAX_KEPT = 2_000
_FIGURES = re.compile(r"([0-9]+)")


class Diagnostics:
    """Errors and warnings of the manifest `file`. Length and truth are those of the errors."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._errors: set[Diagnostic] = set()
        self._warnings: set[Diagnostic] = set()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._errors) + self._dropped

    def __bool__(self) -> bool:
        return bool(self._errors)

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
        diagnostic = Diagnostic(file or self.file, *location, key, message, hint)
        if warn:
            self._warnings.add(diagnostic)
        else:
            self.extend([diagnostic])

    def extend(self, errors: list[Diagnostic]) -> None:
        """Add errors. Only count those beyond the largest number to keep."""
        for error in errors:
            if len(self._errors) < MAX_KEPT or error in self._errors:
                self._errors.add(error)
            else:
                self._dropped += 1

    def error(self) -> ManifestError:
        """Return the exception that holds the first errors and the number of the others."""
        ordered = self._ordered(self._errors)
        return ManifestError(ordered[:MAX_SHOWN], omitted=max(0, len(ordered) - MAX_SHOWN) + self._dropped)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Return the first warnings in the order of the files."""
        return tuple(self._ordered(self._warnings)[:MAX_SHOWN])

    def has_errors_in(self, file: str) -> bool:
        """Return whether there is an error in `file`."""
        return any(error.file == file for error in self._errors)

    def raise_any(self) -> None:
        """Raise ManifestError if there are errors."""
        if self._errors:
            raise self.error()

    def _ordered(self, diagnostics: set[Diagnostic]) -> list[Diagnostic]:
        return sorted(
            diagnostics, key=lambda each: (each.file != self.file, each.file, each.line, each.column, _sort_key(each))
        )


def _sort_key(diagnostic: Diagnostic) -> tuple[list[tuple[bool, int, str]], Diagnostic]:
    """Return a sort key that has `matrix.n[9]` before `matrix.n[10]`."""
    parts = _FIGURES.split(diagnostic.key)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], diagnostic
