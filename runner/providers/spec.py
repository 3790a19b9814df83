"""Define the schema of a provider spec, and find and load specs.

A spec is a YAML file. `docs/providers.md` explains it field by field. Expressions are JMESPath over
`{status, headers, body}` for complete responses, and over one task object for `state`, `outputs` and `error`. An error
message names the field, what was expected, and the closest known field.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from runner.errors import ConfigError, UsageError
from runner.providers.expressions import compile_expression
from runner.units import parse_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic_core import ErrorDetails

#: characters of a wrong value in a message
_MAX_SHOWN = 60
#: form of a rate; the module `units` parses it
_RATE_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(?:s|sec|second|m|min|minute|h|hour)", re.ASCII)


def _check_expression(text: str) -> str:
    try:
        compile_expression(text)
    except JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {error}") from None
    return text


def _check_rate(text: str) -> str:
    try:
        parse_rate(text)
    except ValueError:
        raise ValueError(f"expected a rate like `5/s`, `10/min` or `100/h`; found {text!r}") from None
    return text


JmesPath = Annotated[str, AfterValidator(_check_expression)]
RateText = Annotated[str, AfterValidator(_check_rate)]
#: meaning of a failed response; `doubt` is also the meaning of every unlisted response to a submit
Meaning = Literal[
    "throttled",
    "window",
    "credentials",
    "credit",
    "account",
    "configuration",
    "invalid",
    "moderation",
    "doubt",
    "trouble",
    "absent",
]
#: state of a remote task, the same for all providers
RemoteState = Literal["queued", "running", "succeeded", "failed"]
#: kinds of images whose headers can be read
ImageKind = Literal["png", "jpeg", "webp"]


class _SpecPart(BaseModel):
    """Base of all parts of a spec: frozen, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AuthSpec(_SpecPart):
    """Named scheme that signs the requests, and its parameters."""

    scheme: Literal["bearer", "header", "kling", "chanjing"]
    header: str = "Authorization"
    prefix: str = "Bearer "
    #: path of the token endpoint
    path: str = ""


class OperationSpec(_SpecPart):
    """One endpoint of the provider for paid requests."""

    path: str
    media: Literal["image", "video"]
    #: constants of every request body
    body: dict[str, Any] = {}
    #: constants of its batched queries and lists
    query: dict[str, Any] = {}
    #: parameter that holds how many slots of the window a task takes
    slots: str | None = None
    #: parameter that holds how many outputs are ordered
    count: str | None = None


class SubmitSpec(_SpecPart):
    """Form of a paid request and of a successful response."""

    #: true for a response that accepts the task
    accept: JmesPath
    #: id of the accepted task
    id: JmesPath
    #: body fields that hold the model code
    model_fields_: tuple[str, ...] = Field(alias="model_fields")
    #: body field for the reference, if the provider keeps one
    reference: str | None = None


class BatchQuerySpec(_SpecPart):
    """Form of a query for several tasks at once."""

    path: str
    method: Literal["GET", "POST"] = "POST"
    #: body field for the list of task ids
    field: str
    #: task ids in one query at most
    max: int = Field(gt=0)
    body: dict[str, Any] = {}
    #: task objects of the response
    items: JmesPath
    #: id in a task object
    key: JmesPath


class QuerySpec(_SpecPart):
    """Form of a query for one task, and of the task object in its response."""

    path: str
    #: true for a response that holds a task object
    valid: JmesPath
    #: task object of a complete response
    task: JmesPath
    #: id of the task that a complete response is about; if left out, it is not compared
    id: JmesPath | None = None
    state: JmesPath
    map: dict[str, RemoteState]
    ignore_case: bool = False
    outputs: JmesPath
    error: JmesPath
    many: BatchQuerySpec | None = None


class WithoutSpec(_SpecPart):
    """Request fields whose values come back changed, or not at all, though an entry shows that one of them was sent."""

    fields: tuple[str, ...] = Field(min_length=1)
    #: what an entry shows of them; empty or null where none was sent
    shown: JmesPath


class ListingSpec(_SpecPart):
    """Form of the account's list of tasks, page by page."""

    path: str
    method: Literal["GET", "POST"]
    body: dict[str, Any] | None = None
    valid: JmesPath
    items: JmesPath
    id: JmesPath
    #: time at which the provider created it, seconds or milliseconds since the epoch
    created: JmesPath
    #: reference in an entry, if the provider keeps one
    reference: JmesPath | None = None
    #: request parameter -> its echo in an entry
    echo: dict[str, JmesPath] = {}
    #: parameters without which an entry proves nothing
    proof: tuple[str, ...] = ()
    #: parameters that a request without them is told apart by
    without: tuple[WithoutSpec, ...] = ()


class BillingSpec(_SpecPart):
    """Form of the account's list of charges, page by page. `{start}`, `{end}` and `{page}` are filled in."""

    path: str
    method: Literal["GET", "POST"] = "POST"
    body: dict[str, Any]
    #: strftime format of the times
    times: str
    #: hours by which the provider's times are ahead of UTC
    hours: float = 0.0
    valid: JmesPath
    items: JmesPath
    id: JmesPath
    amount: JmesPath


class ReconcileSpec(_SpecPart):
    """Ways to find a submit whose response was lost."""

    #: path that takes the reference instead of the id
    by_reference: str | None = None
    listing: ListingSpec | None = None


class ErrorRule(_SpecPart):
    """One rule that classifies failed responses. The first rule that holds decides."""

    when: JmesPath
    means: Meaning
    phase: Literal["submit", "query"] | None = None
    #: after an unclear submit the response may mean that the reference already exists
    maybe_taken: bool = False


class ImageLimits(_SpecPart):
    """Limits of a local image. A limit that is left out is not checked."""

    kinds: tuple[ImageKind, ...] | None = None
    max_bytes: int | None = Field(default=None, gt=0)
    #: minimum of the shorter side, pixels
    min_side: int | None = Field(default=None, gt=0)
    #: maximum of longer side divided by shorter side
    ratio: float | None = Field(default=None, ge=1)

    def merge(self, other: ImageLimits | None) -> ImageLimits:
        """Return these limits, replaced by those of `other` where it sets some."""
        return self if other is None else ImageLimits(**{**dict(self), **other.model_dump(exclude_none=True)})


class ImagesSpec(_SpecPart):
    """Way to send local images instead of URLs, and the limits of all of them."""

    send: Literal["base64", "upload"]
    limits: ImageLimits


class UploadSpec(_SpecPart):
    """Form of an upload in three steps: request a target, PUT the bytes there, wait until the file is ready.

    `id`, `put`, `media_type`, `headers` and `url` are read from the response to the first step.
    """

    #: path of the first step, with `{name}`: a hash and an extension, no personal data
    path: str
    valid: JmesPath
    id: JmesPath
    #: URL for the PUT of the bytes; no credentials are sent there
    put: JmesPath
    media_type: JmesPath
    #: additional headers of the PUT; only `x-…` headers are sent
    headers: JmesPath | None = None
    #: URL that a request holds instead of the image
    url: JmesPath
    #: path of the query for a file's status, with `{id}`
    detail: str
    ready: JmesPath
    pending: JmesPath
    #: true if the content is rejected for good
    refused: JmesPath
    #: time limit of one upload, seconds
    patience: float = 300.0
    #: age after which a file is uploaded again, days
    days: float = 25.0


class Parameter(_SpecPart):
    """One parameter of a model, checked before anything is sent."""

    type: Literal["string", "integer", "number", "boolean", "list", "object", "image"] = "string"
    required: bool = False
    choices: tuple[Any, ...] | None = None
    min: float | None = None
    max: float | None = None
    max_length: int | None = None
    #: names that work for every provider, in the order in which they fill a list
    common: tuple[str, ...] = ()
    #: value that is sent if the manifest gives none; part of the task's key
    default: Any = None
    #: value that the provider takes if none is sent: to write it down asks for nothing else
    assumed: Any = None
    #: limits of its local images that differ from those of the spec
    image: ImageLimits | None = None
    #: description, one line
    about: str = ""


class Refusal(_SpecPart):
    """Combination of parameters that the provider does not accept."""

    when: JmesPath
    say: str


class Price(_SpecPart):
    """Price of one task in the unit of the spec: an amount, or one per value of a parameter, times other parameters."""

    amount: float | None = Field(default=None, ge=0)
    #: parameter whose value selects one of `amounts`
    by: str | None = None
    amounts: dict[str, float] = {}
    #: parameters whose values multiply the amount, e.g. the number of images or the seconds
    times: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_form(self) -> Price:
        if (self.amount is None) == (self.by is None) or (self.by is None) != (not self.amounts):
            raise ValueError("a price is an amount, or `by` a parameter with `amounts` for its values")
        return self


class Model(_SpecPart):
    """One model of the catalogue."""

    operation: str
    parameters: dict[str, Parameter]
    refuse: tuple[Refusal, ...] = ()
    #: None: unknown
    price: Price | None = None
    #: source of its facts
    source: str = ""


class LimitsSpec(_SpecPart):
    """Cautious initial rates of the provider per endpoint, like `10/min`."""

    submit: RateText
    query: RateText
    #: rate of the requests around uploads
    upload: RateText = "30/min"
    #: concurrent downloads per host
    downloads: int = 4


class Spec(_SpecPart):
    """Description of one provider's API."""

    name: str
    title: str
    #: prefix of its environment variables
    env: str
    base_url: str | None = None
    auth: AuthSpec
    limits: LimitsSpec
    #: quiet time before a missing task is believed to be absent, seconds
    doubt: float
    #: unit of prices
    unit: str = "units"
    #: True if a task that was accepted and then failed costs its price
    failures_billed: bool = True
    #: minimum delay from acceptance to the first poll, seconds
    first_poll: float = Field(default=2.0, alias="first_look")
    #: maximum delay between two polls, seconds
    longest_poll: float = Field(default=15.0, alias="longest_look")
    operations: dict[str, OperationSpec]
    #: None: local images are not accepted
    images: ImagesSpec | None = None
    upload: UploadSpec | None = None
    submit: SubmitSpec
    query: QuerySpec
    reconcile: ReconcileSpec = Field(default=ReconcileSpec(), alias="look_up")
    billing: BillingSpec | None = None
    errors: tuple[ErrorRule, ...]
    #: trace id of any response, which the provider's support asks for
    trace: JmesPath | None = None
    #: reasons of failed tasks, evaluated on the task object; if none holds: `provider`
    task_errors: tuple[ErrorRule, ...] = ()
    #: holder of YAML anchors, otherwise unused
    parts: Any = None
    models: dict[str, Model]
    not_established: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_operations(self) -> Spec:
        for name, model in self.models.items():
            if model.operation not in self.operations:
                raise ValueError(f"model {name} names an operation that is not there: {model.operation}")
        return self

    @model_validator(mode="after")
    def _check_upload(self) -> Spec:
        if self.images is not None and (self.images.send == "upload") != (self.upload is not None):
            raise ValueError("`images: {send: upload}` and `upload` go together")
        return self

    @property
    def can_reconcile(self) -> bool:
        """Return True if a submit without a response can be found again, by its reference or in a list."""
        return self.reconcile.by_reference is not None or self.reconcile.listing is not None

    @property
    def needs_claims(self) -> bool:
        """Return True if the jobs of an account must claim tasks: they share a list without references.

        Without claims, two jobs could adopt the same remote task.
        """
        return self.reconcile.listing is not None and self.reconcile.listing.reference is None


@lru_cache(maxsize=32)
def load(name: str, extra: Path | None = None) -> Spec:
    """Return the spec of that name. Raise UsageError for an unknown name, ConfigError for a broken file."""
    known = spec_paths(extra)
    if name not in known:
        raise UsageError(f"unknown provider {name!r}", hint=f"known are: {', '.join(sorted(known))}")
    spec = parse(known[name].read_text(encoding="utf-8"), str(known[name]))
    if spec.name != name:
        raise ConfigError(
            f"{known[name]}: it says `name: {spec.name}`, and the file is called {name}.yaml",
            hint="A spec is found by its file's name: let both be the same.",
        )
    return spec


def spec_paths(extra: Path | None = None) -> dict[str, Path]:
    """Return the spec file of every provider by name. Files in `extra` take precedence."""
    folders = [Path(str(resources.files("runner.providers") / "specs")), *([extra] if extra else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def parse(text: str, origin: str) -> Spec:
    """Return the spec in this text. Raise ConfigError with all errors; `origin` is the file to name in them."""
    try:
        return Spec.model_validate(yaml.load(text, Loader=_Loader))  # noqa: S506 - a safe loader of our own
    except yaml.YAMLError as error:
        messages = [" ".join(str(error).split())]
    except ValidationError as error:
        messages = list(render_errors(error, _field_names(Spec)))
    lines = "\n".join(f"{origin}: {line}" for line in messages)
    raise ConfigError(f"not a provider spec\n{lines}", hint="docs/providers.md says what one holds.")


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """YAML loader with the plain scalars of YAML 1.2, so that `9:16` and `no` are text, as in manifests."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", "n~\0"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?", "-+0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), [*_first, ""])


def render_errors(error: ValidationError, known: Iterable[str]) -> Iterator[str]:
    """Yield one line for each error. `known` are the names of all fields of a spec."""
    names = sorted(known)
    for each in error.errors():
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"])
        path, message = "".join(parts).removeprefix("."), _render_error(each, names)
        yield f"{path}: {message}" if path else message


def _render_error(each: ErrorDetails, known: list[str]) -> str:
    match each["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            near = get_close_matches(str(each["loc"][-1]), known, n=1)
            return f"no such field{f'; did you mean `{near[0]}`?' if near else ''}"
        case "value_error":
            return " ".join(str(each.get("ctx", {}).get("error", each["msg"])).split())
        case _:
            expected = each["msg"].replace("Input should be", "expected").replace("valid dictionary", "mapping")
            found = " ".join(repr(each["input"]).split())
            return f"{expected}; found {found if len(found) <= _MAX_SHOWN else f'{found[: _MAX_SHOWN - 1]}…'}"


def _field_names(part: type[BaseModel]) -> set[str]:
    """Return the names of the fields of all levels of a spec, as they are written in YAML."""
    own = {field.alias or name for name, field in part.model_fields.items()}
    inner = [arg for field in part.model_fields.values() for arg in _nested_models(field.annotation)]
    return own.union(*(_field_names(each) for each in inner))


def _nested_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _nested_models(each)]
