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

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence


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


@dataclass(frozen=True, slots=True)
class ParameterDiagnostic:
    """Error in a parameter of a request, before its location in the manifest is known."""

    name: str
    message: str
    hint: str = ""
    #: if a parameter is missing: the names by which it may be given
    needs: tuple[str, ...] = ()


class ManifestError(UsageError):
    """All diagnostics of a manifest at once, in the order of the file."""

    def __init__(self, diagnostics: Sequence[Diagnostic], *, omitted: int = 0) -> None:
        self.diagnostics = tuple(diagnostics)
        self.omitted = omitted
        lines = [str(diagnostic) for diagnostic in self.diagnostics]
        if omitted:
            lines.append(f"… and {omitted} more of the same kinds")
        super().__init__("\n".join(lines), hint="Nothing was sent. Correct the lines above and run the command again.")


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
