"""`runner` and `python -m runner`."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: objects that a start may make before anybody looks for cycles among them; it makes 130,000, and keeps them
_STARTING = 200_000


def main() -> None:
    """Run the command line and end with its exit code."""
    _collect_after_the_start()

    from runner.cli.main import run  # noqa: PLC0415 - so that importing this module costs nothing

    code = run(sys.argv[1:])
    gc.freeze()  # what is left goes with the process, unexamined: with the line above, a third of a start
    sys.exit(code)


def _collect_after_the_start() -> None:
    """Cycles are looked for as ever once the start is over, and no more among what it has made."""
    usual = gc.get_threshold()

    def collected(phase: str, _: Mapping[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(collected)
            gc.set_threshold(*usual)
            gc.freeze()

    gc.callbacks.append(collected)
    gc.set_threshold(_STARTING, *usual[1:])


if __name__ == "__main__":
    main()
