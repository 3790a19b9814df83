"""Event loop of a run: what has arrived is read before a time limit counts, after the process was stopped as well."""

from __future__ import annotations

import asyncio
import selectors


class _ArrivalsFirst(selectors.DefaultSelector):
    """Selector that asks once more, without waiting, before it says that nothing has arrived.

    A wait that SIGSTOP and SIGCONT interrupt returns nothing if its time is over by then, without a second question.
    The loop would then end every request whose time limit passed meanwhile, and ids in the sockets would be lost.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(timeout)
        return found if found or timeout is None or timeout <= 0 else super().select(0)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop for a run."""
    return asyncio.SelectorEventLoop(_ArrivalsFirst())


#: options of `anyio.run`
LOOP_OPTIONS = {"loop_factory": _new_event_loop}
