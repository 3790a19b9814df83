"""Import a library without an optional dependency that this program never uses, so that every run starts faster."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without(name: str) -> Iterator[None]:
    """Hide the module `name` from imports within the block, as if it were not installed.

    A module that is already imported is not hidden. After the block, the module can be imported as usual.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
