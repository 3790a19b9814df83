"""Compile the templates of a manifest once, and check their variables before any row is rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.braces import slips
from runner.manifest.content import COUNTERS
from runner.manifest.naming import Namer
from runner.manifest.recipe import CHOICES, Param, Path, Text
from runner.manifest.teach import closest
from runner.manifest.templates import Template, TemplateError, is_template
from runner.manifest.values import dotted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from runner.manifest.combine import Condition
    from runner.manifest.model import Matrix
    from runner.manifest.parse import Parsed
    from runner.manifest.report import Report

_NAME: Path = ("output", "name")


class Ingredients:
    """Compiled templates of `params` and of the output name.

    `broken` holds the names of parameters with a broken template. Errors that follow from these are not reported.
    """

    def __init__(self, parsed: Parsed, diagnostics: Report) -> None:
        self._manifest = parsed.manifest
        self._places = parsed.places
        self._report = diagnostics
        self.muted: set[str] = set()
        params = parsed.manifest.params
        self.params = [Param(name, value, ("params", name), self._broken) for name, value in params.items()]
        self._output = self._named(parsed.manifest.output_name)

    def check(self, columns: Collection[str], conditions: Iterable[Condition]) -> None:
        """Report every name that nothing provides. Treat templates and conditions with such a name as broken."""
        matrix = self._manifest.matrix
        for path, name in _given(matrix):
            if name in columns:
                self._add(path, "is the name of a column of `items` as well", "rename one of them", key=True)
        for name in sorted(set(columns) & set(COUNTERS)):
            self._add(("items",), f"the column `{name}` has the name of a variable every template knows", "rename it")
        known = {*columns, *(name for _, name in _given(matrix)), *(name for rule in matrix.set for name in rule.then)}
        for param in self.params:
            if sum(
                not self._knows(each, {*known, *COUNTERS}) for each in param.texts
            ):  # no short cut: report every name
                param.freeze()
                self.muted.add(param.name)
        if self._output and not self._knows(self._output, {*known, *COUNTERS, "key"}):
            self._output = None
        self._tell_braces({*known, *COUNTERS})
        for condition in conditions:
            self._compare(condition, {*known, *CHOICES})

    @property
    def named(self) -> frozenset[str]:
        """Return the variables of all templates."""
        templates = [text for param in self.params for text in param.texts]
        if self._output:
            templates.append(self._output)
        return frozenset(name for each in templates for name in each.template.names)

    def namer(self, varying: Iterable[str] = ()) -> Namer:
        """Return the namer of outputs. Default names show the values of the `varying` variables."""
        source = self._manifest.output_name
        if self._output:
            return Namer(source, self._output.template)
        variables = {param.name: param.uses for param in self.params}
        return Namer(None if source is None or is_template(source) else source, None, tuple(varying), variables)

    def _tell_braces(self, known: Collection[str]) -> None:
        values = [(param.value, ("params", param.name)) for param in self.params]
        for value, path in [*values, (self._manifest.output_name, _NAME)]:
            for where, written, name in slips(value, path, known):
                hint = f"a variable is written {{{{ {name} }}}}"
                location = self._places.place(*where)
                self._report.add(location, dotted(where), f"`{written}` stays as it stands", hint, warn=True)

    def _compare(self, condition: Condition, known: set[str]) -> None:
        for name in sorted(condition.names - known):
            self._add((*condition.path, name), "no column, axis or added value is called so",
                      closest(name, known, "there are"), key=True)  # fmt: skip
            condition.matched = True  # one error is enough: it is not reported as unmatched as well

    def _named(self, source: str | None) -> Text | None:
        if source is None or not is_template(source):
            return None
        try:
            return Text(_NAME, Template(source))
        except TemplateError as error:
            self._broken(_NAME, error)
            return None

    def _knows(self, located: Text, known: set[str]) -> bool:
        unknown = sorted(located.template.names - known)
        for name in unknown:
            self._add(located.path, f"unknown variable `{name}`", closest(name, known, "the variables are"))
        return not unknown

    def _broken(self, path: Path, error: TemplateError) -> None:
        self._add(path, error.message, error.hint)
        self.muted.add(str(path[1]))

    def _add(self, path: Path, message: str, hint: str, *, key: bool = False) -> None:
        location = self._places.key_place(*path) if key else self._places.place(*path)
        self._report.add(location, dotted(path), message, hint)


def _given(matrix: Matrix) -> Iterator[tuple[Path, str]]:
    """Yield the path and the name of each axis and of each value of an added row."""
    yield from ((axis.path, name) for name, axis in matrix.axes.items())
    yield from ((("matrix", "add", number, name), name) for number, row in enumerate(matrix.add) for name in row)
