"""Compile the templates of a manifest once, and check their variables before any row is rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.content_checks import BUILTIN_VARIABLES
from runner.manifest.diagnostics import closest_hint
from runner.manifest.lint import find_wrong_braces
from runner.manifest.naming import OutputNamer
from runner.manifest.params import MODEL_KEYS, LocatedTemplate, Param
from runner.manifest.positions import dotted_path
from runner.manifest.templates import Template, TemplateError, is_template

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from runner.manifest.diagnostics import Diagnostics
    from runner.manifest.matrix import Condition
    from runner.manifest.model import Matrix
    from runner.manifest.parser import ParsedManifest
    from runner.manifest.positions import KeyPath

_OUTPUT_NAME: KeyPath = ("output", "name")


class CompiledTemplates:
    """Compiled templates of `params` and of the output name.

    `broken` holds the names of parameters with a broken template. Errors that follow from these are not reported.
    """

    def __init__(self, parsed: ParsedManifest, diagnostics: Diagnostics) -> None:
        self._manifest = parsed.manifest
        self._source_map = parsed.source_map
        self._diagnostics = diagnostics
        self.broken: set[str] = set()
        params = parsed.manifest.params
        self.params = [Param(name, value, ("params", name), self._on_template_error) for name, value in params.items()]
        self._output_name = self._compile_output_name(parsed.manifest.output_name)

    def check(self, columns: Collection[str], conditions: Iterable[Condition]) -> None:
        """Report every name that nothing provides. Treat templates and conditions with such a name as broken."""
        matrix = self._manifest.matrix
        for path, name in _matrix_names(matrix):
            if name in columns:
                self._add(path, "is the name of a column of `items` as well", "rename one of them", key=True)
        for name in sorted(set(columns) & set(BUILTIN_VARIABLES)):
            self._add(("items",), f"the column `{name}` has the name of a variable every template knows", "rename it")
        given = {*columns, *(name for _, name in _matrix_names(matrix))}
        given |= {name for rule in matrix.set for name in rule.then}
        variables = {*given, *BUILTIN_VARIABLES}
        for param in self.params:
            # no short cut: report every name
            if sum(not self._has_known_names(each, variables) for each in param.templates):
                param.disable_templates()
                self.broken.add(param.name)
        if self._output_name and not self._has_known_names(self._output_name, {*variables, "key"}):
            self._output_name = None
        values: list[tuple[Any, KeyPath]] = [(param.value, ("params", param.name)) for param in self.params]
        for value, root in [*values, (self._manifest.output_name, _OUTPUT_NAME)]:
            for path, written, name in find_wrong_braces(value, root, variables):
                hint = f"a variable is written {{{{ {name} }}}}"
                self._add(path, f"`{written}` stays as it stands", hint, warn=True)
        conditional = {*given, *MODEL_KEYS}
        for condition in conditions:
            for name in sorted(condition.names - conditional):
                self._add((*condition.path, name), "no column, axis or added value is called so",
                          closest_hint(name, conditional, "there are"), key=True)  # fmt: skip
                condition.matched = True  # one error is enough: it is not reported as unmatched as well

    @property
    def names(self) -> frozenset[str]:
        """Return the variables of all templates."""
        templates = [text for param in self.params for text in param.templates]
        if self._output_name:
            templates.append(self._output_name)
        return frozenset(name for each in templates for name in each.template.names)

    def create_namer(self, varying: Iterable[str] = ()) -> OutputNamer:
        """Return the namer of outputs. Default names show the values of the `varying` variables."""
        source = self._manifest.output_name
        if self._output_name:
            return OutputNamer(source, self._output_name.template)
        variables = {param.name: param.variables for param in self.params}
        return OutputNamer(None if source is None or is_template(source) else source, None, tuple(varying), variables)

    def _compile_output_name(self, source: str | None) -> LocatedTemplate | None:
        if source is None or not is_template(source):
            return None
        try:
            return LocatedTemplate(_OUTPUT_NAME, Template(source))
        except TemplateError as error:
            self._on_template_error(_OUTPUT_NAME, error)
            return None

    def _has_known_names(self, located: LocatedTemplate, known: set[str]) -> bool:
        unknown = sorted(located.template.names - known)
        for name in unknown:
            self._add(located.path, f"unknown variable `{name}`", closest_hint(name, known, "the variables are"))
        return not unknown

    def _on_template_error(self, path: KeyPath, error: TemplateError) -> None:
        self._add(path, error.message, error.hint)
        self.broken.add(str(path[1]))

    def _add(self, path: KeyPath, message: str, hint: str, *, key: bool = False, warn: bool = False) -> None:
        location = self._source_map.key_location(*path) if key else self._source_map.location(*path)
        self._diagnostics.add(location, dotted_path(path), message, hint, warn=warn)


def _matrix_names(matrix: Matrix) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the name of each axis and of each value of an added row."""
    yield from ((axis.path, name) for name, axis in matrix.axes.items())
    yield from ((("matrix", "add", number, name), name) for number, row in enumerate(matrix.add) for name in row)
