"""How parameters come about: templates of `params`, then columns, then axes, for one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runner.manifest.templates import Template, TemplateError, is_template

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from runner.errors import Mistake

Path = tuple[str | int, ...]
#: axes and columns that choose the model and set no parameter
CHOICES = ("provider", "model")


class Shape(Protocol):
    """What the catalogue knows of one model."""

    @property
    def operation(self) -> str: ...

    @property
    def code(self) -> str:
        """What the provider calls the model."""

    def takes(self, name: str) -> bool:
        """Whether `name` is one of its parameters, in the provider's words or the common ones."""

    def request(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
        """The parameters in the provider's own names, and what is wrong, by the names that were given."""

    def slots(self, request: Mapping[str, Any]) -> int: ...


class Catalogue(Protocol):
    """What is known of all models."""

    def find(self, provider: str, model: str, *, unchecked: bool) -> Shape:
        """The shape of a model; UsageError where there is none."""


class Text:
    """One template of a manifest and where it stands."""

    def __init__(self, path: Path, template: Template) -> None:
        self.path = path
        self.template = template

    def render(self, variables: Mapping[str, Any]) -> str:
        try:
            return self.template.render(variables)
        except TemplateError as error:
            error.path = self.path
            raise


class Param:
    """One entry of `params`; its texts may be templates at any depth."""

    def __init__(self, name: str, value: Any, path: Path, broken: Callable[[Path, TemplateError], None]) -> None:
        self.name = name
        self.value = value
        self.texts: list[Text] = []
        self._broken = broken
        self._make = self._compile(value, path)

    @property
    def constant(self) -> bool:
        return self._make is None

    @property
    def uses(self) -> frozenset[str]:
        return frozenset(name for text in self.texts for name in text.template.names)

    def freeze(self) -> None:
        """Takes its texts for what they are: a template of it is broken."""
        self._make = None

    def render(self, variables: Mapping[str, Any]) -> Any:
        return self._make(variables) if self._make else self.value

    def _compile(self, value: Any, path: Path) -> Callable[[Mapping[str, Any]], Any] | None:
        match value:
            case str() if is_template(value):
                return self._text(value, path)
            case dict():
                return _made_dict(value, {key: self._compile(each, (*path, key)) for key, each in value.items()})
            case list():
                return _made_list(value, [self._compile(each, (*path, number)) for number, each in enumerate(value)])
            case _:
                return None

    def _text(self, value: str, path: Path) -> Callable[[Mapping[str, Any]], Any] | None:
        try:
            self.texts.append(Text(path, Template(value)))
        except TemplateError as error:
            self._broken(path, error)
            return None
        return self.texts[-1].render


def _made_dict(value: dict[str, Any], makers: dict[str, Any]) -> Callable[[Mapping[str, Any]], Any] | None:
    if not any(makers.values()):
        return None
    return lambda variables: {key: make(variables) if make else value[key] for key, make in makers.items()}


def _made_list(value: list[Any], makers: list[Any]) -> Callable[[Mapping[str, Any]], Any] | None:
    if not any(makers):
        return None
    return lambda variables: [make(variables) if make else each for make, each in zip(makers, value, strict=True)]


class _Asked(dict[str, bool]):
    """What is true of which names, asked once each."""

    def __init__(self, ask: Callable[[str], bool]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, name: str) -> bool:
        self[name] = self._ask(name)
        return self[name]


class Recipe:
    """The parameters of a task of one model; `taken` are the names that no column can set."""

    def __init__(self, provider: str, shape: Shape, params: Sequence[Param], taken: Collection[str]) -> None:
        self.provider = provider
        self.shape = shape
        self._constants = {param.name: param.value for param in params if param.constant}
        self._templated = [param for param in params if not param.constant]
        named = {param.name for param in params}
        columns = {*named, *taken, *CHOICES}
        #: by name: whether what the matrix gives under it is a parameter here
        self.sets = _Asked(lambda name: name not in CHOICES and (name in named or shape.takes(name)))
        #: by name: whether a column of it is a parameter here
        self.fills = _Asked(lambda name: name not in columns and shape.takes(name))
        #: names that say nothing to this model; whoever finds one with a value takes it out
        self.unheeded: set[str] = set()

    def params(self, row: Mapping[str, Any], given: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        """What a task asks for; an empty cell sets nothing, and nothing in the matrix takes a parameter away.

        TemplateError where a text cannot be made.
        """
        made = dict(self._constants)
        fills, sets = self.fills, self.sets
        made |= {name: value for name, value in row.items() if fills[name] and value is not None and value != ""}
        for param in self._templated:
            if param.name not in given:
                made[param.name] = param.render(variables)
        made |= {name: value for name, value in given.items() if sets[name]}
        if None in given.values():
            return {name: value for name, value in made.items() if value is not None or name not in given}
        return made
