"""Run the command line: `runner` or `python -m runner`."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: allocations before the first garbage collection; a start makes 130,000 objects, and nearly all of them stay
_STARTUP_OBJECTS = 200_000


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.getfilesystemencoding().lower() != "utf-8" and not sys.flags.utf8_mode:
        # names of files are UTF-8 whatever the locale says: a terminal in Latin-1 must not cost a paid picture its name
        command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606 - this very command once more
    _postpone_garbage_collection()

    from runner.cli.main import run  # noqa: PLC0415 - so that importing this module costs nothing

    code = run(sys.argv[1:])
    # Freeing the remaining objects one by one is useless at exit. Together with the line above this saves a third
    # of the time of a start.
    gc.freeze()
    sys.exit(code)


def _postpone_garbage_collection() -> None:
    """Postpone the first garbage collection until the start is over, and exempt the objects that it has made."""
    usual = gc.get_threshold()

    def on_collection(phase: str, _: Mapping[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(on_collection)
            gc.set_threshold(*usual)
            gc.freeze()

    gc.callbacks.append(on_collection)
    gc.set_threshold(_STARTUP_OBJECTS, *usual[1:])


if __name__ == "__main__":
    main()
