"""Define every error that the user may see, with the exit code of each.

    RunnerError              1   a bug, unless a class below says otherwise
    ├── UsageError           2   the command or the manifest is wrong; nothing was sent
    │   └── ManifestError    2   the same, with every diagnostic and its location
    ├── ConfigError          7   settings, TLS, permissions
    ├── JobNotFoundError    10   there is no job here
    ├── JobLockedError      11   another run holds the job
    ├── CredentialsError    12   the provider rejects the key
    ├── StateError          13   the state is corrupt, foreign or of a newer version
    └── DiskError           14   the disk is full, read-only or failing

Outcomes of a run that are no errors (exit codes 3, 4, 5, 6, 8, 129, 130, 143) are decided by the scheduler.
A message says what is wrong, where, what was expected, and ends with what to do next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    #: file, key without indices, and message without its values
    Kind = tuple[str, str, str]

#: an index in a key; what differs between two messages of one kind: quoted texts, lines and numbers
_INDEX = re.compile(r"\[[0-9]+\]")
_VALUE = re.compile(r"`[^`]*`|'[^']*'|[0-9][0-9.,:]*")
#: largest number of errors, and of warnings, in machine-readable outputs; the others are counted
MAX_SHOWN = 50
#: diagnostics of one kind that are shown line by line; of more only the first is, with the places of the next two
_MAX_OF_KIND, _PLACES = 3, 2
#: lines of an error, however many kinds of mistakes there are
_MAX_LINES = 50


def escape_control(text: str) -> str:
    """Return the text with every character that steers a terminal or reorders a line written as its escape."""
    return sanitize(text, None, collapse=False, escape=True)


class RunnerError(Exception):
    """Error to show to the user. `hint` says what to do next.

    Its text holds no control characters except its own line ends, whatever a file or a provider put into it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.message}\n  {self.hint}" if self.hint else self.message
        return "\n".join(escape_control(line) for line in text.split("\n"))


class UsageError(RunnerError):
    """Request on the command line, or in the manifest, that cannot be carried out."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """Error or warning in a file: its location, a message and a hint. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        location = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        subject = f"{self.key}: " if self.key else ""
        hint = f"; {self.hint}" if self.hint else ""
        return escape_control(f"{location}: {subject}{self.message}{hint}")


def kind_of(diagnostic: Diagnostic) -> Kind:
    """Return what diagnostics of one kind share: they say the same of other values in other places of a file."""
    return diagnostic.file, _INDEX.sub("[]", diagnostic.key), _VALUE.sub("…", diagnostic.message)


def condense(diagnostics: Sequence[Diagnostic], more: Mapping[Kind, int] | None = None) -> list[str]:
    """Return a line for each diagnostic, but one for all of a kind if there are more than three of it.

    That one says how many there are, and where the first three are. `more` counts those of a kind that were not kept.
    """
    more = more or {}
    by_kind: dict[Kind, list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        by_kind.setdefault(kind_of(diagnostic), []).append(diagnostic)
    lines = []
    for diagnostic in diagnostics:
        same = by_kind[kind_of(diagnostic)]
        count = len(same) + more.get(kind_of(diagnostic), 0)
        if count <= _MAX_OF_KIND:
            lines.append(str(diagnostic))
        elif diagnostic is same[0]:
            places = " and ".join(f"{each.line}:{each.column}" for each in same[1 : 1 + _PLACES])
            also = f", also at {places}" if places else ""
            lines.append(f"{diagnostic} ({count:,} of this kind{also}{', …' if count > 1 + _PLACES else ''})")
    return lines


@dataclass(frozen=True, slots=True)
class ParameterDiagnostic:
    """Error in a parameter of a request, before its location in the manifest is known."""

    name: str
    message: str
    hint: str = ""
    #: if a parameter is missing: the names by which it may be given
    needs: tuple[str, ...] = ()


class ManifestError(UsageError):
    """All diagnostics of a manifest at once, in the order of the file.

    `diagnostics` are the first of them, `others` those behind them, and `more` counts by kind those that were not kept;
    `omitted` is the number of all that `diagnostics` lacks. The text has one line for each kind of mistake, and below
    them one for each kind of the `warnings`.
    """

    def __init__(
        self,
        diagnostics: Sequence[Diagnostic],
        *,
        omitted: int = 0,
        others: Sequence[Diagnostic] = (),
        more: Mapping[Kind, int] | None = None,
        warnings: Sequence[Diagnostic] = (),
        hint: str = "Nothing was sent. Correct the lines above and run the command again.",
    ) -> None:
        self.diagnostics = tuple(diagnostics)
        self.omitted = omitted
        self.others, self.more, self.warnings = tuple(others), dict(more or {}), tuple(warnings)
        every = (*self.diagnostics, *self.others)
        lines = condense(every, self.more)[:_MAX_LINES]
        if hidden := len(self.diagnostics) + omitted - len(lines):
            lines.append(f"… and {hidden:,} more: `runner validate --all` shows them line by line")
        lines += [f"warning: {line}" for line in condense(self.warnings, self.more)[:_MAX_LINES]]
        super().__init__("\n".join(lines), hint=hint)

    def in_full(self) -> ManifestError:
        """Return the error with a line for every diagnostic that was kept."""
        full = ManifestError(
            self.diagnostics,
            omitted=self.omitted,
            others=self.others,
            more=self.more,
            warnings=self.warnings,
            hint=self.hint,
        )
        lines = [str(diagnostic) for diagnostic in (*self.diagnostics, *self.others)]
        if left := self.omitted - len(self.others):
            lines.append(f"… and {left:,} more of the same kinds, of which no line is kept")
        lines += [f"warning: {warning}" for warning in self.warnings]
        full.message = "\n".join(lines)
        return full


class ConfigError(RunnerError):
    """Setting, certificate or permission that prevents the operation."""

    exit_code = 7


class JobNotFoundError(RunnerError):
    """Job that does not exist where it was expected."""

    exit_code = 10


class JobLockedError(RunnerError):
    """Job that another run holds."""

    exit_code = 11


class CredentialsError(RunnerError):
    """Rejection of the credentials by the provider."""

    exit_code = 12


class StateError(RunnerError):
    """State of a job that is corrupt, belongs to something else, or was written by a newer version."""

    exit_code = 13


class DiskError(RunnerError):
    """Failure of the disk: it is full, read-only or damaged."""

    exit_code = 14
