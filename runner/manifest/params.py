"""Build the parameters of a task for one model, from `params` with its templates, columns and the matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runner.manifest.identity import canonical
from runner.manifest.model import MODEL_KEYS
from runner.manifest.request_cache import RequestCache
from runner.manifest.templates import Template, TemplateError, is_template
from runner.text import plain_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from runner.errors import ParameterDiagnostic
    from runner.manifest.positions import KeyPath


class ModelDescription(Protocol):
    """The catalogue's description of one model."""

    @property
    def operation(self) -> str:
        """Return the name of the operation."""

    @property
    def code(self) -> str:
        """Return the provider's name of the model."""

    @property
    def endpoint(self) -> str:
        """Return where the provider takes requests for the model, whatever the spec calls the operation."""

    @property
    def implied(self) -> Mapping[str, Any]:
        """Return the value that each parameter has if a manifest does not set it, by the provider's names."""

    def takes(self, name: str) -> bool:
        """Return whether `name` is a parameter of the model, by the provider's name or the common one."""

    def parameter_names(self) -> Collection[str]:
        """Return the names of the model's parameters, the provider's and the common ones."""

    def provider_names(self) -> Collection[str]:
        """Return the names of the parameters of all models of the provider."""

    def request(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[ParameterDiagnostic]]:
        """Return the parameters by the provider's names, and diagnostics by the names in `params`.

        A number that remembers how it was written is that text where the model wants text, and else the number.
        """

    def own_name(self, name: str) -> str | None:
        """Return the provider's own name of a parameter, or None if the model has none that is called so."""

    def free_check(self, name: str) -> Callable[[Any], Any] | None:
        """Return the check of a parameter whose values, unless empty, are checked by themselves, else None.

        The check returns the value to send, or None if it is not right.
        """

    def slots(self, request: Mapping[str, Any]) -> int:
        """Return the number of the account's slots that a task takes."""


class ModelCatalogue(Protocol):
    """Descriptions of all models."""

    def find(self, provider: str, model: str, *, unchecked: bool) -> ModelDescription:
        """Return the description of a model. Raise UsageError if there is none."""


class LocatedTemplate:
    """Template of a manifest, and the path at which it is written."""

    def __init__(self, path: KeyPath, template: Template) -> None:
        self.path = path
        self.template = template

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the rendered text. Raise TemplateError with the path if that fails."""
        try:
            return self.template.render(variables)
        except TemplateError as error:
            error.path = self.path
            raise


class Param:
    """One entry of `params`, with templates at any depth of its value."""

    def __init__(
        self, name: str, value: Any, path: KeyPath, on_error: Callable[[KeyPath, TemplateError], None]
    ) -> None:
        self.name = name
        #: a number alone may be meant as text, and the model knows; inside of lists and mappings it is a number
        self.value = plain_numbers(value) if isinstance(value, dict | list) else value
        self.templates: list[LocatedTemplate] = []
        self._on_error = on_error
        self._renderer = self._compile(self.value, path)

    @property
    def is_constant(self) -> bool:
        """Return whether the value holds no template."""
        return self._renderer is None

    @property
    def variables(self) -> frozenset[str]:
        """Return the variables of all its templates."""
        return frozenset(name for located in self.templates for name in located.template.names)

    def disable_templates(self) -> None:
        """Render the value as it is written from now on, since one of its templates is broken."""
        self._renderer = None

    def render(self, variables: Mapping[str, Any]) -> Any:
        """Return the value with its templates rendered."""
        return self._renderer(variables) if self._renderer else self.value

    def _compile(self, value: Any, path: KeyPath) -> Callable[[Mapping[str, Any]], Any] | None:
        match value:
            case str() if is_template(value):
                try:
                    self.templates.append(LocatedTemplate(path, Template(value)))
                except TemplateError as error:
                    self._on_error(path, error)
                    return None
                return self.templates[-1].render
            case dict():
                return _dict_renderer(value, {key: self._compile(each, (*path, key)) for key, each in value.items()})
            case list():
                return _list_renderer(
                    value, [self._compile(each, (*path, number)) for number, each in enumerate(value)]
                )
            case _:
                return None


def _dict_renderer(value: dict[str, Any], renderers: dict[str, Any]) -> Callable[[Mapping[str, Any]], Any] | None:
    if not any(renderers.values()):
        return None
    return lambda variables: {key: render(variables) if render else value[key] for key, render in renderers.items()}


def _list_renderer(value: list[Any], renderers: list[Any]) -> Callable[[Mapping[str, Any]], Any] | None:
    if not any(renderers):
        return None
    return lambda variables: [
        render(variables) if render else each for render, each in zip(renderers, value, strict=True)
    ]


class _CachedPredicate(dict[str, bool]):
    """Answers of a predicate by name, each computed once."""

    def __init__(self, predicate: Callable[[str], bool]) -> None:
        super().__init__()
        self._predicate = predicate

    def __missing__(self, name: str) -> bool:
        self[name] = self._predicate(name)
        return self[name]


class RequestTemplate:
    """Template of the parameters of one model. Columns cannot set the names in `reserved`."""

    def __init__(
        self, provider: str, model: ModelDescription, params: Sequence[Param], reserved: Collection[str]
    ) -> None:
        self.provider = provider
        self.model = model
        self.endpoint = model.endpoint
        #: values that do not count for what is bought, in canonical form
        self.implied = {name: canonical(value) for name, value in model.implied.items()}
        self.constants = {param.name: param.value for param in params if param.is_constant}
        self.templated = [param for param in params if not param.is_constant]
        names = {param.name for param in params}
        not_columns = {*names, *reserved, *MODEL_KEYS}
        #: by name: true if a value of the matrix under this name sets a parameter of the model
        self.matrix_params = _CachedPredicate(
            lambda name: name not in MODEL_KEYS and (name in names or model.takes(name))
        )
        #: by name: true if a column of this name sets a parameter of the model
        self.column_params = _CachedPredicate(lambda name: name not in not_columns and model.takes(name))
        self.cache = RequestCache(self)
        #: names without effect on this model; the lint removes each one it has reported
        self.ignored: set[str] = set()

    def render_params(
        self, row: Mapping[str, Any], given: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the parameters of one task.

        An empty cell sets nothing, and None in the matrix removes a parameter. Raise TemplateError if a template cannot
        be rendered.
        """
        params = dict(self.constants)
        column_params, matrix_params = self.column_params, self.matrix_params
        params |= {
            name: value for name, value in row.items() if column_params[name] and value is not None and value != ""
        }
        for param in self.templated:
            if param.name not in given:
                params[param.name] = param.render(variables)
        params |= {name: value for name, value in given.items() if matrix_params[name]}
        if None in given.values():
            return {name: value for name, value in params.items() if value is not None or name not in given}
        return params
