"""Coverage of the runner by fuzz cases. A case that reaches new code is damaged further."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

_OURS = str(Path(runner.__file__).parent)


class Coverage:
    """The steps from line to line that were seen so far, in code of the runner only."""

    def __init__(self) -> None:
        self._seen: set[tuple[CodeType, int, int]] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def during(self, act: Callable[[], str]) -> tuple[str, bool]:
        """Return the result of `act`, and whether it took a new step."""
        before, outer = len(self._seen), sys.gettrace()
        sys.settrace(self._called)
        try:
            result = act()
        finally:
            sys.settrace(outer)
        return result, len(self._seen) > before

    def _called(self, frame: FrameType, _event: str, _given: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        code, seen, last = frame.f_code, self._seen, 0

        def line(frame: FrameType, _event: str, _given: Any) -> Any:
            nonlocal last
            seen.add((code, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line
