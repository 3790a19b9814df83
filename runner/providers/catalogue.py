"""Find the models of a provider, check their parameters and translate them into the provider's own names."""

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
    """Models of all providers. `extra` is a directory with more specs, `images` gives access to local image files."""

    def __init__(self, extra: Path | None = None, images: Pictures | None = None) -> None:
        self._extra, self._pictures = extra, images

    def find(self, provider: str, model: str, *, unchecked: bool = False) -> Shape:
        """Return the schema of a model. With `unchecked`, any model code of a known operation is accepted.

        Raises UsageError with the closest names if the model is unknown or its name is ambiguous.
        """
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
    known = {alias: name for name, entry in spec.models.items() for alias in (name, *_names(name, entry))}
    near = list(dict.fromkeys(known[hit] for hit in difflib.get_close_matches(model, known, n=6, cutoff=0.5)))[:3]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}`runner models {spec.name}` lists them; `unchecked: true` lets any code through"


def _unchecked(spec: Spec, model: str, images: Pictures | None) -> Shape:
    operation, _, code = model.rpartition("/")
    if operation not in spec.operations:
        choices = " or ".join(f"{name}/{code}" for name in spec.operations)
        raise UsageError(f"{model} is not in the catalogue, so its operation is unknown", hint=f"write {choices}")
    return Shape(spec, operation, code, None, images)


class Shape:
    """Parameters of one model. Implements the protocol `ModelDescription` of the package `manifest`."""

    def __init__(
        self, spec: Spec, operation: str, code: str, model: Model | None, images: Pictures | None = None
    ) -> None:
        self.spec, self.operation, self.code = spec, operation, code
        self._found = images
        self._parameters = dict(model.parameters) if model else {}
        self._open = model is None
        self._refuse = [(compiled(refusal.when), refusal.say) for refusal in (model.refuse if model else ())]
        self._price = model.price if model else None
        known = self._parameters if model else _usual_parameters(spec, operation)
        self._common = {common: own for own, parameter in known.items() for common in parameter.common}
        self._orders = _orders(self._parameters)
        self._choices = {own: _choices(parameter) for own, parameter in self._parameters.items()}
        self._images = {own: parameter for own, parameter in known.items() if _takes_images(parameter)}

    def takes(self, name: str) -> bool:
        """Return True if the model has a parameter of this name, either its own name or a common one."""
        return name in self._parameters or name in self._common

    def request(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
        """Return the parameters under the provider's own names, and all diagnostics under the names as written."""
        diagnostics: list[Mistake] = []
        gathered = self._gather(params, diagnostics)
        values = ((own, self._value(own, gathered[own], diagnostics)) for own in sorted(gathered))
        request = {own: value for own, value in values if value is not None}
        self._complete(request, diagnostics, gathered)
        return request, diagnostics

    @property
    def images(self) -> tuple[str, ...]:
        """Return the provider's own names of the parameters that accept images."""
        return tuple(self._images)

    def slots(self, request: Mapping[str, Any]) -> int:
        """Return how many slots of the account's window a task with this request takes."""
        name = self.spec.operations[self.operation].slots
        value = request.get(name, 1) if name else 1
        return value if isinstance(value, int) and value > 0 else 1

    def cost(self, request: Mapping[str, Any]) -> float | None:
        """Return the price of a task with this request in the provider's unit, or None if it is unknown."""
        price = self._price
        if price is None:
            return None
        amount = price.amount if price.by is None else price.amounts.get(str(request.get(price.by)))
        for name in price.times:
            factor = _factor(request.get(name, 1))
            amount = None if amount is None or factor is None else amount * factor
        return amount

    def _gather(self, params: Mapping[str, Any], diagnostics: list[Mistake]) -> dict[str, tuple[str, Any]]:
        """Return own name -> (name as written, value). Several common names may fill one list."""
        gathered: dict[str, tuple[str, Any]] = {}
        orders = self._orders
        for name in sorted(params, key=lambda name: orders.get(name) or (-1, name)):
            value = params[name]
            if value is None:
                continue
            own = name if name in self._parameters else self._common.get(name, name if self._open else None)
            if own is None:
                diagnostics.append(Mistake(name, f"is not a parameter of {self.code}", self._hint(name)))
            elif own in gathered and not self._joins(own, gathered[own][0], name):
                diagnostics.append(Mistake(name, f"says the same as {gathered[own][0]}", "leave one of them out"))
            elif own in gathered:
                gathered[own] = (gathered[own][0], [*gathered[own][1], value])
            else:
                gathered[own] = (name, [value] if self._wraps(own, name) else value)
        return gathered

    def _wraps(self, own: str, name: str) -> bool:
        return own != name and own in self._parameters and self._parameters[own].type == "list"

    def _joins(self, own: str, first: str, second: str) -> bool:
        return self._wraps(own, first) and self._wraps(own, second)

    def _value(self, own: str, given: tuple[str, Any], diagnostics: list[Mistake]) -> Any:
        name, value = given
        parameter = self._parameters.get(own)
        if parameter is not None:
            value = _coerced(parameter, value, self._choices[own])
        violation = _wrong(parameter, value) if parameter else None
        if violation is None and own in self._images and (parameter or name in self._common):
            value, violation = self._brought(self._images[own], value)
        if violation:
            diagnostics.append(Mistake(name, *violation))
            return None
        return value

    def _brought(self, parameter: Parameter, value: Any) -> tuple[Any, tuple[str, str] | None]:
        """Return an image or a list of images as a request holds it, and the first violation or None."""
        spec = self.spec.images
        limits = spec.limits.with_(parameter.image) if spec else None
        if not isinstance(value, list):
            return brought(value, limits, self._found) if isinstance(value, str) else (value, None)
        entries = [
            brought(entry, limits, self._found) if isinstance(entry, str) else (entry, _not_a_url(entry))
            for entry in value
        ]
        return [entry for entry, _ in entries], next((violation for _, violation in entries if violation), None)

    def _complete(self, request: dict[str, Any], diagnostics: list[Mistake], gathered: Mapping[str, Any]) -> None:
        for own, parameter in self._parameters.items():
            if own not in gathered and parameter.default is not None:
                request[own] = parameter.default
            elif own not in gathered and parameter.required:
                name = next(iter(parameter.common), own)
                hint = f"add {name} to params{_expected(parameter)}"
                diagnostics.append(Mistake("", f"{self.code} needs {name}", hint, needs=(*parameter.common, own)))
        if not diagnostics:
            diagnostics += [Mistake("", f"{self.code} {say}") for when, say in self._refuse if when.search(request)]

    def _hint(self, name: str) -> str:
        known = sorted({*self._parameters, *self._common})
        near = difflib.get_close_matches(name, known, n=1)
        return f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"


def _factor(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _usual_parameters(spec: Spec, operation: str) -> dict[str, Parameter]:
    """Return the parameters of all catalogued models of an operation, to translate common names for other models."""
    return {
        own: parameter
        for model in reversed(spec.models.values())
        if model.operation == operation
        for own, parameter in model.parameters.items()
    }


def _orders(parameters: Mapping[str, Parameter]) -> dict[str, tuple[int, str]]:
    """Return the sort key of every common name: its position among the common names of its parameter, and the name."""
    return {name: (at, name) for parameter in parameters.values() for at, name in enumerate(parameter.common)}


def _choices(parameter: Parameter) -> dict[str, Any]:
    """Return the choices of a parameter by their text. Of two choices with the same text, the first counts."""
    return {str(choice): choice for choice in reversed(parameter.choices or ())}


def _coerced(parameter: Parameter, value: Any, choices: Mapping[str, Any]) -> Any:
    """Convert a value to the type of its parameter. CSV columns are all text, and Kling expects durations as text."""
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
    """Return what is wrong with the value and what is expected, or None."""
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
