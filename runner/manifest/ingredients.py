"""The texts of a manifest, compiled once, and what can be said of their variables before any row is rendered."""

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
    """`params` and the name; `muted` parameters are broken, and what follows from that is not told again."""

    def __init__(self, parsed: Parsed, report: Report) -> None:
        self._manifest = parsed.manifest
        self._places = parsed.places
        self._report = report
        self.muted: set[str] = set()
        params = parsed.manifest.params
        self.params = [Param(name, value, ("params", name), self._broken) for name, value in params.items()]
        self._output = self._named(parsed.manifest.output_name)

    def check(self, columns: Collection[str], conditions: Iterable[Condition]) -> None:
        """Tells of every name that nothing provides; texts and conditions with such a name count as broken."""
        matrix = self._manifest.matrix
        for path, name in _given(matrix):
            if name in columns:
                self._add(path, "is the name of a column of `items` as well", "rename one of them", key=True)
        for name in sorted(set(columns) & set(COUNTERS)):
            self._add(("items",), f"the column `{name}` has the name of a variable every template knows", "rename it")
        known = {*columns, *(name for _, name in _given(matrix)), *(name for rule in matrix.set for name in rule.then)}
        for param in self.params:
            if sum(not self._knows(text, {*known, *COUNTERS}) for text in param.texts):
                self._mute(param)
        if self._output and not self._knows(self._output, {*known, *COUNTERS, "key"}):
            self._output = None
        self._tell_braces({*known, *COUNTERS})
        for condition in conditions:
            self._compare(condition, {*known, *CHOICES})

    @property
    def named(self) -> frozenset[str]:
        """The variables of all texts."""
        texts = [*(text for param in self.params for text in param.texts), *([self._output] if self._output else [])]
        return frozenset(name for text in texts for name in text.template.names)

    def namer(self, varying: Iterable[str] = ()) -> Namer:
        """Makes the names; the default ones tell of the `varying` variables."""
        source = self._manifest.output_name
        if self._output:
            return Namer(source, self._output.template)
        uses = {param.name: param.uses for param in self.params}
        return Namer(None if source is None or is_template(source) else source, None, tuple(varying), uses)

    def _tell_braces(self, known: Collection[str]) -> None:
        texts = [(param.value, ("params", param.name)) for param in self.params]
        for value, path in [*texts, (self._manifest.output_name, _NAME)]:
            for where, written, name in slips(value, path, known):
                hint = f"a variable is written {{{{ {name} }}}}"
                place = self._places.place(*where)
                self._report.add(place, dotted(where), f"`{written}` stays as it stands", hint, warn=True)

    def _compare(self, condition: Condition, known: set[str]) -> None:
        for name in sorted(condition.names - known):
            self._add((*condition.path, name), "no column, axis or added value is called so",
                      closest(name, known, "there are"), key=True)  # fmt: skip
            condition.matched = True  # what follows from that is not told again

    def _named(self, source: str | None) -> Text | None:
        if source is None or not is_template(source):
            return None
        try:
            return Text(_NAME, Template(source))
        except TemplateError as error:
            self._broken(_NAME, error)
            return None

    def _knows(self, text: Text, known: set[str]) -> bool:
        unknown = sorted(text.template.names - known)
        for name in unknown:
            self._add(text.path, f"unknown variable `{name}`", closest(name, known, "the variables are"))
        return not unknown

    def _mute(self, param: Param) -> None:
        param.freeze()
        self.muted.add(param.name)

    def _broken(self, path: Path, error: TemplateError) -> None:
        self._add(path, error.message, error.hint)
        self.muted.add(str(path[1]))

    def _add(self, path: Path, message: str, hint: str, *, key: bool = False) -> None:
        place = self._places.key_place(*path) if key else self._places.place(*path)
        self._report.add(place, dotted(path), message, hint)


def _given(matrix: Matrix) -> Iterator[tuple[Path, str]]:
    """What the matrix multiplies by, and where each name stands."""
    yield from ((axis.path, name) for name, axis in matrix.axes.items())
    yield from ((("matrix", "add", number, name), name) for number, row in enumerate(matrix.add) for name in row)
