"""The texts of a manifest, compiled once, and what can be said of their variables before any row is rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.content import COUNTERS
from runner.manifest.naming import Namer
from runner.manifest.recipe import Param, Path, Text
from runner.manifest.teach import closest
from runner.manifest.templates import Template, TemplateError, is_template
from runner.manifest.values import dotted

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    def check(self, columns: Iterable[str]) -> None:
        """Tells of every variable that nothing provides; its texts count as broken."""
        axes, columns = self._manifest.matrix, set(columns)
        for name in axes.keys() & columns:
            self._add(("matrix", name), "is the name of a column of `items` as well", "rename one of them", key=True)
        for name in sorted(columns & set(COUNTERS)):
            self._add(("items",), f"the column `{name}` has the name of a variable every template knows", "rename it")
        known = {*axes, *columns, *COUNTERS}
        for param in self.params:
            if sum(not self._knows(text, known) for text in param.texts):
                self._mute(param)
        if self._output and not self._knows(self._output, known | {"key"}):
            self._output = None

    def namer(self) -> Namer:
        source = self._manifest.output_name
        if self._output:
            return Namer(source, self._output.template)
        return Namer(None if source is None or is_template(source) else source, None)

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
