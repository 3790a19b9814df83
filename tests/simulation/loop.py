"""An event loop in virtual time: waiting costs no time, and one seed gives one order of events.

1. When nothing is ready, the clock jumps to the next timer. Without a timer it is a deadlock.
2. Callbacks that are ready at the same moment run in an order drawn from the seed. asyncio documents first come,
   first served for `call_soon`, so a finding is confirmed with `shuffled=False`, where only delays at ports decide
   the order.
3. Tasks and cancel scopes hash by their number, so that sets of them do not depend on memory addresses.

It uses private names of asyncio's base loop and of anyio; `test_loop` pins each of them.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING
from unittest import mock

from anyio._backends import _asyncio as backend

if TYPE_CHECKING:
    import random


class DeadlockError(Exception):
    """Raised when tasks wait and no timer is left."""


class NumberedTask(asyncio.Task):
    """A task whose hash is the order in which it was made."""

    def __init__(self, number, coroutine, *, loop, **more):
        self.number = number  # before asyncio puts the task into a set of its own
        super().__init__(coroutine, loop=loop, **more)

    def __hash__(self):
        return self.number

    def __eq__(self, other):
        return self is other


class NumberedScope(backend.CancelScope):
    """A cancel scope of anyio whose hash is the order in which it was made."""

    __slots__ = ("number",)

    def __new__(cls, **_):
        self = object.__new__(cls)
        self.number = next(asyncio.get_running_loop().scopes)
        return self

    def __hash__(self):
        return self.number


@contextmanager
def numbered_scopes():
    """Make anyio create numbered scopes for the duration of a block, in a running SimLoop."""
    with mock.patch.object(backend, "CancelScope", NumberedScope):
        yield


class NoSelector(selectors.BaseSelector):
    """A selector without events, because the simulation has no real input."""

    def __init__(self):
        self._keys = {}

    def register(self, fileobj, events, data=None):
        self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj):
        return self._keys.pop(fileobj)

    def modify(self, fileobj, events, data=None):
        return self.register(fileobj, events, data)

    def select(self, timeout=None):
        return []

    def get_map(self):
        return self._keys


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual seconds from `start`. `drawn` orders callbacks that are ready at the same moment."""

    def __init__(self, drawn: random.Random, start: float = 0.0, *, shuffled: bool = True):
        self._now = start
        super().__init__(NoSelector())
        self._drawn, self._shuffled = drawn, shuffled
        self._clock_resolution = 1e-9
        numbers, self.scopes = count(), count()
        self.set_task_factory(lambda loop, coroutine, **more: NumberedTask(next(numbers), coroutine, loop=loop, **more))
        #: steps of the loop so far, and at the most
        self.limit = 10**9
        self.steps = 0

    def time(self):
        return self._now

    def _run_once(self):
        self.steps += 1
        if self.steps > self.limit:
            raise DeadlockError(f"{self.limit} steps and no end")
        self._forget_cancelled()
        if not self._ready:
            if not self._scheduled:
                raise DeadlockError("nothing is scheduled")
            self._now = max(self._now, self._scheduled[0]._when)
        elif self._shuffled and len(self._ready) > 1:
            ready = list(self._ready)
            self._drawn.shuffle(ready)
            self._ready.clear()
            self._ready.extend(ready)
        super()._run_once()

    def _forget_cancelled(self):
        """Remove cancelled timers, which must not advance the clock."""
        while self._scheduled and self._scheduled[0]._cancelled:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            self._timer_cancelled_count = max(0, self._timer_cancelled_count - 1)
