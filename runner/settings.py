"""Read settings and secrets from the environment and from files that it names. A Secret never prints itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from runner.errors import ConfigError
from runner.files import NotRegularFileError, open_file

if TYPE_CHECKING:
    from collections.abc import Mapping

#: bytes of a secret's file that are read
_MAX_BYTES = 64 * 1024


class Secret:
    """Value that must not be printed. `reveal` is the only way to read it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself, for the one header that it belongs in."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the environment. `environ` is an argument, so that no other code reads the process environment."""

    environ: Mapping[str, str]

    def secret(self, name: str) -> Secret | None:
        """Return the value of `NAME`, or the content of the file in `NAME_FILE`, or None if neither is set.

        Raise ConfigError if the file cannot be read or can be read by others.
        """
        if path := self.environ.get(f"{name}_FILE"):
            return Secret(_read_private_file(Path(path), f"{name}_FILE", self.environ.get("CREDENTIALS_DIRECTORY")))
        value = self.environ.get(name, "").strip()
        return Secret(value) if value else None

    def text(self, name: str) -> str | None:
        """Return a value that is no secret, or None if it is unset or empty."""
        return self.environ.get(name, "").strip() or None

    @property
    def home(self) -> Path:
        """Return the directory of the state that the jobs of an account share."""
        return Path(self.environ.get("RUNNER_HOME") or platformdirs.user_state_path("runner"))

    @property
    def providers(self) -> Path | None:
        """Return the directory with additional provider specs, if there is one."""
        path = self.text("RUNNER_PROVIDERS")
        return Path(path) if path else None

    @property
    def images(self) -> tuple[Path, ...]:
        """Return the directories whose images any manifest may send, besides the manifest's own directory."""
        return tuple(Path(path) for path in (self.text("RUNNER_IMAGES") or "").split(os.pathsep) if path)


def _read_private_file(path: Path, name: str, credentials: str | None) -> str:
    """Return the text of a file that only its owner can read. Files in systemd's credentials directory are exempt."""
    try:
        with os.fdopen(open_file(path, os.O_RDONLY, follow_links=True), encoding="utf-8") as file:
            is_exempt = credentials is not None and path.is_relative_to(credentials)
            if os.fstat(file.fileno()).st_mode & 0o077 and not is_exempt:
                raise ConfigError(f"{name}: {path} can be read by others", hint=f"chmod 600 {path}")
            return file.read(_MAX_BYTES).strip()
    except NotRegularFileError:
        raise ConfigError(f"{name}: {path} is not a file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{name}: {path}: {error}", hint="The file must be there and readable by you alone."
        ) from None
