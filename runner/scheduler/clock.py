"""Time in a run: a wall clock that cannot jump, the boot clock, and how far the provider's clock is from ours."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runner.tasks.models import Moment

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: seconds by which clocks may differ before the user is warned, and before requests signed by our clock stop
SKEW_WARNING, SKEW_LIMIT = 60.0, 300.0
_HINT = "Set it right, e.g. timedatectl set-ntp true"


def _boottime() -> float:
    """Return seconds since boot, including suspended time where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot_id() -> str:
    """Return an id of this boot. Where the system gives none, every process counts as a boot of its own."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return f"process-{time.time_ns()}"


@dataclass(slots=True)
class Clock:
    """The clocks of one run. `now` reads the wall clock once and the monotonic clock after that."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boottime: Callable[[], float] = _boottime
    boot: str = field(default_factory=_boot_id)
    #: the user was warned in this run that the wall clock is wrong
    skew_reported: bool = False
    _offset: float = field(init=False)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._offset = self.wall() - self.monotonic()
        self._started = self.boottime()

    def now(self) -> float:
        """Return seconds since the epoch. The value never jumps during a run, whoever sets the wall clock."""
        return self.monotonic() + self._offset

    def moment(self) -> Moment:
        """Return this instant in a form that can be compared after a restart."""
        return Moment(self.boot, self.boottime())

    def at(self, moment: Moment) -> float:
        """Return a moment of this boot in seconds since the epoch, as `now` counts them."""
        return self.now() - (self.boottime() - moment.seconds)

    def boot_time(self) -> float:
        """Return when this boot began, as `now` counts. What was sent in another boot was sent before."""
        return self.at(Moment(self.boot, 0.0))

    def since(self, boot: str, seconds: float, until: Moment) -> float:
        """Return seconds from a stored moment to `until`. A moment of another boot counts from our process start."""
        return until.seconds - (seconds if boot == self.boot else self._started)


def clock_skew(server_time: float, begun: float, ended: float) -> float:
    """Return the seconds by which our clock is certainly ahead of the server's (negative: behind).

    `server_time` is a whole second (the `Date` header) between `begun` and `ended` of the exchange by our clock.
    """
    if server_time > ended:
        return ended - server_time
    return max(0.0, begun - (server_time + 1.0))


def skew_warning(name: str, skew: float) -> str:
    """Return the warning about a clock that differs from the provider's."""
    return f"{_describe_skew(name, skew)}; it is corrected for where that can be. {_HINT}"


def skew_refusal(name: str, skew: float) -> str:
    """Return the reason why nothing is submitted with signatures of a clock that is wrong."""
    return f"{_describe_skew(name, skew)}, and requests are signed by it: nothing was submitted. {_HINT}"


def _describe_skew(name: str, skew: float) -> str:
    return f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {name}'s"
