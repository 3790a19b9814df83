"""Lease of a job outside its own disk: how far the job has come, as a file in a directory that no backup of it covers.

A state that was put back with its whole disk agrees with itself. A lease elsewhere still knows of the later run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import StateError
from runner.files import atomic_write, open_to_read
from runner.store.journal import JournalMark

if TYPE_CHECKING:
    from pathlib import Path

#: bytes of a lease that are read at most
_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Lease:
    """The latest run of a job, as that run has written it."""

    uuid: str
    epoch: int
    #: offset in the journal, and a digest of the bytes before it
    end: int
    digest: str
    #: host and directory of the run, for people
    holder: str
    #: seconds since the epoch
    at: float

    @property
    def mark(self) -> JournalMark:
        """Return the mark of the journal that the run had."""
        return JournalMark(self.end, self.digest)


class LeaseFile:
    """Lease of one job in a directory of leases, which must exist: an empty mount point is no directory of leases."""

    def __init__(self, directory: Path, uuid: str) -> None:
        self.path = directory / f"{uuid}.lease"

    def read(self) -> Lease | None:
        """Return the lease, or None if there is none. Raises OSError, and StateError if it is damaged."""
        try:
            with open_to_read(self.path) as file:
                return _decode(orjson.loads(file.read(_MAX_BYTES)))
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"the lease {self.path} is damaged: {error}") from None

    def write(self, lease: Lease) -> None:
        """Replace the lease as a whole. Raises OSError."""
        with atomic_write(self.path, 0o600) as file:
            file.write(orjson.dumps(asdict(lease), option=orjson.OPT_APPEND_NEWLINE))


def _decode(values: Any) -> Lease:
    types: dict[str, Any] = {"uuid": str, "epoch": int, "end": int, "digest": str, "holder": str, "at": (int, float)}
    for name, kind in types.items():
        if not isinstance(values[name], kind):
            raise TypeError(f"{name} has no such value")
    return Lease(**{name: values[name] for name in types})
