"""Expand a manifest into drafts of tasks, lazily and always in the same order.

Rows are the outer loop, then the axes of `matrix` as written (the last one changes fastest, those of a `zip` change
together where the `zip` stands), then its added rows, then `repeat`. A parameter is set by the matrix, else by
`params`, else by a column of its name. The same content always has the same key. Identical tasks merge. The limit on
the number of tasks is checked before the first draft and at every combination.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from runner.manifest import identity, parser
from runner.manifest.combinations import Combinations
from runner.manifest.compile import CompiledTemplates, RequestTemplates
from runner.manifest.diagnostics import Diagnostics
from runner.manifest.lint import Duplicates, EmptyValues, UnusedInputs
from runner.manifest.model import MODEL_KEYS, SourceRow
from runner.manifest.naming import MAX_FILES
from runner.manifest.positions import unpack_position, value_text
from runner.manifest.provenance import Provenance
from runner.manifest.row_lint import RowLint
from runner.manifest.rows import look_ahead, read_rows
from runner.manifest.task_limit import TaskLimit
from runner.manifest.templates import TemplateError
from runner.tasks.models import Draft, MergedRow
from runner.text import has_written_number, plain_numbers, texts_of_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from runner.errors import Diagnostic
    from runner.manifest.combinations import Combination, Condition
    from runner.manifest.model import Manifest
    from runner.manifest.naming import OutputNamer
    from runner.manifest.params import ModelCatalogue, RequestTemplate
    from runner.manifest.parser import ParsedManifest

#: rows of a file that are read before the first task is created, since a row of JSON need not have every column
_LOOKAHEAD_ROWS = 1_000
#: data files whose values are all text
_TEXT_SUFFIXES = frozenset((".csv", ".tsv", ".txt", ".xlsx", ".ods"))
#: drafts between two reports of progress
_PROGRESS_DRAFTS = 1_000
#: callback that gets each draft of a manifest while the manifest is checked
DraftCallback = Callable[["ParsedManifest", "Draft"], None]


@dataclass(frozen=True, slots=True)
class ExpansionSummary:
    """Result of checking a manifest."""

    tasks: int
    #: number of tasks that were identical to an earlier one and merged with it
    merged: int
    #: number of tasks by provider
    by_provider: Mapping[str, int] = field(default_factory=dict, compare=False)
    #: sum of their keys, 32 hex digits
    key_sum: str = field(default="", compare=False)
    #: warnings in the order of the files
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False)


def expand(
    parsed: ParsedManifest, catalogue: ModelCatalogue, on_merged: Callable[[MergedRow], None] | None = None
) -> Iterator[Draft]:
    """Yield the drafts of a manifest one by one. Raise ManifestError at the first that is wrong.

    Call `on_merged` with each row whose task is that of an earlier row.
    """
    diagnostics = Diagnostics(parsed.manifest.file)
    for draft in ManifestExpander(parsed, catalogue, diagnostics, on_merged=on_merged).drafts():
        diagnostics.raise_any()
        yield draft
    diagnostics.raise_any()


def check(parsed: ParsedManifest, catalogue: ModelCatalogue) -> ExpansionSummary:
    """Expand a manifest without keeping its drafts, and return the summary.

    Raise ManifestError with all diagnostics if there are errors.
    """
    diagnostics = Diagnostics(parsed.manifest.file)
    summary = _summarize(parsed, catalogue, diagnostics)
    diagnostics.raise_any()
    return summary


def parse_and_check(
    text: bytes,
    path: Path,
    catalogue: ModelCatalogue,
    *,
    out: Path | None = None,
    on_draft: DraftCallback | None = None,
) -> tuple[ParsedManifest, ExpansionSummary]:
    """Parse and check a manifest in one step, so that the user sees the errors of both at once.

    Call `on_draft` with every draft. Raise ManifestError with all diagnostics if there are errors.
    """
    parsed, diagnostics = parser.try_parse(text, path, out=out)
    if parsed is None:
        raise diagnostics.error()
    return parsed, check_parsed(parsed, diagnostics, catalogue, on_draft)


def check_parsed(
    parsed: ParsedManifest,
    diagnostics: Diagnostics,
    catalogue: ModelCatalogue,
    on_draft: DraftCallback | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ExpansionSummary:
    """Check the rest of a manifest after parsing, and return the summary.

    Call `on_draft` with every draft, and `on_progress` with their number after each thousand. Raise ManifestError with
    all diagnostics, those of parsing included.
    """
    summary = _summarize(parsed, catalogue, diagnostics, on_draft, on_progress)
    diagnostics.raise_any()
    return summary


def _summarize(
    parsed: ParsedManifest,
    catalogue: ModelCatalogue,
    diagnostics: Diagnostics,
    on_draft: DraftCallback | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ExpansionSummary:
    expander = ManifestExpander(parsed, catalogue, diagnostics)
    for number, draft in enumerate(expander.drafts() if on_draft else expander.count(), 1):
        if on_draft is not None and draft is not None:
            on_draft(parsed, draft)
        if on_progress is not None and number % _PROGRESS_DRAFTS == 0:
            on_progress(number)
    return ExpansionSummary(
        expander.draft_count, expander.merged_count, expander.by_provider, expander.key_sum, diagnostics.warnings
    )


class ManifestExpander:
    """One pass over a manifest. Adds errors and warnings to `diagnostics` and goes on."""

    def __init__(
        self,
        parsed: ParsedManifest,
        catalogue: ModelCatalogue,
        diagnostics: Diagnostics,
        *,
        on_merged: Callable[[MergedRow], None] | None = None,
    ) -> None:
        self.draft_count = 0
        #: number of drafts by provider
        self.by_provider: dict[str, int] = {}
        self.key_sum = ""
        self._manifest = parsed.manifest
        self._catalogue = catalogue
        self._diagnostics = diagnostics
        self._templates = CompiledTemplates(parsed, diagnostics)
        self._provenance = Provenance(parsed, diagnostics, self._templates.params)
        self._combinations = Combinations(parsed.manifest)
        self._limit = TaskLimit(parsed.manifest, self._combinations, self._provenance)
        self._on_merged = on_merged
        self._duplicates = Duplicates(
            self._provenance, by_row=parsed.manifest.items is not None, keep_indices=on_merged is not None
        )

    @property
    def merged_count(self) -> int:
        """Return the number of tasks that merged with an earlier one."""
        return self._duplicates.merged

    def drafts(self) -> Iterator[Draft]:
        """Yield the drafts one by one. Report what concerns the whole manifest after the last."""
        return (draft for draft in self._expand(for_check=False) if draft is not None)

    def count(self) -> Iterator[None]:
        """Check everything like `drafts`, and yield None for each draft, which is not made."""
        return (None for _ in self._expand(for_check=True))

    def _expand(self, *, for_check: bool) -> Iterator[Draft | None]:
        rows = self._source_rows()
        ahead = look_ahead(rows, _LOOKAHEAD_ROWS)
        if not ahead:
            return
        first, source = ahead[0], self._manifest.items
        known_rows = source.rows if source is not None and source.file is None else [row.values for row in ahead]
        columns = list(dict.fromkeys(chain.from_iterable(known_rows)))
        conditions = [*self._combinations.set_conditions, *self._combinations.exclude_conditions]
        self._templates.check(columns, conditions)
        aliases = self._templates.used_aliases()
        used_names = self._templates.names.union(aliases.values(), *[condition.names for condition in conditions])
        unused = UnusedInputs(self._manifest, self._provenance, used_names, columns, known_rows)
        templates = RequestTemplates(self._manifest, self._catalogue, self._templates.params, self._provenance, unused)
        if self._limit.check_product():
            return
        empty_values = EmptyValues(self._templates.params, columns, aliases, self._provenance)
        namer = self._templates.create_namer(self._varying_names(columns))
        builder = DraftBuilder(templates, namer, unused, self._duplicates, self._limit, self._provenance,
                        broken=self._templates.broken, repeat=self._manifest.repeat, aliases=aliases,
                        for_check=for_check,
                        has_written_numbers=_may_have_written_numbers(self._manifest),
                        on_merged=self._on_merged)  # fmt: skip
        row_lint = RowLint(columns, unused.is_used, self._provenance)
        yield from self._expand_rows(builder, empty_values, row_lint, chain(ahead, rows))
        self.by_provider, self.key_sum = builder.by_provider, f"{builder.key_sum % 2**128:032x}"
        if not self._limit.exceeded:
            unused.report(first, complete=templates.is_complete, uses_known=not self._templates.is_wrong)
            self._report_unmatched(conditions, columns if self._diagnostics.has_errors_in(first.file) else ())
        if self.draft_count > MAX_FILES and not self._manifest.output_shards:
            message = f"{self.draft_count:,} outputs in one directory, which many tools bear badly"
            hint = "`output: {shards: 256}` spreads them over directories, also those that are there already"
            self._provenance.report_at(("output", "shards"), message, hint, warn=True)
        empty_values.report()
        row_lint.report()
        self._duplicates.report()

    def _expand_rows(
        self, builder: DraftBuilder, empty_values: EmptyValues, row_lint: RowLint, rows: Iterator[SourceRow]
    ) -> Iterator[Draft | None]:
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
            if is_counted:
                row_lint.count_row(row)

    def _source_rows(self) -> Iterator[SourceRow]:
        source, file = self._manifest.items, self._manifest.file
        if source is None:
            return iter([SourceRow({}, file, 1, 1)])
        if source.file is not None:
            label = self._provenance.file_label(source.file)
            return read_rows(source.file, label, self._diagnostics, sheet=source.sheet)
        return (SourceRow(values, file, *unpack_position(getattr(values, "position", 0))) for values in source.rows)

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
                self._provenance.report_at(condition.path, "matches nothing", condition.unmatched_hint(axes))
        if not self.draft_count and not self._diagnostics:
            self._provenance.report_at(("matrix", "exclude"), "takes every task out", "take an entry away")


class DraftBuilder:
    """Builder of the drafts of combinations. Errors of the parameters in `broken` have been reported already.

    With `for_check` it makes no drafts, and no names where these cannot be wrong.
    """

    def __init__(
        self,
        templates: RequestTemplates,
        namer: OutputNamer,
        unused: UnusedInputs,
        duplicates: Duplicates,
        limit: TaskLimit,
        provenance: Provenance,
        *,
        broken: Collection[str],
        repeat: int,
        aliases: Mapping[str, str] = MappingProxyType({}),
        for_check: bool = False,
        has_written_numbers: bool = True,
        on_merged: Callable[[MergedRow], None] | None = None,
    ) -> None:
        self.draft_count = 0
        self.by_provider: dict[str, int] = {}
        #: sum of the keys of the drafts
        self.key_sum = 0
        self._templates, self._namer, self._unused = templates, namer, unused
        self._duplicates, self._limit, self._provenance = duplicates, limit, provenance
        self._broken, self._for_check = broken, for_check
        self._with_names = not (for_check and namer.is_always_right)
        self._has_written_numbers = has_written_numbers
        self._on_merged = on_merged
        self._aliases = dict(aliases)
        self._repeats = range(1, repeat + 1)

    def build(self, combination: Combination) -> Iterator[Draft | None]:
        """Yield the drafts of one combination, or None for each. Stop early when there are too many tasks."""
        row, given = combination.row.values, combination.given
        known = {**row, **given} if given else row
        template = self._templates.get(combination)
        if template and (template.ignored or combination.changed_by):
            self._unused.check_task(template, combination, known)
        for repeat in self._repeats:
            before = self.draft_count
            draft = self._build_draft(template, combination, known, repeat) if template else None
            if self.draft_count > before:
                yield draft
            elif self._limit.exceeded or self._limit.count_idle():
                return

    def _build_draft(
        self, template: RequestTemplate, combination: Combination, known: dict[str, Any], repeat: int
    ) -> Draft | None:
        """Count the task unless it is wrong or an earlier one, and return its draft."""
        index = self.draft_count + 1
        variables = self._variables(known, index, repeat)
        row, given = combination.row.values, combination.given
        try:
            task = template.cache.find(row, given, known, variables, repeat)
            if task is None:
                params = template.render_params(row, given, variables)
        except TemplateError as error:
            self._provenance.report_template_error(error, combination)
            return None
        if task is not None:
            goods, key, is_right = task.goods, task.key, True
        else:
            request, key, goods, is_right = self._request_and_hashes(template, combination, params, repeat)
            if not key:
                return None
        if self._duplicates.merge_if_known(goods, key, combination, is_right=is_right):
            if self._on_merged and (first := self._duplicates.first_index(goods, combination)):
                params = params if task is None else task.params()
                name = self._namer.name_from_template(first, key.hex(), template, variables, params)
                self._on_merged(MergedRow(first, texts_of_numbers(known), name))
            return None
        if self._limit.check_next(self.draft_count):
            return None
        self._duplicates.remember(goods, key, combination, index)
        self.draft_count = index
        self.key_sum += int.from_bytes(key)
        model, provider = template.model, template.provider
        self.by_provider[provider] = self.by_provider.get(provider, 0) + 1
        slots = self._limit.check_slots(model.slots(request) if task is None else task.slots)
        name, before = "", ""
        if self._with_names:
            params = params if task is None else task.params()
            name = self._output_name(template, combination, key.hex(), variables, params)
        if self._for_check:
            return None
        if self._has_written_numbers and has_written_number([known, params]):
            before = self._goods_before(template, combination, variables, goods, repeat)
            known = texts_of_numbers(known)
        request = request if task is None else task.request()
        return Draft(key.hex(), index, repeat, known, provider, model.operation, model.code, request, name, slots,
                     goods.hex(), before)  # fmt: skip

    def _variables(self, known: dict[str, Any], index: int, repeat: int) -> dict[str, Any]:
        """Return the variables of a task's templates: what has no value is none of them."""
        variables = {**known, "index": index, "repeat": repeat}
        if self._aliases:
            pairs = self._aliases.items()
            variables |= {alias: known[column] for alias, column in pairs if known.get(column) is not None}
        if None in known.values():
            variables = {name: value for name, value in variables.items() if value is not None}
        return variables

    def _goods_before(
        self,
        template: RequestTemplate,
        combination: Combination,
        variables: Mapping[str, Any],
        goods: bytes,
        repeat: int,
    ) -> str:
        """Return the goods of a task in earlier versions, which wrote `1.10` as 1.1, or "" if they are the same."""
        row, given = plain_numbers(dict(combination.row.values)), plain_numbers(dict(combination.given))
        params = plain_numbers(template.render_params(row, given, plain_numbers(dict(variables))))
        request, _ = template.model.request(params)
        content = template.provider, template.endpoint, template.model.code, request, repeat, template.implied
        before = identity.task_goods(*content)
        return "" if before == goods.hex() else before

    def _request_and_hashes(
        self, template: RequestTemplate, combination: Combination, params: Mapping[str, Any], repeat: int
    ) -> tuple[dict[str, Any], bytes, bytes, bool]:
        """Return the request, the key and the goods of a task, and whether every parameter is right.

        Report content that cannot be sent as JSON, and return empty hashes for it.
        """
        model = template.model
        request, diagnostics = model.request(params)
        for diagnostic in diagnostics:
            if diagnostic.name not in self._broken:
                self._provenance.report_parameter(diagnostic, combination, model)
        provider, code = template.provider, model.code
        try:
            key = identity.task_key(provider, model.operation, code, request, repeat)
            goods = identity.task_goods(provider, template.endpoint, code, request, repeat, template.implied)
        except TypeError as error:
            self._provenance.report_at(("params",), f"cannot be sent as JSON: {error}", "write long numbers in quotes")
            return request, b"", b"", False
        return request, bytes.fromhex(key), bytes.fromhex(goods), not diagnostics

    def _output_name(
        self,
        template: RequestTemplate,
        combination: Combination,
        key: str,
        variables: Mapping[str, Any],
        params: Mapping[str, Any],
    ) -> str:
        try:
            name = self._namer.name(self.draft_count, key, template, variables, params)
        except TemplateError as error:
            error.path = ("output", "name")
            self._provenance.report_template_error(error, combination)
            return ""
        here = (self.draft_count, combination.row.line)
        if earlier := self._namer.find_same_name(name, *here):
            both = f"{self._provenance.describe_task(earlier)} and {self._provenance.describe_task(here)}"
            message = f"{both} are both called `{name}`"
            self._provenance.report_at(("output", "name"), message, "begin it with `{{ index }}-`")
        return name


def _may_have_written_numbers(manifest: Manifest) -> bool:
    """Return whether a number of the manifest or of its rows may remember how it was written."""
    items, matrix = manifest.items, manifest.matrix
    if items is not None and (items.file is None or items.file.suffix.lower() not in _TEXT_SUFFIXES):
        return True
    given = [list(axis.values) for axis in matrix.axes.values() if not isinstance(axis.values, range)]
    rules = [dict(each) for each in (*matrix.add, *(rule.then for rule in matrix.set))]
    return has_written_number([manifest.params, *given, *rules])
