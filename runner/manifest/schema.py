"""Define the schema of a manifest, version 1, for validation by pydantic and for editors (`runner schema`).

Errors of pydantic become diagnostics in the words of the manifest, with the nearest known name as a hint.

Every field has a default, so that the valid rest of a manifest can be checked after an error. The docstrings of the
sections are descriptions in the JSON Schema.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from runner.manifest.diagnostics import closest_hint, describe_value
from runner.manifest.naming import SHARD_DIGITS
from runner.manifest.notify_urls import url_error
from runner.manifest.positions import dotted_path
from runner.units import Rate, TimeOfDay, parse_duration, parse_end, parse_rate

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from runner.manifest.diagnostics import Diagnostics
    from runner.manifest.positions import KeyPath, SourceMap

#: largest length of the name of a job, in characters
_MAX_NAME = 100
_JOB_NAME = re.compile(r"[\w][\w. -]*(?<![. ])")
#: what a section expects, by the type of an error of pydantic
_EXPECTED_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "`true` or `false`",
    "model_type": "a mapping (`key: value`)",
}


def is_name(text: str) -> bool:
    """Return whether `text` is a valid name of a job."""
    return _JOB_NAME.fullmatch(text) is not None


def _schema_error(message: str, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError("explained", "{message}", {"message": message, "hint": hint})


def _validate_name(value: object) -> object:
    if isinstance(value, str) and not (is_name(value) and len(value) <= _MAX_NAME):
        raise _schema_error(
            f"`{value[:40]}` cannot name a job", "use letters, digits, `_`, `-`, `.` and spaces; no path, at most 100"
        )
    return value


def _validate_duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise _schema_error(*str(error).split(": ", 1)) from None


def _validate_end(value: object) -> float | TimeOfDay:
    try:
        return parse_end(value)
    except ValueError as error:
        raise _schema_error(*str(error).split(": ", 1)) from None


def _validate_rate(value: object) -> Rate:
    try:
        return parse_rate(value)
    except ValueError as error:
        raise _schema_error(*str(error).split(": ", 1)) from None


def _validate_cost(value: object) -> float | dict[str, float]:
    """Return the price for all models, or one for each."""
    if isinstance(value, dict) and value:
        return {str(name): _validate_price(price, f" for {name}") for name, price in value.items()}
    return _validate_price(value, "")


def _validate_price(value: object, of_model: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _schema_error(
            f"the price{of_model} is not a number", "e.g. `cost: 4`, or `cost: {model-a: 4, model-b: 30}`"
        )
    return float(value)


def _validate_url(value: str) -> str:
    if error := url_error(value):
        raise _schema_error(*error)
    return value


# parts of the JSON Schema that pydantic does not validate

_LIST = {"type": "array", "minItems": 1}
_COUNT = {
    "type": "object",
    "description": "from one number to another, both included",
    "required": ["from", "to"],
    "properties": {"from": {"type": "number"}, "to": {"type": "number"}, "step": {"type": "number", "default": 1}},
    "additionalProperties": False,
}
_COLUMN = {
    "type": "object",
    "description": "a column of a data file, or the lines of a .txt",
    "required": ["file"],
    "properties": {"file": {"type": "string", "examples": ["styles.csv#style", "styles.txt"]}},
    "additionalProperties": False,
}
_AXIS = {"anyOf": [_LIST, _COUNT, _COLUMN]}
_VALUES = {"type": "object", "minProperties": 1}
_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_CONDITION = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"anyOf": [_SCALAR, {**_LIST, "items": _SCALAR}]},
}
_RULE = {
    "type": "object",
    "required": ["when", "then"],
    "properties": {"when": _CONDITION, "then": _VALUES},
    "additionalProperties": False,
}
_MATRIX_PARTS = {
    "zip": ("axes that go in pairs", {**_VALUES, "additionalProperties": _AXIS}),
    "add": ("rows beside the product", _VALUES),
    "set": ("changes rows that match", _RULE),
    "exclude": ("takes rows out, at the very end", _CONDITION),
}
_MATRIX = {
    "type": "object",
    "properties": {
        name: {"type": "array", "description": description, "items": items}
        for name, (description, items) in _MATRIX_PARTS.items()
    },
    "additionalProperties": _AXIS,
}
_ROWS = {"type": "array", "minItems": 1, "items": {"type": "object"}}
_FILE = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string"},
        "sheet": {"type": "string", "description": "a sheet of a workbook; by default the first with cells"},
    },
    "additionalProperties": False,
}

# types of the fields

Name = Annotated[str, BeforeValidator(_validate_name)]
Duration = Annotated[
    float,
    BeforeValidator(_validate_duration),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["90s", "6h", "1h30m"]}, {"type": "number"}]}),
]
#: the end of a run
End = Annotated[
    float | TimeOfDay,
    BeforeValidator(_validate_end),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["6h", "90m", "06:30"]}, {"type": "number"}]}),
]
Qps = Annotated[
    Rate,
    BeforeValidator(_validate_rate),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "examples": ["5/s", "10/min"]}]}),
]
Rows = Annotated[Any, WithJsonSchema({"anyOf": [_ROWS, _FILE]})]
Axes = Annotated[Any, WithJsonSchema(_MATRIX)]
Params = Annotated[Any, WithJsonSchema({"type": "object"})]
Address = Annotated[
    str, AfterValidator(_validate_url), WithJsonSchema({"type": "string", "examples": ["${HEALTHCHECK_URL}"]})
]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Cost = Annotated[
    float | dict[str, float] | None,
    BeforeValidator(_validate_cost),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "object"}]}),
]
Count = Annotated[int, Field(ge=1, le=10_000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())


def _check_shards(value: object) -> object:
    if type(value) is int and value in SHARD_DIGITS:
        return value
    raise _schema_error("256 or 4096 directories", "256 is enough for two million files")


class OutputPart(_Section):
    """Where the files go and what they are called."""

    dir: str | None = Field(None, min_length=1)
    name: str | None = Field(None, min_length=1)
    shards: Annotated[int, BeforeValidator(_check_shards), WithJsonSchema({"enum": [*SHARD_DIGITS]})] | None = None


class LimitsPart(_Section):
    """What the account may do."""

    qps: Qps | None = None
    in_flight: Count | None = None
    submits_at_once: Annotated[int, Field(ge=1, le=1_000)] | None = None
    downloads: Annotated[int, Field(ge=1, le=64)] | None = None
    max_tasks: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    deadline: Duration | None = None
    end: End | None = None
    max_cost: Amount | None = None


class RetryPart(_Section):
    """How often and how long to try."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    patience: Duration = 172_800.0
    doubt: Duration | None = None
    remember: Duration = 90 * 86_400.0
    absence: Literal["measured", "witnessed"] = "measured"


class NotifyPart(_Section):
    """Whom to tell of a run: counts alone, never a prompt."""

    url: Address = ""
    on: Annotated[list[Literal["start", "success", "failure"]], Field(min_length=1)] = ["start", "success", "failure"]


class Document(_Section):
    """A manifest."""

    version: int = 1
    name: Name | None = None
    provider: str = ""
    model: str = ""
    unchecked: bool = False
    params: Params = Field(default_factory=dict)
    items: Rows = None
    matrix: Axes = Field(default_factory=dict)
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1
    cost: Cost = None
    output: OutputPart = OutputPart(dir=None, name=None)
    limits: LimitsPart = LimitsPart()
    retry: RetryPart = RetryPart()
    notify: NotifyPart | None = None


#: fields of every section; the empty path is the manifest itself
_SECTION_FIELDS: dict[str, Any] = {
    "": Document.model_fields,
    "output": OutputPart.model_fields,
    "limits": LimitsPart.model_fields,
    "retry": RetryPart.model_fields,
    "notify": NotifyPart.model_fields,
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest."""
    schema = Document.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["required"] = ["version"]
    return schema


def add_schema_errors(errors: list[ErrorDetails], source_map: SourceMap, diagnostics: Diagnostics) -> None:
    """Add a diagnostic for every error of pydantic."""
    for error in errors:
        path = error["loc"]
        if error["type"] == "extra_forbidden":
            diagnostics.add(source_map.key_location(*path), dotted_path(path), *_unknown_key_error(path))
        else:
            diagnostics.add(source_map.location(*path), dotted_path(path), *_wrong_value_error(error))


def _unknown_key_error(path: KeyPath) -> tuple[str, str]:
    known = _SECTION_FIELDS[dotted_path(path[:-1])]
    elsewhere = [part for part, keys in _SECTION_FIELDS.items() if part and path[-1] in keys]
    if elsewhere and len(path) == 1:
        return "no such key here", f"it belongs under `{elsewhere[0]}:`"
    hint = closest_hint(str(path[-1]), known)
    if len(path) == 1 and not hint.startswith("did you mean"):
        hint = f"a parameter of the model belongs under `params:`; else {hint}"
    return "no such key", hint


def _wrong_value_error(error: ErrorDetails) -> tuple[str, str]:
    found = describe_value(error["input"])
    match error["type"]:
        case "explained":
            return f"{error['msg']}; found {found}", error["ctx"]["hint"]
        case "greater_than_equal":
            return f"at least {error['ctx']['ge']}, found {found}", "raise it"
        case "less_than_equal":
            return f"at most {error['ctx']['le']:,}, found {found}", "lower it"
        case "string_too_short":
            return "an empty text", "write something, or remove the key"
        case kind if kind in _EXPECTED_TYPES:
            return f"expected {_EXPECTED_TYPES[kind]}, found {found}", _correction_hint(kind, error["input"])
        case _:
            return str(error["msg"]), "correct it, or remove the key"


def _correction_hint(kind: str, value: Any) -> str:
    if value is None:
        return "write a value, or remove the key"
    if kind == "string_type" and not isinstance(value, dict | list):
        return f'put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
    if kind == "bool_type" and str(value).lower() in {"yes", "no", "on", "off"}:
        return f"write `{'true' if str(value).lower() in {'yes', 'on'} else 'false'}`"
    return "correct it, or remove the key"
