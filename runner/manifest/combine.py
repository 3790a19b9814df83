"""Combine a row with the matrix: the product of the axes, then the added rows, changed by `set`, less `exclude`.

If rows are added and there are no axes, there is no product. `set` and `exclude` compare values as text, so that the
number 5 equals the text `5` of a CSV. A list in a condition means any of its values.
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

#: largest number of values of an axis among which the nearest one is searched
_COMPARED = 1_000


class Spot(NamedTuple):
    """One combination of a row and the matrix, and the origin of its values."""

    row: Row
    #: values given by the matrix
    given: Mapping[str, Any]
    #: positions in the groups of axes, or the number of an added row
    at: tuple[int, ...] | int
    #: numbers of the entries of `set` that changed it
    changed: tuple[int, ...] = ()


class Condition:
    """Values that a combination must have; `matched` is true as soon as one had them."""

    def __init__(self, path: Where, accepted: Mapping[str, Any]) -> None:
        self.path = path
        self.names = frozenset(accepted)
        #: true from the start for a broken condition, which has no values
        self.matched = not accepted
        self._wanted = [
            (name, frozenset(map(said, value if isinstance(value, list) else [value])))
            for name, value in accepted.items()
        ]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether all values are as required; false for a condition without values."""
        for name, texts in self._wanted:
            if said(values.get(name)) not in texts:
                return False
        self.matched = True
        return bool(self._wanted)

    def advice(self, axes: Mapping[str, Axis]) -> str:
        """Return a hint for a condition that matched nothing: the nearest value of an axis, if there is one."""
        for name, texts in self._wanted:
            values = axes[name].values if name in axes else ()
            known = set(map(said, values)) if len(values) <= _COMPARED else texts
            if known and not known & texts:
                return f"for `{name}`: {closest(min(texts), known, 'it is')}"
        return "no task has all of these values; correct them, or take the entry away"


class Combinations:
    """Combinations of each row with the matrix, produced lazily and always in the same order."""

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
        """Return the number of combinations of one row, before `exclude`."""
        return self._product() + len(self._add)

    def __str__(self) -> str:
        """Return the sizes that make up `size`, like `3 style × 2 lens+mood + 1 added`."""
        sizes = zip(self._groups, self._ranges, strict=True)
        factors = [f"{len(each):,} {'+'.join(axis.name for axis in group)}" for group, each in sizes if len(each) > 1]
        added = [f"{len(self._add):,} added"] if self._add else []
        return " + ".join([" × ".join(factors) or "1", *added] if factors or self._product() else added)

    def of(self, row: Row) -> Iterator[Spot | None]:
        """Yield the combinations of a row, and None for each that `exclude` removes."""
        combinations = self._every(row)
        return map(self._ruled, combinations) if self.rules or self.exclude else combinations

    def _product(self) -> int:
        return prod(map(len, self._ranges)) if self._groups or not self._add else 0

    def _every(self, row: Row) -> Iterator[Spot]:
        axes = self._axes
        positions = product(*self._ranges) if self._groups or not self._add else iter(())
        multiplied = (Spot(row, {name: values[at[group]] for name, values, group in axes}, at) for at in positions)
        return chain(multiplied, (Spot(row, added, number) for number, added in self._add)) if self._add else multiplied

    def _ruled(self, combination: Spot) -> Spot | None:
        values = {**combination.row.values, **self._chosen, **combination.given}
        changed: list[int] = []
        for number, rule in enumerate(self.rules):
            if rule.holds(values):
                changed.append(number)
                values.update(self._then[number])
        # no short cut: every condition has to record that it matched
        if sum(condition.holds(values) for condition in self.exclude):
            return None
        if not changed:
            return combination
        given = {
            name: values[name]
            for each in (combination.given, *(self._then[number] for number in changed))
            for name in each
        }
        return Spot(combination.row, given, combination.at, tuple(changed))
