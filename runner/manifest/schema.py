"""Define the schema of a manifest, version 1, for validation by pydantic and for editors (`runner schema`).

Every field has a default, so that the valid rest of a manifest can be checked after an error. The docstrings of the
sections are descriptions in the JSON Schema.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from runner.manifest import notices, units
from runner.manifest.model import Rate

_NAME = re.compile(r"[\w][\w. -]*(?<![. ])")
_MAX_NAME = 100


def _taught(message: str, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError("explained", "{message}", {"message": message, "hint": hint})


def _duration(value: object) -> float:
    try:
        return units.duration(value)
    except ValueError as error:
        raise _taught(*str(error).split(": ", 1)) from None


def _rate(value: object) -> Rate:
    try:
        return units.rate(value)
    except ValueError as error:
        raise _taught(*str(error).split(": ", 1)) from None


def _cost(value: object) -> float | dict[str, float]:
    """Return the price for all models, or one for each."""
    if isinstance(value, dict) and value:
        return {str(name): _amount(price, f" for {name}") for name, price in value.items()}
    return _amount(value, "")


def _amount(value: object, of_model: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _taught(f"the price{of_model} is not a number", "e.g. `cost: 4`, or `cost: {model-a: 4, model-b: 30}`")
    return float(value)


def _address(value: str) -> str:
    if error := notices.unfit(value):
        raise _taught(*error)
    return value


def _name(value: object) -> object:
    if isinstance(value, str) and not (is_name(value) and len(value) <= _MAX_NAME):
        raise _taught(
            f"`{value[:40]}` cannot name a job", "use letters, digits, `_`, `-`, `.` and spaces; no path, at most 100"
        )
    return value


def is_name(text: str) -> bool:
    """Return whether `text` is a valid name of a job."""
    return _NAME.fullmatch(text) is not None


Name = Annotated[str, BeforeValidator(_name)]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["90s", "6h", "1h30m"]}, {"type": "number"}]}),
]
Qps = Annotated[
    Rate,
    BeforeValidator(_rate),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "examples": ["5/s", "10/min"]}]}),
]
_ROWS = {"type": "array", "minItems": 1, "items": {"type": "object"}}
_FILE = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string"}},
    "additionalProperties": False,
}
Rows = Annotated[Any, WithJsonSchema({"anyOf": [_ROWS, _FILE]})]
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
_GIVEN = {"type": "object", "minProperties": 1}
_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_CONDITION = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"anyOf": [_SCALAR, {**_LIST, "items": _SCALAR}]},
}
_RULE = {
    "type": "object",
    "required": ["when", "then"],
    "properties": {"when": _CONDITION, "then": _GIVEN},
    "additionalProperties": False,
}
_PARTS = {
    "zip": ("axes that go in pairs", {**_GIVEN, "additionalProperties": _AXIS}),
    "add": ("rows beside the product", _GIVEN),
    "set": ("changes rows that match", _RULE),
    "exclude": ("takes rows out, at the very end", _CONDITION),
}
_MATRIX = {
    "type": "object",
    "properties": {
        name: {"type": "array", "description": description, "items": items}
        for name, (description, items) in _PARTS.items()
    },
    "additionalProperties": _AXIS,
}
Axes = Annotated[Any, WithJsonSchema(_MATRIX)]
Params = Annotated[Any, WithJsonSchema({"type": "object"})]
Address = Annotated[
    str, AfterValidator(_address), WithJsonSchema({"type": "string", "examples": ["${HEALTHCHECK_URL}"]})
]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Cost = Annotated[
    float | dict[str, float] | None,
    BeforeValidator(_cost),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "object"}]}),
]
Count = Annotated[int, Field(ge=1, le=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())


class OutputPart(_Part):
    """Where the files go and what they are called."""

    dir: str | None = Field(None, min_length=1)
    name: str | None = Field(None, min_length=1)


class LimitsPart(_Part):
    """What the account may do."""

    qps: Qps | None = None
    in_flight: Count | None = None
    downloads: Annotated[int, Field(ge=1, le=64)] | None = None
    max_tasks: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    deadline: Duration | None = None
    max_cost: Amount | None = None


class RetryPart(_Part):
    """How often and how long to try."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    patience: Duration = 172_800.0
    doubt: Duration | None = None


class NotifyPart(_Part):
    """Whom to tell of a run: counts alone, never a prompt."""

    url: Address = ""
    on: Annotated[list[Literal["start", "success", "failure"]], Field(min_length=1)] = ["start", "success", "failure"]


class Document(_Part):
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


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest."""
    schema = Document.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["required"] = ["version"]
    return schema
