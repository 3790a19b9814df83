"""Find variables in the wrong braces: `{name}` and `｛｛name｝｝` are sent as they stand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runner.manifest.recipe import Path

_BRACED = re.compile(r"[{｛]{1,2}\s*(\w+)\s*[}｝]{1,2}")


def slips(value: Any, path: Path, known: Collection[str]) -> Iterator[tuple[Path, str, str]]:
    """Yield path, written text and name of each known variable, at any depth, that stands in the wrong braces."""
    if isinstance(value, str):
        for found in _BRACED.finditer(value):
            if found[1] in known and not found[0].startswith("{{"):
                yield path, found[0], found[1]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in pairs:
        yield from slips(each, (*path, step), known)
