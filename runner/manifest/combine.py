"""A row and the matrix to all that comes of them: the product, then the added rows, changed by `set`, less `exclude`.

Without axes there is no product where rows are added. `set` and `exclude` compare values as they are said, so that the
number 5 is the text `5` of a CSV; a list in a condition means any of its values.
"""

from __future__ import annotations

from itertools import chain, product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.manifest.teach import closest
from runner.manifest.values import said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.manifest.formats import Row
    from runner.manifest.model import Axis, Manifest

    Where = tuple[str | int, ...]

#: values of an axis among which the nearest one is looked for
_COMPARED = 1_000


class Spot(NamedTuple):
    """What a task is made from, and how to find where that was written."""

    row: Row
    #: what the matrix gives
    given: Mapping[str, Any]
    #: positions in the groups of axes; or the number of an added row
    at: tuple[int, ...] | int
    #: the entries of `set` that changed something
    changed: tuple[int, ...] = ()


class Condition:
    """What a row must say; `matched` as soon as one did."""

    def __init__(self, path: Where, wanted: Mapping[str, Any]) -> None:
        self.path = path
        self.names = frozenset(wanted)
        #: a broken one has nothing to match
        self.matched = not wanted
        self._wanted = [
            (name, frozenset(map(said, value if isinstance(value, list) else [value])))
            for name, value in wanted.items()
        ]

    def holds(self, seen: Mapping[str, Any]) -> bool:
        """Whether it says something, and all of that is so."""
        for name, words in self._wanted:
            if said(seen.get(name)) not in words:
                return False
        self.matched = True
        return bool(self._wanted)

    def advice(self, axes: Mapping[str, Axis]) -> str:
        """What to do when it matched nothing: the nearest value of an axis, where that can be said."""
        for name, words in self._wanted:
            values = axes[name].values if name in axes else ()
            known = set(map(said, values)) if len(values) <= _COMPARED else words
            if known and not known & words:
                return f"for `{name}`: {closest(min(words), known, 'it is')}"
        return "no task has all of these values; correct them, or take the entry away"


class Combinations:
    """Lazy, and always in the same order."""

    def __init__(self, manifest: Manifest) -> None:
        matrix = manifest.matrix
        self._groups = matrix.groups
        self._add = [(number, row) for number, row in enumerate(matrix.add) if row]
        self._axes = [(axis.name, axis.values, number) for number, group in enumerate(matrix.groups) for axis in group]
        self._ranges = [range(min((len(axis.values) for axis in group), default=0)) for group in matrix.groups]
        self._then = [rule.then for rule in matrix.set]
        self.rules = [Condition(("matrix", "set", at, "when"), rule.when) for at, rule in enumerate(matrix.set)]
        self.exclude = [Condition(("matrix", "exclude", at), row) for at, row in enumerate(matrix.exclude)]
        self._chosen = {name: getattr(manifest, name) for name in ("provider", "model") if getattr(manifest, name)}

    @property
    def size(self) -> int:
        """How many come of one row, before any is taken out."""
        return self._product() + len(self._add)

    def __str__(self) -> str:
        """How the size comes about: `3 style × 2 lens+mood + 1 added`."""
        sizes = zip(self._groups, self._ranges, strict=True)
        told = [f"{len(each):,} {'+'.join(axis.name for axis in group)}" for group, each in sizes if len(each) > 1]
        added = [f"{len(self._add):,} added"] if self._add else []
        return " + ".join([" × ".join(told) or "1", *added] if told or self._product() else added)

    def of(self, row: Row) -> Iterator[Spot | None]:
        """What comes of a row; None for each that is taken out."""
        spots = self._every(row)
        return map(self._ruled, spots) if self.rules or self.exclude else spots

    def _product(self) -> int:
        return prod(map(len, self._ranges)) if self._groups or not self._add else 0

    def _every(self, row: Row) -> Iterator[Spot]:
        axes = self._axes
        positions = product(*self._ranges) if self._groups or not self._add else iter(())
        multiplied = (Spot(row, {name: values[at[group]] for name, values, group in axes}, at) for at in positions)
        return chain(multiplied, (Spot(row, added, number) for number, added in self._add)) if self._add else multiplied

    def _ruled(self, spot: Spot) -> Spot | None:
        seen = {**spot.row.values, **self._chosen, **spot.given}
        changed: list[int] = []
        for number, rule in enumerate(self.rules):
            if rule.holds(seen):
                changed.append(number)
                seen.update(self._then[number])
        if sum(condition.holds(seen) for condition in self.exclude):  # each of them is to know that it matched
            return None
        if not changed:
            return spot
        given = {
            name: seen[name] for each in (spot.given, *(self._then[number] for number in changed)) for name in each
        }
        return Spot(spot.row, given, spot.at, tuple(changed))
