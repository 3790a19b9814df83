"""One walk through a manifest: its rows, and for each of them every combination with the matrix."""

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

#: rows of a file that are read before the first task is made: a row of JSON need not have every column
_AHEAD = 1_000


class Walk:
    """Problems and warnings go to `report`, and the walk goes on; `made` and `merged` count tasks."""

    def __init__(self, parsed: Parsed, catalogue: Catalogue, report: Report) -> None:
        self.made = 0
        self._manifest = parsed.manifest
        self._catalogue = catalogue
        self._report = report
        self._ingredients = Ingredients(parsed, report)
        self._blame = Blame(parsed, report, self._ingredients.params)
        self._combinations = Combinations(parsed.manifest)
        self._bounds = Bounds(parsed.manifest, self._combinations, self._blame)
        self._twins = Twins(self._blame, rows=parsed.manifest.items is not None)

    @property
    def merged(self) -> int:
        return self._twins.merged

    def drafts(self) -> Iterator[Draft]:
        """One by one; what concerns the whole is told after the last."""
        rows = self._rows()
        ahead = list(islice(rows, _AHEAD))
        if not ahead:
            return
        first, columns = ahead[0], self._columns(ahead)
        conditions = [*self._combinations.rules, *self._combinations.exclude]
        self._ingredients.check(columns, conditions)
        named = self._ingredients.named.union(*[condition.names for condition in conditions])
        uses = Uses(self._manifest, self._blame, named, columns)
        recipes = Recipes(self._manifest, self._catalogue, self._ingredients.params, self._blame, uses)
        if self._bounds.check():
            return
        blanks = Blanks(self._ingredients.params, columns, self._blame)
        yield from self._made(self._maker(recipes, uses, columns), blanks, chain(ahead, rows))
        if not self._bounds.over:
            uses.tell(first, whole=recipes.whole)
            self._tell_rules(conditions, columns if self._report.blames(first.file) else ())
        blanks.tell()
        self._twins.tell()

    def _maker(self, recipes: Recipes, uses: Uses, columns: Collection[str]) -> Maker:
        namer = self._ingredients.namer(self._varying(columns))
        return Maker(recipes, namer, uses, self._twins, self._bounds, self._blame,
                     muted=self._ingredients.muted, repeat=self._manifest.repeat)  # fmt: skip

    def _made(self, maker: Maker, blanks: Blanks, rows: Iterator[Row]) -> Iterator[Draft]:
        for row in rows:
            made = False
            for spot in self._combinations.of(row):
                if spot is not None:
                    if not made:
                        made = True
                        blanks.watch(row)
                    yield from maker.drafts(spot)
                    self.made = maker.made
                elif self._bounds.skipped():
                    return
                if self._bounds.over:
                    return

    def _rows(self) -> Iterator[Row]:
        given, file = self._manifest.items, self._manifest.file
        if given is None:
            return iter([Row({}, file, 1, 1)])
        if given.file is not None:
            return items.rows(given.file, self._blame.label(given.file), self._report)
        return (Row(values, file, *unpack(getattr(values, "at", 0))) for values in given.rows)

    def _columns(self, ahead: list[Row]) -> list[str]:
        given = self._manifest.items
        every = given.rows if given is not None and given.file is None else [row.values for row in ahead]
        return list(dict.fromkeys(chain.from_iterable(every)))

    def _varying(self, columns: Collection[str]) -> list[str]:
        """What may differ between tasks: all columns of a file, since it is not known before its end."""
        matrix, given = self._manifest.matrix, self._manifest.items
        rows = given.rows if given is not None else ()
        differing = [name for name in columns if not rows or len({said(row.get(name)) for row in rows}) > 1]
        settled = {*self._manifest.params, *(name for name in CHOICES if getattr(self._manifest, name))}
        axes = [name for name, axis in matrix.axes.items() if len(axis.values) > 1 or matrix.add]
        extra = chain(*matrix.add, *(change.then for change in matrix.set))
        return list(dict.fromkeys(chain((name for name in differing if name not in settled), axes, extra)))

    def _tell_rules(self, conditions: list[Condition], unsure: Collection[str]) -> None:
        """Of every condition that held nowhere; those on columns only where all rows were read."""
        axes = self._manifest.matrix.axes
        if not all(axis.values for axis in axes.values()):
            return
        for condition in conditions:
            if not condition.matched and not condition.names & set(unsure):
                self._blame.at(condition.path, "matches nothing", condition.advice(axes))
        if not self.made and not self._report:
            self._blame.at(("matrix", "exclude"), "takes every task out", "take an entry away")
