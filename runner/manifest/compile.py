"""Compile the templates of a manifest once, check their variables, and keep one request template for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.manifest.content_checks import BUILTIN_VARIABLES
from runner.manifest.diagnostics import closest_hint, describe_value, normalize_name
from runner.manifest.lint import find_wrong_braces
from runner.manifest.model import MODEL_KEYS
from runner.manifest.naming import OutputNamer
from runner.manifest.params import LocatedTemplate, Param, RequestTemplate
from runner.manifest.positions import dotted_path
from runner.manifest.templates import Template, TemplateError, is_template, variable_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from runner.manifest.combinations import Combination, Condition
    from runner.manifest.diagnostics import Diagnostics
    from runner.manifest.lint import UnusedInputs
    from runner.manifest.model import Manifest, Matrix
    from runner.manifest.params import ModelCatalogue
    from runner.manifest.parser import ParsedManifest
    from runner.manifest.positions import KeyPath
    from runner.manifest.provenance import Provenance

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
        #: whether a template or a name was reported, so that what the manifest uses is not known
        self.is_wrong = False
        #: column by the name that templates have for it, where its own is none: `Product_Name` for `Product Name`
        self.aliases: dict[str, str] = {}
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
        self.aliases = _aliases(columns, variables)
        variables |= self.aliases.keys()
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

    def used_aliases(self) -> dict[str, str]:
        """Return the aliases that a template uses."""
        names = self.names
        return {alias: column for alias, column in self.aliases.items() if alias in names}

    def create_namer(self, varying: Iterable[str] = ()) -> OutputNamer:
        """Return the namer of outputs. Default names show the values of the `varying` variables."""
        source = self._manifest.output_name
        if self._output_name:
            return OutputNamer(source, self._output_name.template, shards=self._manifest.output_shards)
        variables = {param.name: param.variables for param in self.params}
        constant = None if source is None or is_template(source) else source
        return OutputNamer(constant, None, tuple(varying), variables, shards=self._manifest.output_shards)

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
        self.is_wrong = self.is_wrong or not warn


def _aliases(columns: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Return the column by its name in templates, for each whose own name is none and that no other is called like."""
    found: dict[str, list[str]] = {}
    for column in columns:
        if not column.isidentifier() and (alias := variable_name(column)):
            found.setdefault(alias, []).append(column)
    return {alias: named[0] for alias, named in found.items() if len(named) == 1 and alias not in taken}


class RequestTemplates:
    """Request templates of the models of a job, each created at its first use."""

    def __init__(
        self,
        manifest: Manifest,
        catalogue: ModelCatalogue,
        params: list[Param],
        provenance: Provenance,
        unused: UnusedInputs,
    ) -> None:
        self._manifest = manifest
        self._catalogue = catalogue
        self._params = params
        self._provenance = provenance
        self._unused = unused
        #: provider and model of each row to which the matrix gives none; None where a column names it
        self._fixed: tuple[Any, Any] = manifest.provider or None, manifest.model or None
        self._templates: dict[tuple[Any, Any], RequestTemplate | None] = {}

    @property
    def is_complete(self) -> bool:
        """Return whether every model was found."""
        return None not in self._templates.values()

    def get(self, combination: Combination) -> RequestTemplate | None:
        """Return the request template of a combination. Report an unknown model and return None."""
        if combination.given or None in self._fixed:
            chosen = self._chosen_name("provider", combination), self._chosen_name("model", combination)
        else:
            chosen = self._fixed
        if not (isinstance(chosen[0], str) and isinstance(chosen[1], str)):
            self._templates["", ""] = None
            return self._create(*chosen, combination)
        if chosen not in self._templates:
            self._templates[chosen] = self._create(*chosen, combination)
        return self._templates[chosen]

    def _chosen_name(self, name: str, combination: Combination) -> Any:
        if name in combination.given:
            return combination.given[name]
        return getattr(self._manifest, name) or combination.row.values.get(name)

    def _create(self, provider: Any, model: Any, combination: Combination) -> RequestTemplate | None:
        if not (self._check_name("provider", provider, combination) and self._check_name("model", model, combination)):
            return None
        try:
            description = self._catalogue.find(provider, model, unchecked=self._manifest.unchecked)
        except UsageError as error:
            name = "model" if model in error.message else "provider"
            self._provenance.report_model_choice(name, combination, error.message, error.hint)
            return None
        template = RequestTemplate(provider, description, self._params, self._manifest.matrix.axes)
        self._unused.add_template(template)
        return template

    def _check_name(self, name: str, value: Any, combination: Combination) -> bool:
        if isinstance(value, str) and value:
            return True
        if value or self._is_missing_here(name, combination):
            message = f"expected the name of a {name}, found {describe_value(value)}"
            columns = combination.row.values
            similar = next((column for column in columns if column != name and normalize_name(column) == name), "")
            hint = f"call the column `{similar}` `{name}`" if similar else f"`runner {name}s` lists what there is"
            self._provenance.report_model_choice(name, combination, message, hint)
        return False

    def _is_missing_here(self, name: str, combination: Combination) -> bool:
        """Return whether to report a missing name here. If no task can have one, the parser has reported it."""
        source = self._manifest.items
        from_file = source is not None and source.file is not None
        return from_file or name in combination.row.values or self._manifest.matrix.provides(name)


def _matrix_names(matrix: Matrix) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the name of each axis and of each value of an added row."""
    yield from ((axis.path, name) for name, axis in matrix.axes.items())
    yield from ((("matrix", "add", number, name), name) for number, row in enumerate(matrix.add) for name in row)
