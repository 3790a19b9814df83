"""Go through a manifest once: its rows, and for each row every combination with the matrix."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

from runner.manifest import items
from runner.manifest.blame import Provenance
from runner.manifest.blanks import EmptyValues
from runner.manifest.bounds import TaskLimit
from runner.manifest.combine import Combinations
from runner.manifest.formats import SourceRow
from runner.manifest.ingredients import CompiledTemplates
from runner.manifest.maker import DraftBuilder
from runner.manifest.recipe import MODEL_KEYS
from runner.manifest.recipes import RequestTemplates
from runner.manifest.twins import Duplicates
from runner.manifest.uses import UnusedInputs
from runner.manifest.values import unpack_position, value_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runner.lifecycle.task import Draft
    from runner.manifest.combine import Condition
    from runner.manifest.parse import ParsedManifest
    from runner.manifest.recipe import ModelCatalogue
    from runner.manifest.report import Diagnostics

#: rows of a file that are read before the first task is created, since a row of JSON need not have every column
_LOOKAHEAD_ROWS = 1_000


class ManifestExpander:
    """One pass over a manifest. Adds errors and warnings to `diagnostics` and goes on."""

    def __init__(self, parsed: ParsedManifest, catalogue: ModelCatalogue, diagnostics: Diagnostics) -> None:
        self.draft_count = 0
        self._manifest = parsed.manifest
        self._catalogue = catalogue
        self._diagnostics = diagnostics
        self._templates = CompiledTemplates(parsed, diagnostics)
        self._provenance = Provenance(parsed, diagnostics, self._templates.params)
        self._combinations = Combinations(parsed.manifest)
        self._limit = TaskLimit(parsed.manifest, self._combinations, self._provenance)
        self._duplicates = Duplicates(self._provenance, by_row=parsed.manifest.items is not None)

    @property
    def merged_count(self) -> int:
        """Return the number of tasks that merged with an earlier one."""
        return self._duplicates.merged

    def drafts(self) -> Iterator[Draft]:
        """Yield the drafts one by one. Report what concerns the whole manifest after the last."""
        rows = self._source_rows()
        ahead = list(islice(rows, _LOOKAHEAD_ROWS))
        if not ahead:
            return
        first, columns = ahead[0], self._column_names(ahead)
        conditions = [*self._combinations.set_conditions, *self._combinations.exclude_conditions]
        self._templates.check(columns, conditions)
        used_names = self._templates.names.union(*[condition.names for condition in conditions])
        unused = UnusedInputs(self._manifest, self._provenance, used_names, columns)
        templates = RequestTemplates(self._manifest, self._catalogue, self._templates.params, self._provenance, unused)
        if self._limit.check_product():
            return
        empty_values = EmptyValues(self._templates.params, columns, self._provenance)
        namer = self._templates.create_namer(self._varying_names(columns))
        builder = DraftBuilder(templates, namer, unused, self._duplicates, self._limit, self._provenance,
                        broken=self._templates.broken, repeat=self._manifest.repeat)  # fmt: skip
        yield from self._expand_rows(builder, empty_values, chain(ahead, rows))
        if not self._limit.exceeded:
            unused.report(first, complete=templates.is_complete)
            self._report_unmatched(conditions, columns if self._diagnostics.has_errors_in(first.file) else ())
        empty_values.report()
        self._duplicates.report()

    def _expand_rows(
        self, builder: DraftBuilder, empty_values: EmptyValues, rows: Iterator[SourceRow]
    ) -> Iterator[Draft]:
        for row in rows:
            is_counted = False
            for combination in self._combinations.of(row):
                if combination is not None:
                    if not is_counted:
                        is_counted = True
                        empty_values.count_row(row)
                    yield from builder.build(combination)
                    self.draft_count = builder.draft_count
                elif self._limit.count_skipped():
                    return
                if self._limit.exceeded:
                    return

    def _source_rows(self) -> Iterator[SourceRow]:
        source, file = self._manifest.items, self._manifest.file
        if source is None:
            return iter([SourceRow({}, file, 1, 1)])
        if source.file is not None:
            return items.read_rows(source.file, self._provenance.file_label(source.file), self._diagnostics)
        return (SourceRow(values, file, *unpack_position(getattr(values, "at", 0))) for values in source.rows)

    def _column_names(self, ahead: list[SourceRow]) -> list[str]:
        source = self._manifest.items
        rows = source.rows if source is not None and source.file is None else [row.values for row in ahead]
        return list(dict.fromkeys(chain.from_iterable(rows)))

    def _varying_names(self, columns: Collection[str]) -> list[str]:
        """Return the names whose values may differ between tasks.

        All columns of a file count, since its values are not known before its end.
        """
        matrix, source = self._manifest.matrix, self._manifest.items
        rows = source.rows if source is not None else ()
        differing = [name for name in columns if not rows or len({value_text(row.get(name)) for row in rows}) > 1]
        fixed = {*self._manifest.params, *(name for name in MODEL_KEYS if getattr(self._manifest, name))}
        axes = [name for name, axis in matrix.axes.items() if len(axis.values) > 1 or matrix.add]
        extra = chain(*matrix.add, *(rule.then for rule in matrix.set))
        return list(dict.fromkeys(chain((name for name in differing if name not in fixed), axes, extra)))

    def _report_unmatched(self, conditions: list[Condition], uncertain: Collection[str]) -> None:
        """Report every condition that matched nothing, except those on the columns in `uncertain`.

        A file with an error was not read completely, so its columns are uncertain.
        """
        axes = self._manifest.matrix.axes
        if not all(axis.values for axis in axes.values()):
            return
        for condition in conditions:
            if not condition.matched and not condition.names & set(uncertain):
                self._provenance.report_at(condition.path, "matches nothing", condition.hint(axes))
        if not self.draft_count and not self._diagnostics:
            self._provenance.report_at(("matrix", "exclude"), "takes every task out", "take an entry away")
