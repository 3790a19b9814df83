"""Report columns, axes and `set` values that no template or model parameter uses.

A value that one model of the job takes and another would ignore is an error, unless `set` gives it. A column or axis
that nothing uses is a warning, or an error if it differs from a parameter only in spelling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.recipe import MODEL_KEYS
from runner.manifest.teach import normalize_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runner.manifest.blame import Provenance
    from runner.manifest.combine import Combination
    from runner.manifest.formats import SourceRow
    from runner.manifest.model import Manifest
    from runner.manifest.recipe import RequestTemplate

#: largest number of unused columns that a message shows
_MAX_COLUMNS_SHOWN = 20
_IGNORED_HINT = "take it out, or give it with `matrix.set` to the models that have it"


class UnusedInputs:
    """Columns, axes and added values without effect, collected from tasks and reported at the end.

    `used_names` are the names that templates and conditions use.
    """

    def __init__(
        self, manifest: Manifest, provenance: Provenance, used_names: Iterable[str], columns: Collection[str]
    ) -> None:
        matrix = manifest.matrix
        self._provenance, self._columns, self._axes = provenance, columns, matrix.axes
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

    def report(self, first: SourceRow, *, complete: bool) -> None:
        """Report ignored and unused values. `first` is the first row. `complete` is true if every model was found."""
        for template, name, combination in self._ignored_values:
            self._report_ignored(template, name, combination, complete=complete)
        for (number, name), template in self._ineffective_sets.items():
            if name in self._unused_set_names[number]:
                message = f"changes nothing: no text uses `{name}`, and {_model_label(template)} has no such parameter"
                self._provenance.report_at(
                    ("matrix", "set", number, "then", name), message, _model_hint(template, name), key=True
                )
        if complete and self._templates:
            self._report_axes()
            self._report_columns(first)

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

    def _report_axes(self) -> None:
        for name, axis in self._axes.items():
            if name in self._unused_names and not any(template.matrix_params[name] for template in self._templates):
                intended = self._intended_param(name)
                models = _model_label(self._templates[0]) if len(self._templates) == 1 else "no model"
                message = f"no text uses this axis, and {models} has no such parameter"
                hint = f"call it `{intended}`" if intended else _model_hint(self._templates[0], name)
                self._provenance.report_at(axis.path, message, hint, key=True, warn=not intended)

    def _report_columns(self, first: SourceRow) -> None:
        unused = [name for name in self._columns if not self._is_used(name)]
        misspelled = {name: intended for name in unused if (intended := self._intended_param(name))}
        for name, intended in misspelled.items():
            message = f"no text uses the column `{name}`, and the parameter is called `{intended}`"
            self._provenance.report_columns(
                first, message, f"call it `{intended}`, or something else if it is not meant for the model"
            )
        if others := [name for name in unused if name not in misspelled]:
            self._provenance.report_columns(
                first, f"nothing uses {self._list_columns(others)}", self._columns_hint(others), warn=True
            )

    def _is_used(self, name: str) -> bool:
        return (
            name in self._used_names
            or name in self._axes
            or any(template.column_params[name] for template in self._templates)
        )

    def _intended_param(self, name: str) -> str:
        """Return the parameter that a name differs from only in spelling, else an empty text."""
        intended = normalize_name(name)
        is_free = intended not in {name, *self._columns, *self._axes, *self._params, *self._fixed_keys}
        return intended if is_free and any(template.matrix_params[intended] for template in self._templates) else ""

    def _list_columns(self, names: list[str]) -> str:
        reasons = dict.fromkeys(self._fixed_keys, " (the manifest names it)")
        reasons |= dict.fromkeys(self._params, " (`params` sets it)")
        shown = ", ".join(f"`{name}`{reasons.get(name, '')}" for name in names[:_MAX_COLUMNS_SHOWN])
        more = f" and {len(names) - _MAX_COLUMNS_SHOWN} more" if len(names) > _MAX_COLUMNS_SHOWN else ""
        return f"the column{'s' if len(names) > 1 else ''} {shown}{more}"

    def _columns_hint(self, names: list[str]) -> str:
        hints = [_model_hint(template, name) for name in names[:_MAX_COLUMNS_SHOWN] for template in self._templates[:1]]
        similar = [hint for hint in hints if hint.startswith("did you mean")]
        return " ".join([*similar[:1], "what is here stands in results.jsonl only"])


def _model_label(template: RequestTemplate) -> str:
    return f"{template.provider} {template.model.operation}/{template.model.code}"


def _model_hint(template: RequestTemplate, name: str) -> str:
    """Return the hint of the model for a parameter that it does not have."""
    _, diagnostics = template.model.request({name: "x"})
    return next((each.hint for each in diagnostics if each.name == name and each.hint), "correct the name")
