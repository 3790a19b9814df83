"""Wakes the stages whose state a task has just reached; a ring that comes while they look is lost on none of them."""

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
        self._rings: defaultdict[Hashable, int] = defaultdict(int)
        #: the rings that whoever listens alone has heard
        self._heard: dict[Hashable, int] = {}

    def ring(self, name: Hashable) -> None:
        """Wake who waits for `name`, and whoever will, if it has not heard of this ring."""
        self._rings[name] += 1
        self._events.pop(name, anyio.Event()).set()

    def rings(self, name: Hashable) -> int:
        """How often it has rung so far: where several listen, each asks before it looks, and waits `since` then."""
        return self._rings[name]

    async def wait(self, name: Hashable, timeout: float | None = None, *, since: int | None = None) -> None:  # noqa: ASYNC109 - a bound, not a failure
        """Until it has rung since then, or else since the last such wait, or at most `timeout` seconds."""
        known = self._heard.get(name, 0) if since is None else since
        with anyio.move_on_after(timeout):
            while self._rings[name] == known:
                await self._events[name].wait()
        if since is None:
            self._heard[name] = self._rings[name]
