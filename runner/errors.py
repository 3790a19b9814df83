"""Every error a person may see, with the exit code it ends in.

    RunnerError             1   a bug, unless a class below says otherwise
    ├── UsageError          2   the command or the manifest is wrong; nothing was sent
    │   └── ManifestError   2   the same, with every mistake and its place
    ├── ConfigError         7   settings, TLS, permissions
    ├── NoSuchJob          10   there is no job here
    ├── Locked             11   another run holds the job
    ├── CredentialsError   12   the provider refuses the key
    ├── StateError         13   the state is corrupt, foreign or of a newer version
    └── DiskError          14   no room, or the disk says no

Outcomes of a run that are nobody's error (3, 4, 5, 6, 8, 129, 130, 143) are decided in `pipeline.outcome`.
A message says what, where, what was expected, and ends with what to do next.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def visible(text: str) -> str:
    """One line in which nothing is hidden: what steers a terminal, or reorders a line, is written as its number."""
    return "".join(char.encode("unicode_escape").decode() if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return not char.isprintable() and unicodedata.category(char) != "Zs"


class RunnerError(Exception):
    """Something a person must know; `hint` says what to do next.

    What it is told as holds no control characters but its own line ends, whatever a file or a provider put into it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        told = f"{self.message}\n  {self.hint}" if self.hint else self.message
        return "\n".join(visible(line) for line in told.split("\n"))


class UsageError(RunnerError):
    """The command line asks for something that cannot be."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file: where it stands, what it is, what to do (lines and columns from 1)."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        subject = f"{self.key}: " if self.key else ""
        hint = f"; {self.hint}" if self.hint else ""
        return visible(f"{place}: {subject}{self.message}{hint}")


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with one parameter, before anyone knows where it was written."""

    name: str
    message: str
    hint: str = ""
    #: where something is missing: the names by which it may be given
    needs: tuple[str, ...] = ()


class ManifestError(UsageError):
    """Every mistake of a manifest at once, in the order of the file."""

    def __init__(self, problems: Sequence[Problem], *, omitted: int = 0) -> None:
        self.problems = tuple(problems)
        self.omitted = omitted
        lines = [str(problem) for problem in self.problems]
        if omitted:
            lines.append(f"… and {omitted} more of the same kinds")
        super().__init__("\n".join(lines), hint="Nothing was sent. Correct the lines above and run the command again.")


class ConfigError(RunnerError):
    """A setting, a certificate or a permission stands in the way."""

    exit_code = 7


class NoSuchJob(RunnerError):  # noqa: N818 - reads as what it says
    """There is no job where one was asked for."""

    exit_code = 10


class Locked(RunnerError):  # noqa: N818 - reads as what it says
    """Another run holds this job."""

    exit_code = 11


class CredentialsError(RunnerError):
    """The provider refuses the credentials."""

    exit_code = 12


class StateError(RunnerError):
    """The job's state is corrupt, belongs to something else, or was written by a newer version."""

    exit_code = 13


class DiskError(RunnerError):
    """The disk is full, read-only or failing."""

    exit_code = 14
