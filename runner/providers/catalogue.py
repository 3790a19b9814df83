"""The models of a provider: their parameters, checked and put into the provider's own names before anything is sent."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

from runner.errors import Mistake, UsageError
from runner.providers import spec as specs
from runner.providers.expressions import compiled
from runner.providers.pictures import brought

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.providers.pictures import Pictures
    from runner.providers.spec import Model, Parameter, Spec

_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "object": "a mapping",
    "image": "the URL or the file of an image",
}


class Catalogue:
    """Every provider's models; `extra` is a directory with more specs, `pictures` is where local ones are found."""

    def __init__(self, extra: Path | None = None, pictures: Pictures | None = None) -> None:
        self._extra, self._pictures = extra, pictures

    def find(self, provider: str, model: str, *, unchecked: bool = False) -> Shape:
        """The shape of that model's requests; raises UsageError with the closest names."""
        spec = specs.load(provider, self._extra)
        found = {name: entry for name, entry in spec.models.items() if model in _names(name, entry)}
        if len(found) > 1:
            choices = ", ".join(sorted(found))
            raise UsageError(f"{model} is the name of several models", hint=f"write one of: {choices}")
        if found:
            ((name, entry),) = found.items()
            return Shape(spec, entry.operation, _code(name, entry), entry, self._pictures)
        if unchecked:
            return _unchecked(spec, model, self._pictures)
        raise UsageError(f"{provider} has no model {model!r}", hint=_closest(model, spec))


def _code(name: str, entry: Model) -> str:
    return name.removeprefix(f"{entry.operation}/")


def _names(name: str, entry: Model) -> tuple[str, str]:
    code = _code(name, entry)
    return code, f"{entry.operation}/{code}"


def _closest(model: str, spec: Spec) -> str:
    every = {alias: name for name, entry in spec.models.items() for alias in (name, *_names(name, entry))}
    near = list(dict.fromkeys(every[hit] for hit in difflib.get_close_matches(model, every, n=6, cutoff=0.5)))[:3]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}`runner models {spec.name}` lists them; `unchecked: true` lets any code through"


def _unchecked(spec: Spec, model: str, pictures: Pictures | None) -> Shape:
    operation, _, code = model.rpartition("/")
    if operation not in spec.operations:
        choices = " or ".join(f"{name}/{code}" for name in spec.operations)
        raise UsageError(f"{model} is not in the catalogue, so its operation is unknown", hint=f"write {choices}")
    return Shape(spec, operation, code, None, pictures)


class Shape:
    """What one model takes; implements `manifest.expand.Shape`."""

    def __init__(
        self, spec: Spec, operation: str, code: str, model: Model | None, pictures: Pictures | None = None
    ) -> None:
        self.spec, self.operation, self.code = spec, operation, code
        self._found = pictures
        self._parameters = dict(model.parameters) if model else {}
        self._open = model is None
        self._refuse = [(compiled(refusal.when), refusal.say) for refusal in (model.refuse if model else ())]
        self._price = model.price if model else None
        usual = self._parameters if model else _usual_parameters(spec, operation)
        self._common = _common_names(usual)
        self._orders = _orders(self._parameters)
        self._choices = {own: _choices(parameter) for own, parameter in self._parameters.items()}
        self._images = {own: parameter for own, parameter in usual.items() if _takes_images(parameter)}

    def takes(self, name: str) -> bool:
        """Whether this is one of the model's own or common parameter names."""
        return name in self._parameters or name in self._common

    def request(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
        """The parameters in the provider's own names, and every mistake by the name that was written."""
        mistakes: list[Mistake] = []
        gathered = self._gather(params, mistakes)
        request = {
            own: value for own in sorted(gathered) if (value := self._value(own, gathered[own], mistakes)) is not None
        }
        self._complete(request, mistakes, gathered)
        return request, mistakes

    @property
    def images(self) -> tuple[str, ...]:
        """Its own names of what takes images."""
        return tuple(self._images)

    def slots(self, request: Mapping[str, Any]) -> int:
        """How much of the account's window one such task takes."""
        name = self.spec.operations[self.operation].slots
        value = request.get(name, 1) if name else 1
        return value if isinstance(value, int) and value > 0 else 1

    def cost(self, request: Mapping[str, Any]) -> float | None:
        """What one such task costs, in the provider's unit; None: the catalogue does not know."""
        price = self._price
        if price is None:
            return None
        amount = price.amount if price.by is None else price.amounts.get(str(request.get(price.by)))
        for name in price.times:
            factor = _factor(request.get(name, 1))
            amount = None if amount is None or factor is None else amount * factor
        return amount

    def _gather(self, params: Mapping[str, Any], mistakes: list[Mistake]) -> dict[str, tuple[str, Any]]:
        """Own name to (name as written, value); several common names may fill one list."""
        gathered: dict[str, tuple[str, Any]] = {}
        orders = self._orders
        for name in sorted(params, key=lambda name: orders.get(name) or (-1, name)):
            value = params[name]
            if value is None:
                continue
            own = name if name in self._parameters else self._common.get(name, name if self._open else None)
            if own is None:
                mistakes.append(Mistake(name, f"is not a parameter of {self.code}", self._hint(name)))
            elif own in gathered and not self._joins(own, gathered[own][0], name):
                mistakes.append(Mistake(name, f"says the same as {gathered[own][0]}", "leave one of them out"))
            elif own in gathered:
                gathered[own] = (gathered[own][0], [*gathered[own][1], value])
            else:
                gathered[own] = (name, [value] if self._wraps(own, name) else value)
        return gathered

    def _wraps(self, own: str, name: str) -> bool:
        return own != name and own in self._parameters and self._parameters[own].type == "list"

    def _joins(self, own: str, first: str, second: str) -> bool:
        return self._wraps(own, first) and self._wraps(own, second)

    def _value(self, own: str, given: tuple[str, Any], mistakes: list[Mistake]) -> Any:
        name, value = given
        parameter = self._parameters.get(own)
        if parameter is not None:
            value = _coerced(parameter, value, self._choices[own])
        wrong = _wrong(parameter, value) if parameter else None
        if wrong is None and own in self._images and (parameter or name in self._common):
            value, wrong = self._brought(self._images[own], value)
        if wrong:
            mistakes.append(Mistake(name, *wrong))
            return None
        return value

    def _brought(self, parameter: Parameter, value: Any) -> tuple[Any, tuple[str, str] | None]:
        """An image or a list of them, as a request holds it; and what is wrong with the first that cannot be sent."""
        images = self.spec.images
        limits = images.limits.with_(parameter.image) if images else None
        if not isinstance(value, list):
            return brought(value, limits, self._found) if isinstance(value, str) else (value, None)
        every = [
            brought(each, limits, self._found) if isinstance(each, str) else (each, _not_a_url(each)) for each in value
        ]
        return [each for each, _ in every], next((wrong for _, wrong in every if wrong), None)

    def _complete(self, request: dict[str, Any], mistakes: list[Mistake], gathered: Mapping[str, Any]) -> None:
        for own, parameter in self._parameters.items():
            if own not in gathered and parameter.default is not None:
                request[own] = parameter.default
            elif own not in gathered and parameter.required:
                name = next(iter(parameter.common), own)
                cure = f"add {name} to params{_expected(parameter)}"
                mistakes.append(Mistake("", f"{self.code} needs {name}", cure, needs=(*parameter.common, own)))
        if not mistakes:
            mistakes += [Mistake("", f"{self.code} {say}") for when, say in self._refuse if when.search(request)]

    def _hint(self, name: str) -> str:
        every = sorted({*self._parameters, *self._common})
        near = difflib.get_close_matches(name, every, n=1)
        return f"did you mean {near[0]}?" if near else f"it takes {', '.join(every)}"


def _factor(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _common_names(parameters: Mapping[str, Parameter]) -> dict[str, str]:
    return {common: own for own, parameter in parameters.items() for common in parameter.common}


def _usual_parameters(spec: Spec, operation: str) -> dict[str, Parameter]:
    """What the operation's catalogued models take: good enough to translate common names for an unknown one."""
    return {
        own: parameter
        for model in reversed(spec.models.values())
        if model.operation == operation
        for own, parameter in model.parameters.items()
    }


def _orders(parameters: Mapping[str, Parameter]) -> dict[str, tuple[int, str]]:
    """Where a common name stands among those of its parameter; whatever has no place comes first."""
    return {name: (place, name) for parameter in parameters.values() for place, name in enumerate(parameter.common)}


def _choices(parameter: Parameter) -> dict[str, Any]:
    """Its values by how they are written; of two that are written alike, the first."""
    return {str(choice): choice for choice in reversed(parameter.choices or ())}


def _coerced(parameter: Parameter, value: Any, choices: Mapping[str, Any]) -> Any:
    """The value as the provider wants it: columns of a CSV are text, durations are text at Kling."""
    kind = parameter.type
    if parameter.choices is not None:
        return value if isinstance(value, bool) else choices.get(str(value), value)
    if isinstance(value, str) and kind in {"integer", "number"}:
        return _number(value, whole=kind == "integer")
    if kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and kind == "boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _number(text: str, *, whole: bool) -> Any:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        return text


def _wrong(parameter: Parameter, value: Any) -> tuple[str, str] | None:
    """What is wrong with the value and what was expected, or None."""
    if parameter.choices is not None:
        if value in parameter.choices and not isinstance(value, bool):
            return None
        return f"{_shown(value)} is not one of its values", f"expected {_listed(parameter.choices)}"
    if not _is(parameter.type, value):
        return f"{_shown(value)} is not {_KINDS[parameter.type]}", f"expected {_KINDS[parameter.type]}"
    return None if parameter.type == "image" else _out_of_range(parameter, value)


def _takes_images(parameter: Parameter) -> bool:
    return parameter.type == "image" or (parameter.type == "list" and "image" in parameter.common)


def _not_a_url(entry: Any) -> tuple[str, str]:
    return f"{_shown(entry)} is not a URL", "expected a list of URLs or files"


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        case "boolean":
            return isinstance(value, bool)
        case "list":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return isinstance(value, str)


def _out_of_range(parameter: Parameter, value: Any) -> tuple[str, str] | None:
    size = value if isinstance(value, int | float) else len(value)
    unit = "" if isinstance(value, int | float) else " entries" if isinstance(value, list) else " characters"
    low, high = parameter.min, parameter.max_length if parameter.max_length is not None else parameter.max
    if low is not None and size < low:
        return f"{_shown(value)} is too small", f"expected at least {low:g}{unit}"
    if high is not None and size > high:
        return f"{size}{unit} is too much", f"expected at most {high:g}{unit}"
    if value == "" and parameter.required:
        return "is empty", f"expected {_KINDS[parameter.type]}"
    return None


def _expected(parameter: Parameter) -> str:
    return f" ({_listed(parameter.choices)})" if parameter.choices else f" ({_KINDS[parameter.type]})"


def _listed(choices: tuple[Any, ...]) -> str:
    return ", ".join(str(choice) for choice in choices)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - one line of a terminal
