"""Combine rows with the matrix.

Axes, single or zipped, make a product; without axes there is none if rows are added. The rows of `add` follow the
product, `set` changes combinations, and `exclude` removes some at the very end. Conditions compare values as text, so
that the number 5 equals the text `5` of a CSV file; a list in a condition means any of its values.
"""

from __future__ import annotations

from itertools import chain, product
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.manifest.diagnostics import closest_hint
from runner.manifest.model import MODEL_KEYS
from runner.manifest.positions import value_text
from runner.text import WRITTEN_TYPES, plain_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.manifest.model import Axis, Manifest, SourceRow
    from runner.manifest.positions import KeyPath

#: largest number of values of an axis among which the nearest one is searched
_MAX_COMPARED = 1_000
#: what the matrix gives where there is none
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Combination(NamedTuple):
    """One combination of a row and the matrix, and the origin of its values."""

    row: SourceRow
    #: values given by the matrix
    given: Mapping[str, Any]
    #: positions in the groups of axes, or the number of an added row
    source: tuple[int, ...] | int
    #: numbers of the entries of `set` that changed it
    changed_by: tuple[int, ...] = ()


class Condition:
    """Values that a combination must have; `matched` is true as soon as one had them."""

    def __init__(self, path: KeyPath, accepted: Mapping[str, Any]) -> None:
        self.path = path
        self.names = frozenset(accepted)
        #: true from the start for a broken condition, which has no values
        self.matched = not accepted
        self._accepted = [
            (name, frozenset(map(_compared_text, value if isinstance(value, list) else [value])))
            for name, value in accepted.items()
        ]

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Return whether all values are as required; false for a condition without values."""
        for name, texts in self._accepted:
            if _compared_text(values.get(name)) not in texts:
                return False
        self.matched = True
        return bool(self._accepted)

    def unmatched_hint(self, axes: Mapping[str, Axis]) -> str:
        """Return a hint for a condition that matched nothing: the nearest value of an axis, if there is one."""
        for name, texts in self._accepted:
            values = axes[name].values if name in axes else ()
            known = set(map(_compared_text, values)) if len(values) <= _MAX_COMPARED else texts
            if known and not known & texts:
                return f"for `{name}`: {closest_hint(min(texts), known, 'it is')}"
        return "no task has all of these values; correct them, or take the entry away"


def _compared_text(value: Any) -> str:
    """Return the text by which conditions compare a value: `0.50` is the number 0.5, however it is written."""
    return value_text(plain_numbers(value) if type(value) in WRITTEN_TYPES else value)


class Combinations:
    """Combinations of each row with the matrix, produced lazily and always in the same order."""

    def __init__(self, manifest: Manifest) -> None:
        matrix = manifest.matrix
        self._groups = matrix.groups
        self._add = [(number, row) for number, row in enumerate(matrix.add) if row]
        self._axes = [(axis.name, axis.values, number) for number, group in enumerate(matrix.groups) for axis in group]
        self._ranges = [range(min((len(axis.values) for axis in group), default=0)) for group in matrix.groups]
        self._set_values = [rule.then for rule in matrix.set]
        self.set_conditions = [
            Condition(("matrix", "set", at, "when"), rule.when) for at, rule in enumerate(matrix.set)
        ]
        self.exclude_conditions = [Condition(("matrix", "exclude", at), row) for at, row in enumerate(matrix.exclude)]
        #: each row is one combination
        self._is_plain = not (matrix.groups or self._add or matrix.set or matrix.exclude)
        self._model_values = {name: getattr(manifest, name) for name in MODEL_KEYS if getattr(manifest, name)}

    @property
    def size(self) -> int:
        """Return the number of combinations of one row, before `exclude`."""
        return self._product_size() + len(self._add)

    def __str__(self) -> str:
        """Return the sizes that make up `size`, like `3 style × 2 lens+mood + 1 added`."""
        sizes = zip(self._groups, self._ranges, strict=True)
        factors = [f"{len(each):,} {'+'.join(axis.name for axis in group)}" for group, each in sizes if len(each) > 1]
        added = [f"{len(self._add):,} added"] if self._add else []
        return " + ".join([" × ".join(factors) or "1", *added] if factors or self._product_size() else added)

    def of(self, row: SourceRow) -> Iterator[Combination | None]:
        """Yield the combinations of a row, and None for each that `exclude` removes."""
        if self._is_plain:
            return iter((Combination(row, _NOTHING, ()),))
        axes = self._axes
        positions = product(*self._ranges) if self._groups or not self._add else iter(())
        combinations: Iterator[Combination] = (
            Combination(row, {name: values[at[group]] for name, values, group in axes}, at) for at in positions
        )
        if self._add:
            combinations = chain(combinations, (Combination(row, added, number) for number, added in self._add))
        return map(self._apply_rules, combinations) if self.set_conditions or self.exclude_conditions else combinations

    def _product_size(self) -> int:
        return prod(map(len, self._ranges)) if self._groups or not self._add else 0

    def _apply_rules(self, combination: Combination) -> Combination | None:
        values = {**combination.row.values, **self._model_values, **combination.given}
        changed: list[int] = []
        for number, rule in enumerate(self.set_conditions):
            if rule.matches(values):
                changed.append(number)
                values.update(self._set_values[number])
        # no short cut: every condition has to record that it matched
        if sum(condition.matches(values) for condition in self.exclude_conditions):
            return None
        if not changed:
            return combination
        given = {
            name: values[name]
            for each in (combination.given, *(self._set_values[number] for number in changed))
            for name in each
        }
        return Combination(combination.row, given, combination.source, tuple(changed))
