"""The unit in which a job's costs are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.settings import Settings


def unit_of(providers: Iterable[str], settings: Settings) -> str:
    """Return the unit that all providers share, or "" if they differ or a spec is missing."""
    from runner.providers import spec as specs  # noqa: PLC0415 - takes 0.2 s, which `status` mostly does not need

    known = specs.names(settings.providers)
    units = {specs.load(name, settings.providers).unit if name in known else "" for name in providers}
    return units.pop() if len(units) == 1 else ""
