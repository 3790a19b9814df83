"""Find the models of a provider, check their parameters and translate them into the provider's own names."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import ParameterDiagnostic, UsageError
from runner.providers import spec as specs
from runner.providers.expressions import compile_expression
from runner.providers.images import resolve_image, shortened_repr
from runner.providers.spreadsheet_values import spreadsheet_damage
from runner.text import WRITTEN_TYPES, plain_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from runner.providers.images import ImageFiles
    from runner.providers.spec import Model, Parameter, Refusal, Spec

#: checked values, and orders of names, that one model keeps
_MOST_KEPT = 1_000
#: types of values that may be kept, where equal ones are the same to JSON too; characters of a text that may
_PLAIN, _SHORT = frozenset({int, bool}), 32
#: a refusal that asks only which values there are
_ONLY_TRUTH = re.compile(r"[\w\s&|!()]+")
_WHOLE = re.compile(r"-?[0-9]{1,15}\.0+", re.ASCII)
#: types of parameters in the words of messages
TYPE_NAMES = {
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

    def __init__(self, extra: Path | None = None, images: ImageFiles | None = None) -> None:
        self._extra, self._images = extra, images

    def find(self, provider: str, model: str, *, unchecked: bool = False) -> ModelSchema:
        """Return the schema of a model. With `unchecked`, any model code of a known operation is accepted.

        Raise UsageError with the closest names if the model is unknown or its name is ambiguous.
        """
        spec = specs.load(provider, self._extra)
        found = {name: entry for name, entry in spec.models.items() if model in _aliases(name, entry)}
        if len(found) > 1:
            choices = ", ".join(sorted(found))
            raise UsageError(f"{model} is the name of several models", hint=f"write one of: {choices}")
        if found:
            ((name, entry),) = found.items()
            return ModelSchema(spec, entry.operation, _code(name, entry), entry, self._images)
        if not unchecked:
            raise UsageError(f"{provider} has no model {model!r}", hint=_suggest_models(model, spec))
        operation, _, code = model.rpartition("/")
        if operation not in spec.operations:
            choices = " or ".join(f"{name}/{code}" for name in spec.operations)
            raise UsageError(f"{model} is not in the catalogue, so its operation is unknown", hint=f"write {choices}")
        return ModelSchema(spec, operation, code, None, self._images)


def _code(name: str, entry: Model) -> str:
    return name.removeprefix(f"{entry.operation}/")


def _aliases(name: str, entry: Model) -> tuple[str, str]:
    code = _code(name, entry)
    return code, f"{entry.operation}/{code}"


def _suggest_models(model: str, spec: Spec) -> str:
    known = {alias: name for name, entry in spec.models.items() for alias in (name, *_aliases(name, entry))}
    near = list(dict.fromkeys(known[hit] for hit in difflib.get_close_matches(model, known, n=6, cutoff=0.5)))[:3]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}`runner models {spec.name}` lists them; `unchecked: true` lets any code through"


class ModelSchema:
    """Parameters of one model. Implements the protocol `ModelDescription` of the package `manifest`."""

    def __init__(
        self, spec: Spec, operation: str, code: str, model: Model | None, images: ImageFiles | None = None
    ) -> None:
        self.spec, self.operation, self.code = spec, operation, code
        self._image_files = images
        self._parameters = dict(model.parameters) if model else {}
        self._is_unchecked = model is None
        self._refusals = [
            (compile_expression(refusal.when), refusal.say) for refusal in (model.refuse if model else ())
        ]
        self._price = model.price if model else None
        #: own names of parameters whose values, and not only whether there is one, matter beyond their own check
        self._involved = {spec.operations[operation].slots, *_compared_names(model.refuse if model else ())}
        known = self._parameters if model else _catalogued_parameters(spec, operation)
        self._common = {common: own for own, parameter in known.items() for common in parameter.common}
        self._fill_order = _fill_order(self._parameters)
        self._choices = {own: _choices(parameter) for own, parameter in self._parameters.items()}
        self._image_parameters = {own: parameter for own, parameter in known.items() if _takes_images(parameter)}
        #: the same values stand in most rows of a table: by name, type and value, short ones that are right
        self._checked: dict[tuple[str, type, Any], Any] = {}
        #: by names as they are written, the order in which they are gathered
        self._orders: dict[tuple[str, ...], list[str]] = {}

    @property
    def endpoint(self) -> str:
        """Return where requests are sent: the path, and the constants that tell operations of one path apart."""
        operation = self.spec.operations[self.operation]
        others = [each for each in self.spec.operations.values() if each.path == operation.path]
        apart = {
            name: value
            for name, value in operation.body.items()
            if any(each.body.get(name) != value for each in others)
        }
        constants = orjson.dumps(apart, option=orjson.OPT_SORT_KEYS).decode() if apart else ""
        return f"{operation.path} {constants}".rstrip()

    @property
    def implied(self) -> dict[str, Any]:
        """Return the value that each parameter has if a manifest does not set it, by the provider's own names."""
        values = {
            own: parameter.assumed if parameter.default is None else parameter.default
            for own, parameter in self._parameters.items()
        }
        return {own: value for own, value in values.items() if value is not None}

    def takes(self, name: str) -> bool:
        """Return True if the model has a parameter of this name, either its own name or a common one."""
        return name in self._parameters or name in self._common

    def parameter_names(self) -> set[str]:
        """Return the names of the parameters, the provider's own and the common ones."""
        return {*self._parameters, *self._common}

    def provider_names(self) -> set[str]:
        """Return the names of the parameters of all models of the provider."""
        parameters = [pair for model in self.spec.models.values() for pair in model.parameters.items()]
        return {name for own, parameter in parameters for name in (own, *parameter.common)}

    def own_name(self, name: str) -> str | None:
        """Return the provider's own name of a parameter, or None if the model has none that is called so."""
        return name if name in self._parameters else self._common.get(name, name if self._is_unchecked else None)

    def free_check(self, name: str) -> Callable[[Any], Any] | None:
        """Return the check of a parameter whose values, unless empty, are checked by themselves, else None.

        The check returns the value as a request holds it, or None if it is not right.
        """
        own = self.own_name(name)
        parameter = self._parameters.get(own) if own is not None else None
        if own is None or parameter is None or parameter.choices is not None or own in self._involved:
            return None
        if parameter.type == "string" and own not in self._image_parameters:
            low = 0 if parameter.min is None else parameter.min
            high = parameter.max_length if parameter.max_length is not None else parameter.max
            most = math.inf if high is None else high
            return lambda value: value if type(value) is str and low <= len(value) <= most else None
        if parameter.type in {"integer", "image"}:
            return lambda value: self._alone(own, value)
        return None

    def _alone(self, own: str, value: Any) -> Any:
        """Return a value as a request holds it, or None if it is not right."""
        diagnostics: list[ParameterDiagnostic] = []
        checked = self._checked_value(own, (own, value), diagnostics)
        return None if diagnostics else checked

    def request(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[ParameterDiagnostic]]:
        """Return the parameters under the provider's own names, and all diagnostics under the names as written."""
        diagnostics: list[ParameterDiagnostic] = []
        gathered = self._gather(params, diagnostics)
        values = ((own, self._checked_value(own, gathered[own], diagnostics)) for own in sorted(gathered))
        request = {own: value for own, value in values if value is not None}
        self._complete(request, diagnostics, gathered)
        return request, diagnostics

    @property
    def images(self) -> tuple[str, ...]:
        """Return the provider's own names of the parameters that accept images."""
        return tuple(self._image_parameters)

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

    def _gather(self, params: Mapping[str, Any], diagnostics: list[ParameterDiagnostic]) -> dict[str, tuple[str, Any]]:
        """Return own name -> (name as written, value). Several common names may fill one list."""
        gathered: dict[str, tuple[str, Any]] = {}
        for name in self._gathering_order(tuple(params)):
            value = params[name]
            if value is None:
                continue
            own = self.own_name(name)
            if own is None:
                diagnostics.append(ParameterDiagnostic(name, f"is not a parameter of {self.code}", self._hint(name)))
            elif own in gathered and not self._share_list(own, gathered[own][0], name):
                message = f"says the same as {gathered[own][0]}"
                diagnostics.append(ParameterDiagnostic(name, message, "leave one of them out"))
            elif own in gathered:
                gathered[own] = (gathered[own][0], [*gathered[own][1], value])
            else:
                gathered[own] = (name, [value] if self._is_list_entry(own, name) else value)
        return gathered

    def _gathering_order(self, names: tuple[str, ...]) -> list[str]:
        """Return the names by their parameters, and the common names of one parameter in its order."""
        found = self._orders.get(names)
        if found is None:
            orders = self._fill_order
            found = sorted(names, key=lambda name: orders.get(name) or (-1, name))
            if len(self._orders) < _MOST_KEPT:
                self._orders[names] = found
        return found

    def _is_list_entry(self, own: str, name: str) -> bool:
        return own != name and own in self._parameters and self._parameters[own].type == "list"

    def _share_list(self, own: str, first: str, second: str) -> bool:
        return self._is_list_entry(own, first) and self._is_list_entry(own, second)

    def _checked_value(self, own: str, given: tuple[str, Any], diagnostics: list[ParameterDiagnostic]) -> Any:
        name, value = given
        kind = type(value)
        is_short = kind in _PLAIN or (kind is str and len(value) <= _SHORT)
        known = self._checked.get((own, kind, value)) if is_short else None
        if known is not None:
            return known
        parameter = self._parameters.get(own)
        if parameter is not None:
            value = _coerce(parameter, value, self._choices[own])
        if kind is not str:
            value = plain_numbers(value)
        violation = _violation(parameter, value) if parameter else None
        if violation is None and own in self._image_parameters and (parameter or name in self._common):
            value, violation = self._resolve_images(self._image_parameters[own], value)
        if violation:
            diagnostics.append(ParameterDiagnostic(name, *violation))
            return None
        if is_short and own not in self._image_parameters and len(self._checked) < _MOST_KEPT:
            self._checked[own, kind, given[1]] = value
        return value

    def _resolve_images(self, parameter: Parameter, value: Any) -> tuple[Any, tuple[str, str] | None]:
        """Return an image or a list of images as a request holds it, and the first violation or None."""
        spec = self.spec.images
        limits = spec.limits.merge(parameter.image) if spec else None
        inline = spec is not None and spec.send == "base64"
        if not isinstance(value, list):
            if not isinstance(value, str):
                return value, None
            return resolve_image(value, limits, self._image_files, inline=inline)
        entries, violations = [], []
        for entry in value:
            if isinstance(entry, str):
                resolved, violation = resolve_image(entry, limits, self._image_files, inline=inline)
            else:
                resolved = entry
                violation = (f"{shortened_repr(entry)} is not a URL", "expected a list of URLs or files")
            entries.append(resolved)
            violations.append(violation)
        return entries, next(filter(None, violations), None)

    def _complete(
        self, request: dict[str, Any], diagnostics: list[ParameterDiagnostic], gathered: Mapping[str, Any]
    ) -> None:
        for own, parameter in self._parameters.items():
            if own not in gathered and parameter.default is not None:
                request[own] = parameter.default
            elif own not in gathered and parameter.required:
                name = next(iter(parameter.common), own)
                expected = _join_choices(parameter.choices) if parameter.choices else TYPE_NAMES[parameter.type]
                hint = f"add {name} to params ({expected})"
                needs = (*parameter.common, own)
                diagnostics.append(ParameterDiagnostic("", f"{self.code} needs {name}", hint, needs=needs))
        if not diagnostics:
            diagnostics += [
                ParameterDiagnostic("", f"{self.code} {say}") for when, say in self._refusals if when.search(request)
            ]

    def _hint(self, name: str) -> str:
        known = sorted(self.parameter_names())
        near = difflib.get_close_matches(name, known, n=1)
        return f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"


def _compared_names(refusals: Iterable[Refusal]) -> set[str]:
    """Return the names in the refusals that ask for more than whether there is a value."""
    texts = [refusal.when for refusal in refusals if not _ONLY_TRUTH.fullmatch(refusal.when)]
    return {name for text in texts for name in re.findall(r"\w+", text)}


def _factor(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _catalogued_parameters(spec: Spec, operation: str) -> dict[str, Parameter]:
    """Return the parameters of all catalogued models of an operation, to translate common names for other models."""
    return {
        own: parameter
        for model in reversed(spec.models.values())
        if model.operation == operation
        for own, parameter in model.parameters.items()
    }


def _fill_order(parameters: Mapping[str, Parameter]) -> dict[str, tuple[int, str]]:
    """Return the sort key of every common name: its position among the common names of its parameter, and the name."""
    return {name: (at, name) for parameter in parameters.values() for at, name in enumerate(parameter.common)}


def _choices(parameter: Parameter) -> dict[str, Any]:
    """Return the choices of a parameter by their text. Of two choices with the same text, the first counts."""
    return {str(choice): choice for choice in reversed(parameter.choices or ())}


def _coerce(parameter: Parameter, value: Any, choices: Mapping[str, Any]) -> Any:
    """Convert a value to the type of its parameter. CSV columns are all text, and Kling expects durations as text."""
    kind = parameter.type
    if type(value) in WRITTEN_TYPES:
        if kind == "string" and parameter.choices is None:
            return str(value)  # `1.10` is not 1.1
        as_written, value = value, plain_numbers(value)
        value = choices.get(str(as_written), value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        # how pandas writes whole numbers of a column that has an empty cell
        whole = value.partition(".")[0]
        value = whole if kind == "integer" or (value not in choices and whole in choices) else value
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if parameter.choices is not None:
        return value if isinstance(value, bool) else choices.get(str(value), value)
    if isinstance(value, str) and kind in {"integer", "number"}:
        try:
            return int(value) if kind == "integer" else float(value)
        except ValueError:
            return value
    if kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and kind == "boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _violation(parameter: Parameter, value: Any) -> tuple[str, str] | None:
    """Return what is wrong with the value and what is expected, or None."""
    if parameter.choices is not None:
        if value in parameter.choices and not isinstance(value, bool):
            return None
        message = f"{shortened_repr(value)} is not one of its values"
        return _with_cause(value, parameter.choices, message, f"expected {_join_choices(parameter.choices)}")
    if not _has_type(parameter.type, value):
        kind = TYPE_NAMES[parameter.type]
        return _with_cause(value, (), f"{shortened_repr(value)} is not {kind}", f"expected {kind}")
    return None if parameter.type == "image" else _range_violation(parameter, value)


def _with_cause(value: Any, choices: tuple[Any, ...], message: str, hint: str) -> tuple[str, str]:
    """Return message and hint, with the cause and the way back if a spreadsheet has changed the value."""
    damage = spreadsheet_damage(value, choices)
    if damage is None:
        return message, hint
    made, original = damage
    again = f"write {original}" if original else "write it again"
    message = f"{message}: a spreadsheet made {made} of {original or 'it'}"
    return message, f"format the column as text first, then {again}; {hint}"


def _takes_images(parameter: Parameter) -> bool:
    return parameter.type == "image" or (parameter.type == "list" and "image" in parameter.common)


def _has_type(kind: str, value: Any) -> bool:
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


def _range_violation(parameter: Parameter, value: Any) -> tuple[str, str] | None:
    size = value if isinstance(value, int | float) else len(value)
    unit = "" if isinstance(value, int | float) else " entries" if isinstance(value, list) else " characters"
    low, high = parameter.min, parameter.max_length if parameter.max_length is not None else parameter.max
    if low is not None and size < low:
        return f"{shortened_repr(value)} is too small", f"expected at least {low:g}{unit}"
    if high is not None and size > high:
        return f"{size}{unit} is too much", f"expected at most {high:g}{unit}"
    if value == "" and parameter.required:
        return "is empty", f"expected {TYPE_NAMES[parameter.type]}"
    return None


def _join_choices(choices: tuple[Any, ...]) -> str:
    return ", ".join(str(choice) for choice in choices)
