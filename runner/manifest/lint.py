"""Report what is valid in a manifest but probably not meant: unused values, empty values, duplicates, wrong braces.

Unused are columns, axes and `set` values without effect on a template or a parameter. A value that one model of the
job takes and another would ignore is an error, unless `set` gives it. An axis that nothing uses is a warning, and so is
a column if it was probably meant to be used: others stand in results on purpose. Both are errors if they differ from a
parameter only in spelling.

The others are warnings: an empty value that a template puts into a text that is paid for, tasks that merge because they
are identical, and `{name}` or `｛｛name｝｝`, which are sent as they stand.
"""

from __future__ import annotations

import re
from array import array
from itertools import chain
from typing import TYPE_CHECKING, Any

from runner.manifest.diagnostics import is_nearly, normalize_name
from runner.manifest.model import MODEL_KEYS
from runner.manifest.positions import dotted_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from runner.manifest.combinations import Combination
    from runner.manifest.model import Manifest, SourceRow
    from runner.manifest.params import Param, RequestTemplate
    from runner.manifest.positions import KeyPath
    from runner.manifest.provenance import Provenance

#: largest number of unused columns that a message shows
_MAX_COLUMNS_SHOWN = 20
#: largest number of unused columns that are compared with the names in use
_MAX_COLUMNS_COMPARED = 1_000
#: largest number of merged tasks that a warning shows
_MAX_DUPLICATES_SHOWN = 5
_COLUMNS_HINT = "what is here stands in results.jsonl only"
_IGNORED_HINT = "take it out, or give it with `matrix.set` to the models that have it"
#: bytes of a digest that choose its byte array, bytes of it stored there, of the line or number behind them, of the key
_PREFIX_BYTES, _SUFFIX_BYTES, _NUMBER_BYTES, _KEY_BYTES = 2, 14, 5, 2
_RECORD_BYTES = _SUFFIX_BYTES + _NUMBER_BYTES + _KEY_BYTES
#: by whether merged tasks are identical: what one of them is and does, and what several are and do
_MERGED = (
    (True, ("is identical to an earlier one", "merges with it"), ("are identical to earlier ones", "merge with them")),
    (
        False,
        ("asks for the same as an earlier one in another way (line ends, blanks, a value that counts anyway)",
         "merges with it"),
        ("ask for the same as earlier ones in another way (line ends, blanks, a value that counts anyway)",
         "merge with them"),
    ),
)  # fmt: skip
_REPEAT_HINT = "`repeat` makes several of each"
_ROWS_HINT = f"{_REPEAT_HINT}; rows that differ elsewhere keep a line and, by `output.name`, a file of their own"
#: what a spreadsheet shows in the place of a value
_SPREADSHEET_ERRORS = frozenset(
    ("#REF!", "#NAME?", "#N/A", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#FIELD!", "#BUSY!",
     "#GETTING_DATA", "#ERROR!", "Err:502", "Err:504", "Err:508", "Err:509", "Err:522")
)  # fmt: skip
#: characters of the longest of them, with some blanks
_LONGEST_ERROR = 20
#: a word in single, double or full-width braces
_BRACED = re.compile(r"[{｛]{1,2}\s*(\w+)\s*[}｝]{1,2}")


class UnusedInputs:
    """Columns, axes and added values without effect, collected from tasks and reported at the end.

    `used_names` are the names that templates and conditions use, `rows` the values of the rows that are known.
    """

    def __init__(
        self,
        manifest: Manifest,
        provenance: Provenance,
        used_names: Iterable[str],
        columns: Collection[str],
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        matrix = manifest.matrix
        self._provenance, self._columns, self._axes, self._rows = provenance, columns, matrix.axes, rows
        self._fixed_keys = {name for name in MODEL_KEYS if getattr(manifest, name)}
        self._params = manifest.params.keys()
        self._used_names = {*used_names, *(set(MODEL_KEYS) - self._fixed_keys)}
        self._added = {name for row in matrix.add for name in row} - self._axes.keys()
        used = {*self._used_names, *MODEL_KEYS, *self._params}
        self._unused_names = {*columns, *self._axes, *self._added} - used
        self._set_values = [rule.then for rule in matrix.set]
        self._unused_set_names = [set(then) - self._unused_names - used for then in self._set_values]
        self._templates: list[RequestTemplate] = []
        self._ignored_values: list[tuple[RequestTemplate, str, Combination]] = []
        self._ineffective_sets: dict[tuple[int, str], RequestTemplate] = {}

    def add_template(self, template: RequestTemplate) -> None:
        """Add the request template of another model of the job."""
        self._templates.append(template)
        template.ignored = {name for name in self._unused_names if not template.matrix_params[name]}

    def check_task(self, template: RequestTemplate, combination: Combination, known: Mapping[str, Any]) -> None:
        """Note the values of a task that its model ignores, and the `set` values without effect."""
        for name in [name for name in template.ignored if known.get(name) not in (None, "")]:
            if not any(name in self._set_values[number] for number in combination.changed_by):
                template.ignored.discard(name)
                self._ignored_values.append((template, name, combination))
        for number in combination.changed_by:
            for name in list(self._unused_set_names[number]):
                if template.matrix_params[name]:
                    self._unused_set_names[number].discard(name)
                else:
                    self._ineffective_sets[number, name] = template

    def report(self, first: SourceRow, *, complete: bool, uses_known: bool) -> None:
        """Report ignored and unused values. `first` is the first row.

        `complete` is true if every model was found, `uses_known` if no template is wrong.
        """
        for template, name, combination in self._ignored_values:
            self._report_ignored(template, name, combination, complete=complete)
        for (number, name), template in self._ineffective_sets.items():
            if name in self._unused_set_names[number]:
                message = f"changes nothing: no text uses `{name}`, and {_model_label(template)} has no such parameter"
                self._provenance.report_at(
                    ("matrix", "set", number, "then", name), message, _model_hint(template, name), key=True
                )
        if complete and self._templates:
            self._report_axes(uses_known=uses_known)
            self._report_columns(first, uses_known=uses_known)

    def _report_ignored(
        self, template: RequestTemplate, name: str, combination: Combination, *, complete: bool
    ) -> None:
        other = next((each for each in self._templates if each.matrix_params[name]), None)
        if other:
            message = f"is no parameter of {_model_label(template)}, but of {_model_label(other)}"
            add = self._provenance.report_matrix_value if name in combination.given else self._provenance.report_cell
            add(name, combination, message, _IGNORED_HINT)
        elif complete and name in self._added and name in combination.given:
            message = f"no text uses `{name}`, and {_model_label(template)} has no such parameter"
            self._provenance.report_matrix_value(name, combination, message, _model_hint(template, name))

    def _report_axes(self, *, uses_known: bool) -> None:
        for name, axis in self._axes.items():
            if name in self._unused_names and not any(template.matrix_params[name] for template in self._templates):
                intended = self._intended_param(name)
                if not (intended or uses_known):
                    continue
                models = _model_label(self._templates[0]) if len(self._templates) == 1 else "no model"
                message = f"no text uses this axis, and {models} has no such parameter"
                hint = f"call it `{intended}`" if intended else _model_hint(self._templates[0], name)
                self._provenance.report_at(axis.path, message, hint, key=True, warn=not intended)

    def _report_columns(self, first: SourceRow, *, uses_known: bool) -> None:
        unused = [name for name in self._columns if not self.is_used(name)]
        misspelled = {name: intended for name in unused if (intended := self._intended_param(name))}
        for name, intended in misspelled.items():
            message = f"no text uses the column `{name}`, and the parameter is called `{intended}`"
            self._provenance.report_column(
                first, name, message, f"call it `{intended}`, or something else if it is not meant for the model"
            )
        if not uses_known:
            return
        others = [name for name in unused[:_MAX_COLUMNS_COMPARED] if name not in misspelled]
        if likely := {name: reason for name in others if (reason := self._reason(name))}:
            message = f"nothing uses {_list_columns(likely)}"
            self._provenance.report_column(first, next(iter(likely)), message, _COLUMNS_HINT, warn=True)

    def is_used(self, name: str) -> bool:
        """Return whether a text uses a column or an axis, or a model met so far takes it as a parameter."""
        in_column = any(template.column_params[name] for template in self._templates)
        return in_column or name in self._used_names or name in self._axes

    def _intended_param(self, name: str) -> str:
        """Return the parameter that a name differs from only in spelling, else an empty text."""
        intended = normalize_name(name)
        is_free = intended not in {name, *self._columns, *self._axes, *self._params, *self._fixed_keys}
        return intended if is_free and any(template.matrix_params[intended] for template in self._templates) else ""

    def _reason(self, name: str) -> str:
        """Return why a column was probably meant to be used, empty if it stands there for results alone."""
        if name in self._fixed_keys:
            return "the manifest names it"
        if name in self._params:
            return "`params` sets it"
        models = [template.model for template in self._templates]
        known = {*self._used_names, *MODEL_KEYS, *chain.from_iterable(model.parameter_names() for model in models)}
        near = [
            each for each in sorted(known - {name}) if is_nearly(name, each) and not self._stands_beside(name, each)
        ]
        if near:
            same = normalize_name(name)
            return f"is `{next((each for each in near if normalize_name(each) == same), near[0])}` meant?"
        takers = [template for template in self._templates if name in template.model.provider_names()]
        return f"other models of {takers[0].provider} take it" if takers else ""

    def _stands_beside(self, name: str, used: str) -> bool:
        """Return whether a row has values under both names: a mistyped name stands in the place of the other."""
        if used not in self._columns:
            return False
        return any(row.get(name) not in (None, "") and row.get(used) not in (None, "") for row in self._rows)


def _list_columns(reasons: Mapping[str, str]) -> str:
    names = list(reasons)
    shown = ", ".join(f"`{name}` ({reasons[name]})" for name in names[:_MAX_COLUMNS_SHOWN])
    more = f" and {len(names) - _MAX_COLUMNS_SHOWN} more" if len(names) > _MAX_COLUMNS_SHOWN else ""
    return f"the column{'s' if len(names) > 1 else ''} {shown}{more}"


def _model_label(template: RequestTemplate) -> str:
    return f"{template.provider} {template.model.operation}/{template.model.code}"


def _model_hint(template: RequestTemplate, name: str) -> str:
    """Return the hint of the model for a parameter that it does not have."""
    _, diagnostics = template.model.request({name: "x"})
    return next((each.hint for each in diagnostics if each.name == name and each.hint), "correct the name")


class EmptyValues:
    """Empty values, and errors of spreadsheets, in the rows that produce tasks, each reported once a column.

    Only templates of plain text and names count. A template with a condition, a filter or a `default` already provides
    for empty values.
    """

    def __init__(
        self, params: Iterable[Param], columns: Collection[str], aliases: Mapping[str, str], provenance: Provenance
    ) -> None:
        self._provenance = provenance
        texts = [text for param in params for text in param.templates]
        parts = [(name, text.path) for text in texts for is_text, name in text.template.parts if not is_text]
        used = [(aliases.get(name, name), path) for name, path in parts]
        self._used: dict[str, KeyPath] = {name: path for name, path in reversed(used) if name in columns}
        self._found: dict[str, tuple[SourceRow, int]] = {}
        self._errors: dict[str, tuple[SourceRow, int]] = {}

    def count_row(self, row: SourceRow) -> None:
        """Count the empty values of a row, and the errors."""
        for name in self._used:
            value = row.values.get(name)
            if value == "":
                first, count = self._found.get(name, (row, 0))
                self._found[name] = first, count + 1
            elif type(value) is str and len(value) <= _LONGEST_ERROR and value.strip() in _SPREADSHEET_ERRORS:
                first, count = self._errors.get(name, (row, 0))
                self._errors[name] = first, count + 1

    def report(self) -> None:
        """Add a warning for each column with empty values, at the first such row, and one for each with errors."""
        for name, (row, count) in self._found.items():
            more = f" and in {count - 1:,} more" if count > 1 else ""
            message = f"is empty in this row{more}, but `{dotted_path(self._used[name])}` puts it in as it is"
            hint = f"fill it in, or write {{% if {name} %}}…{{% endif %}} around it"
            self._provenance.report_row(row, name, message, hint, warn=True)
        for name, (row, count) in self._errors.items():
            more = f" (and {count - 1:,} more in this column)" if count > 1 else ""
            what = f"`{row.values[name]}` is an error of a spreadsheet{more}"
            message = f"{what}, and `{dotted_path(self._used[name])}` sends it"
            self._provenance.report_row(row, name, message, "mend the formula, and save the table again", warn=True)


class Duplicates:
    """Goods of all tasks in 16 bytes, each with the line of its row, or with its number if there are no rows.

    They are stored in byte arrays of about 27 MB for a million tasks, where a dict takes 140 MB. Two bytes of the key
    tell an identical task from one that is only written in another way.
    """

    def __init__(self, provenance: Provenance, *, by_row: bool, keep_indices: bool = False) -> None:
        self.merged = 0
        #: with `keep_indices`, positions of the tasks of each byte array
        self._indices: dict[bytes, array[int]] | None = {} if keep_indices else None
        self._provenance = provenance
        self._by_row = by_row
        self._arrays: dict[bytes, bytearray] = {}
        #: by whether they are identical: how many tasks merged, and the places of the first few
        self._counts = {True: 0, False: 0}
        self._shown: dict[bool, list[str]] = {True: [], False: []}

    def merge_if_known(self, goods: bytes, key: bytes, combination: Combination, *, is_right: bool = True) -> bool:
        """Return whether an earlier task asks for the same, and count it if so.

        A task that is not right lacks the parameters that are wrong: what it has in common with another says nothing.
        """
        stored, at = self._find(goods)
        if at < 0 or not is_right:
            return at >= 0
        first = int.from_bytes(stored[at + _SUFFIX_BYTES : at + _SUFFIX_BYTES + _NUMBER_BYTES], "big")
        identical = stored[at + _RECORD_BYTES - _KEY_BYTES : at + _RECORD_BYTES] == key[:_KEY_BYTES]
        self.merged += 1
        self._counts[identical] += 1
        if len(self._shown[identical]) < _MAX_DUPLICATES_SHOWN:
            self._shown[identical].append(
                f"{self._provenance.describe_combination(combination)} as {'line' if self._by_row else 'task'} {first}"
            )
        return True

    def remember(self, goods: bytes, key: bytes, combination: Combination, index: int) -> None:
        """Remember a new task."""
        number = combination.row.line if self._by_row else index
        stored = self._arrays.setdefault(goods[:_PREFIX_BYTES], bytearray())
        stored += goods[_PREFIX_BYTES:]
        stored += number.to_bytes(_NUMBER_BYTES, "big")
        stored += key[:_KEY_BYTES]
        if self._indices is not None:
            self._indices.setdefault(goods[:_PREFIX_BYTES], array("L")).append(index)

    def first_index(self, goods: bytes, combination: Combination) -> int:
        """Return the position of the earlier task of another row that asks for the same, 0 if it is of this row."""
        stored, at = self._find(goods)
        if self._indices is None or at < 0 or not self._by_row:
            return 0
        line = int.from_bytes(stored[at + _SUFFIX_BYTES : at + _SUFFIX_BYTES + _NUMBER_BYTES], "big")
        if combination.given and line == combination.row.line:
            return 0
        return self._indices[goods[:_PREFIX_BYTES]][at // _RECORD_BYTES]

    def _find(self, goods: bytes) -> tuple[bytes | bytearray, int]:
        """Return the array and the offset of the first task with these goods; the offset is -1 if there is none."""
        stored, rest = self._arrays.get(goods[:_PREFIX_BYTES], b""), goods[_PREFIX_BYTES:]
        at = stored.find(rest)
        while at % _RECORD_BYTES and at >= 0:  # a match across two records is none
            at = stored.find(rest, at + 1)
        return stored, at

    def report(self) -> None:
        """Add a warning if identical tasks were merged, and one if tasks merged that are written differently."""
        for identical, one, many in _MERGED:
            count = self._counts[identical]
            if not count:
                continue
            more = ", …" if count > len(self._shown[identical]) else ""
            what, then = one if count == 1 else many
            message = f"{count:,} task{'' if count == 1 else 's'} {what} and {then}"
            shown = f"{', '.join(self._shown[identical])}{more}"
            path = ("items",) if self._by_row else ("matrix",)
            self._provenance.report_at(
                path, f"{message}: {shown}", _ROWS_HINT if self._by_row else _REPEAT_HINT, key=True, warn=True
            )


def find_wrong_braces(value: Any, path: KeyPath, known: Collection[str]) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield path, written text and name of each known variable, at any depth, that stands in the wrong braces."""
    if isinstance(value, str):
        for found in _BRACED.finditer(value):
            if found[1] in known and not found[0].startswith("{{"):
                yield path, found[0], found[1]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in pairs:
        yield from find_wrong_braces(each, (*path, step), known)
