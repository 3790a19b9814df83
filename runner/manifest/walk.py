"""Go through a manifest once: its rows, and for each row every combination with the matrix."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

from runner.manifest import items
from runner.manifest.blame import Blame
from runner.manifest.blanks import Blanks
from runner.manifest.bounds import Bounds
from runner.manifest.combine import Combinations
from runner.manifest.formats import Row
from runner.manifest.ingredients import Ingredients
from runner.manifest.maker import Maker
from runner.manifest.recipe import CHOICES
from runner.manifest.recipes import Recipes
from runner.manifest.twins import Twins
from runner.manifest.uses import Uses
from runner.manifest.values import said, unpack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runner.lifecycle.task import Draft
    from runner.manifest.combine import Condition
    from runner.manifest.parse import Parsed
    from runner.manifest.recipe import Catalogue
    from runner.manifest.report import Report

#: rows of a file that are read before the first task is created, since a row of JSON need not have every column
_AHEAD = 1_000


class Walk:
    """One pass over a manifest. Adds errors and warnings to `diagnostics` and goes on."""

    def __init__(self, parsed: Parsed, catalogue: Catalogue, diagnostics: Report) -> None:
        self.made = 0
        self._manifest = parsed.manifest
        self._catalogue = catalogue
        self._report = diagnostics
        self._ingredients = Ingredients(parsed, diagnostics)
        self._blame = Blame(parsed, diagnostics, self._ingredients.params)
        self._combinations = Combinations(parsed.manifest)
        self._bounds = Bounds(parsed.manifest, self._combinations, self._blame)
        self._twins = Twins(self._blame, rows=parsed.manifest.items is not None)

    @property
    def merged(self) -> int:
        """Return the number of tasks that merged with an earlier one."""
        return self._twins.merged

    def drafts(self) -> Iterator[Draft]:
        """Yield the drafts one by one. Report what concerns the whole manifest after the last."""
        rows = self._rows()
        ahead = list(islice(rows, _AHEAD))
        if not ahead:
            return
        first, columns = ahead[0], self._columns(ahead)
        conditions = [*self._combinations.rules, *self._combinations.exclude]
        self._ingredients.check(columns, conditions)
        used_names = self._ingredients.named.union(*[condition.names for condition in conditions])
        unused = Uses(self._manifest, self._blame, used_names, columns)
        templates = Recipes(self._manifest, self._catalogue, self._ingredients.params, self._blame, unused)
        if self._bounds.check():
            return
        empty_values = Blanks(self._ingredients.params, columns, self._blame)
        namer = self._ingredients.namer(self._varying(columns))
        builder = Maker(templates, namer, unused, self._twins, self._bounds, self._blame,
                        muted=self._ingredients.muted, repeat=self._manifest.repeat)  # fmt: skip
        yield from self._made(builder, empty_values, chain(ahead, rows))
        if not self._bounds.over:
            unused.tell(first, whole=templates.whole)
            self._tell_rules(conditions, columns if self._report.blames(first.file) else ())
        empty_values.tell()
        self._twins.tell()

    def _made(self, builder: Maker, empty_values: Blanks, rows: Iterator[Row]) -> Iterator[Draft]:
        for row in rows:
            is_counted = False
            for combination in self._combinations.of(row):
                if combination is not None:
                    if not is_counted:
                        is_counted = True
                        empty_values.watch(row)
                    yield from builder.drafts(combination)
                    self.made = builder.made
                elif self._bounds.skipped():
                    return
                if self._bounds.over:
                    return

    def _rows(self) -> Iterator[Row]:
        source, file = self._manifest.items, self._manifest.file
        if source is None:
            return iter([Row({}, file, 1, 1)])
        if source.file is not None:
            return items.rows(source.file, self._blame.label(source.file), self._report)
        return (Row(values, file, *unpack(getattr(values, "at", 0))) for values in source.rows)

    def _columns(self, ahead: list[Row]) -> list[str]:
        source = self._manifest.items
        rows = source.rows if source is not None and source.file is None else [row.values for row in ahead]
        return list(dict.fromkeys(chain.from_iterable(rows)))

    def _varying(self, columns: Collection[str]) -> list[str]:
        """Return the names whose values may differ between tasks.

        All columns of a file count, since its values are not known before its end.
        """
        matrix, source = self._manifest.matrix, self._manifest.items
        rows = source.rows if source is not None else ()
        differing = [name for name in columns if not rows or len({said(row.get(name)) for row in rows}) > 1]
        fixed = {*self._manifest.params, *(name for name in CHOICES if getattr(self._manifest, name))}
        axes = [name for name, axis in matrix.axes.items() if len(axis.values) > 1 or matrix.add]
        extra = chain(*matrix.add, *(rule.then for rule in matrix.set))
        return list(dict.fromkeys(chain((name for name in differing if name not in fixed), axes, extra)))

    def _tell_rules(self, conditions: list[Condition], uncertain: Collection[str]) -> None:
        """Report every condition that matched nothing, except those on the columns in `uncertain`.

        A file with an error was not read completely, so its columns are uncertain.
        """
        axes = self._manifest.matrix.axes
        if not all(axis.values for axis in axes.values()):
            return
        for condition in conditions:
            if not condition.matched and not condition.names & set(uncertain):
                self._blame.at(condition.path, "matches nothing", condition.advice(axes))
        if not self.made and not self._report:
            self._blame.at(("matrix", "exclude"), "takes every task out", "take an entry away")
