"""What costs are counted in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.settings import Settings


def unit_of(providers: Iterable[str], settings: Settings) -> str:
    """What all of them count costs in; empty where they differ, or where one's spec is not at hand."""
    from runner.providers import spec as specs  # noqa: PLC0415 - 0.2 s, which `status` has no other need of

    known = specs.names(settings.providers)
    units = {specs.load(name, settings.providers).unit if name in known else "" for name in providers}
    return units.pop() if len(units) == 1 else ""
