"""Failpoints: named points at which a crash test makes the process kill itself."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.settings import Settings

#: every failpoint, in the order of a task's life
FAILPOINTS = (
    "intent journaled",
    "intent committed",
    "answer received",
    "id journaled",
    "id committed",
    "doubt committed",
    "recovery marked",
    "adopted journaled",
    "adopted committed",
    "absent journaled",
    "absent committed",
    "ready committed",
    "part synced",
    "output recorded",
    "renamed",
    "done committed",
)
#: failpoints of a run that links what another job has bought, or that tells the account what it has bought
LINK_FAILPOINTS = ("files linked", "linked journaled", "linked committed", "purchases written")


def failpoint_hook(settings: Settings) -> Callable[[str], None]:
    """Return a hook that kills the process at the n-th call for the failpoint of `RUNNER_CRASH_AT="point:n"`.

    Without that variable the hook does nothing. Raises UsageError for an unknown failpoint.
    """
    wanted = settings.text("RUNNER_CRASH_AT")
    if wanted is None:
        return lambda _: None
    name, _, count = wanted.partition(":")
    if name not in {*FAILPOINTS, *LINK_FAILPOINTS} or not count.isdecimal():
        raise UsageError(
            f"RUNNER_CRASH_AT: {wanted!r} is no point", hint=f"`point:n` with one of {', '.join(FAILPOINTS)}"
        )
    left = int(count)

    def kill_if_reached(point: str) -> None:
        nonlocal left
        left -= point == name
        if point == name and left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill_if_reached
