"""Collects the problems and warnings of a manifest: each once, in the order of the file, at most fifty shown."""

from __future__ import annotations

import re

from runner.errors import ManifestError, Problem

#: problems shown to a person; the rest are counted
SHOWN = 50
#: problems kept to be sorted; a file with a mistake in each of 10^6 rows must not fill the memory
KEPT = 2_000
_FIGURES = re.compile(r"([0-9]+)")


class Report:
    """The problems of one manifest, `file`; warnings are none."""

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
        place: tuple[int, int],
        key: str,
        message: str,
        hint: str = "",
        *,
        file: str = "",
        warn: bool = False,
    ) -> None:
        problem = Problem(file or self.file, *place, key, message, hint)
        if warn:
            self._warnings.add(problem)
        else:
            self.extend([problem])

    def extend(self, problems: list[Problem]) -> None:
        for problem in problems:
            if len(self._problems) < KEPT or problem in self._problems:
                self._problems.add(problem)
            else:
                self._beyond += 1

    def error(self) -> ManifestError:
        ordered = self._ordered(self._problems)
        return ManifestError(ordered[:SHOWN], omitted=max(0, len(ordered) - SHOWN) + self._beyond)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What may be a slip; there are few of each kind by nature."""
        return tuple(self._ordered(self._warnings)[:SHOWN])

    def blames(self, file: str) -> bool:
        """Whether anything is wrong in a file."""
        return any(problem.file == file for problem in self._problems)

    def raise_any(self) -> None:
        if self._problems:
            raise self.error()

    def _ordered(self, problems: set[Problem]) -> list[Problem]:
        return sorted(
            problems, key=lambda each: (each.file != self.file, each.file, each.line, each.column, _natural(each))
        )


def _natural(problem: Problem) -> tuple[list[tuple[bool, int, str]], Problem]:
    """`matrix.n[9]` before `matrix.n[10]`."""
    parts = _FIGURES.split(problem.key)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], problem
