"""Settings from the environment and from files beside it; a Secret never prints itself."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST = 64 * 1024


class Secret:
    """A value that must not be printed; `reveal` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one header it belongs in."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; `environ` is an argument so that nothing else reads it."""

    environ: Mapping[str, str]

    def secret(self, name: str) -> Secret | None:
        """`NAME`, or the content of the file that `NAME_FILE` points at; raises ConfigError."""
        if path := self.environ.get(f"{name}_FILE"):
            return Secret(_private(Path(path), f"{name}_FILE", self.environ.get("CREDENTIALS_DIRECTORY")))
        value = self.environ.get(name, "").strip()
        return Secret(value) if value else None

    def text(self, name: str) -> str | None:
        """A value that is no secret; an empty one counts as none."""
        return self.environ.get(name, "").strip() or None

    @property
    def home(self) -> Path:
        """What an account's jobs share."""
        return Path(self.environ.get("RUNNER_HOME") or platformdirs.user_state_path("runner"))

    @property
    def providers(self) -> Path | None:
        """A directory with more provider specs."""
        path = self.text("RUNNER_PROVIDERS")
        return Path(path) if path else None

    @property
    def images(self) -> tuple[Path, ...]:
        """Directories whose pictures any manifest may send, beside those that are with it."""
        return tuple(Path(path) for path in (self.text("RUNNER_IMAGES") or "").split(os.pathsep) if path)


def _private(path: Path, name: str, credentials: str | None) -> str:
    """The text of a file that only its owner can read; what systemd provides is exempt."""
    try:
        # O_NONBLOCK: nothing is waited for that is a pipe
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            mode = os.fstat(file.fileno())
            if not stat.S_ISREG(mode.st_mode):
                raise ConfigError(f"{name}: {path} is not a file")
            exempt = credentials is not None and path.is_relative_to(credentials)
            if mode.st_mode & 0o077 and not exempt:
                raise ConfigError(f"{name}: {path} can be read by others", hint=f"chmod 600 {path}")
            return file.read(_LONGEST).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{name}: {path}: {error}", hint="The file must be there and readable by you alone."
        ) from None
