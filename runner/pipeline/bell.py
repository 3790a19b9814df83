"""Wakes the stage whose state a task has just reached; remembers one ring a state, so that none is lost."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Hashable


class Bell:
    """One bell for all stages of a run."""

    def __init__(self) -> None:
        self._events: defaultdict[Hashable, anyio.Event] = defaultdict(anyio.Event)

    def ring(self, name: Hashable) -> None:
        """Wake who waits for `name`, or the next who will."""
        self._events[name].set()

    async def wait(self, name: Hashable, timeout: float | None = None) -> None:  # noqa: ASYNC109 - a bound, not a failure
        """Until the next ring, or at most `timeout` seconds."""
        with anyio.move_on_after(timeout):
            await self._events[name].wait()
        if self._events[name].is_set():
            self._events[name] = anyio.Event()
