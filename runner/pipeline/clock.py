"""Time as the pipeline sees it: a wall clock that nobody can set back during a run, and the boot clock for doubts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runner.lifecycle.task import Moment

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _boottime() -> float:
    """Seconds since boot, suspended time included where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot_id() -> str:
    """Which boot this is; without a name for it every process counts as a boot of its own."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return f"process-{time.time_ns()}"


@dataclass(slots=True)
class Clock:
    """`now` in seconds since the epoch, taken from the wall once and from the monotonic clock after that."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boottime: Callable[[], float] = _boottime
    boot: str = field(default_factory=_boot_id)
    #: a person was told in this run that the wall clock is wrong
    told: bool = False
    _offset: float = field(init=False)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._offset = self.wall() - self.monotonic()
        self._started = self.boottime()

    def now(self) -> float:
        """Seconds since the epoch; never jumps during a run (I16)."""
        return self.monotonic() + self._offset

    def moment(self) -> Moment:
        """This instant, for a row that must be compared after a restart."""
        return Moment(self.boot, self.boottime())

    def since(self, boot: str, seconds: float, until: Moment) -> float:
        """Seconds from a stored moment to `until`; another boot counts from the start of this process."""
        return until.seconds - (seconds if boot == self.boot else self._started)
