"""Run a job in a thread of its own, from a script or from an event loop, and drain it when its caller is interrupted.

The thread has its own event loop. So ids are saved in time however busy the caller is, several jobs run side by side,
and no signal handler is touched.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - cannot be loaded any more while the interpreter ends
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from runner.app.observer import StopSwitch

if TYPE_CHECKING:
    from collections.abc import Callable

    #: has a function called soon in the caller's thread
    Post = Callable[[Callable[[], None]], object]

T = TypeVar("T")
#: seconds after which the caller's event loop wakes up: a notebook's Stop button does not wake an idle one
_WAKE_SECONDS = 0.5
#: interruptions after which the caller waits no longer: the first drains, the second shortens it
_MAX_INTERRUPTS = 2


class _Work(Generic[T]):
    """One call in a thread, whose result or error is kept for the caller. `on_end` is called in the thread."""

    def __init__(self, name: str, call: Callable[[], T], on_end: Callable[[], object]) -> None:
        self._call, self._on_end = call, on_end
        self._result: T | None = None
        self._error: BaseException | None = None
        # no daemon: the interpreter waits for a run that is still saving ids
        threading.Thread(target=self._run, name=name).start()

    def result(self) -> T:
        """Return the result or raise the error."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # it was set, since there is no error

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error
        with suppress(RuntimeError):  # the caller's event loop is closed
            self._on_end()


def wait_in_thread(name: str, call: Callable[[StopSwitch, Post], T]) -> T:
    """Call `call(stop, post)` in a thread and return its result. What it posts is called here, in the calling thread.

    KeyboardInterrupt, and SystemExit from what it posts, stop the run and are raised when it has ended. A second one
    shortens that wait, a third one ends it.
    """
    stop, posted, interrupts = StopSwitch(), SimpleQueue[object](), 0
    interrupt: BaseException | None = None
    try:
        work = _Work(name, lambda: call(stop, posted.put), lambda: posted.put(None))
    except BaseException:
        stop.request()  # the thread may have started already
        raise
    while True:
        try:
            function = posted.get()
            if not callable(function):
                break
            function()
        except BaseException as error:
            interrupts, interrupt = interrupts + 1, error
            stop.request()
            if interrupts > _MAX_INTERRUPTS:
                raise
    if interrupt is not None:
        raise interrupt
    return work.result()


async def await_in_thread(name: str, call: Callable[[StopSwitch, Post], T]) -> T:
    """Call `call(stop, post)` in a thread and return its result. What it posts is called in the running event loop.

    A cancellation stops the run and is raised when the run has ended. A second one shortens that wait, a third one ends
    it.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    stop, cancellations = StopSwitch(), 0
    cancelled: asyncio.CancelledError | None = None
    work = _Work(name, lambda: call(stop, loop.call_soon_threadsafe), lambda: loop.call_soon_threadsafe(ended.set))
    try:
        while not ended.is_set():
            try:
                # shielded, because a cancelled scope of anyio would cancel again and again
                with anyio.CancelScope(shield=cancelled is not None, deadline=anyio.current_time() + _WAKE_SECONDS):
                    await ended.wait()
            except asyncio.CancelledError as error:
                cancellations, cancelled = cancellations + 1, error
                if cancellations > _MAX_INTERRUPTS:
                    raise
                stop.request()
    except BaseException:  # nobody waits any more: a third cancellation, or the loop was closed under the run
        stop.request()
        raise
    if cancelled is not None:
        raise cancelled
    return work.result()


def call_beside_loop(call: Callable[[], T]) -> T:
    """Return `call()`, which starts an event loop, from a thread of its own if this thread runs one already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    ended = threading.Event()
    work = _Work("runner", call, ended.set)
    ended.wait()
    return work.result()
