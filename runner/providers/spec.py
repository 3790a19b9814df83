"""What a provider spec may say, and where specs are found.

A spec is a YAML file; `docs/providers.md` explains it field by field. Expressions are JMESPath over
`{status, headers, body}` for whole answers, and over one task's object for `state`, `outputs` and `error`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from runner.errors import ConfigError, UsageError
from runner.providers.expressions import compiled
from runner.providers.mistakes import told


def _compiles(text: str) -> str:
    try:
        compiled(text)
    except JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {error}") from None
    return text


def _is_rate(text: str) -> str:
    found = _RATE.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"expected a rate like `5/s`, `10/min` or `100/h`; found {text!r}")
    return text


Jmes = Annotated[str, AfterValidator(_compiles)]
Rate = Annotated[str, AfterValidator(_is_rate)]
#: how `manifest.units` reads them
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(?:s|sec|second|m|min|minute|h|hour)", re.ASCII)

#: what a failed answer means; `doubt` is also what anything unlisted means on a submit
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
#: canonical words for the states of a remote task
Word = Literal["queued", "running", "succeeded", "failed"]
#: kinds of pictures whose heads are understood
PictureKind = Literal["png", "jpeg", "webp"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Auth(_Part):
    """Which named scheme signs the requests, and what it needs to know."""

    scheme: Literal["bearer", "header", "kling", "chanjing"]
    header: str = "Authorization"
    prefix: str = "Bearer "
    #: of the token endpoint
    path: str = ""


class Operation(_Part):
    """One of the provider's endpoints for paid requests."""

    path: str
    media: Literal["image", "video"]
    #: constants of every request body
    body: dict[str, Any] = {}
    #: constants of its batched queries and lists
    query: dict[str, Any] = {}
    #: the parameter that says how many slots of the window a task takes
    slots: str | None = None
    #: the parameter that says how many outputs are ordered
    count: str | None = None


class Submit(_Part):
    """How a paid request is put, and what a good answer looks like."""

    accept: Jmes
    id: Jmes
    #: body fields that carry the model's code
    model_fields_: tuple[str, ...] = Field(alias="model_fields")
    #: body field for our reference, where the provider keeps one
    reference: str | None = None


class Many(_Part):
    """How several tasks are asked about in one call."""

    path: str
    method: Literal["GET", "POST"] = "POST"
    field: str
    max: int = Field(gt=0)
    body: dict[str, Any] = {}
    items: Jmes
    key: Jmes


class Query(_Part):
    """How a task is asked about, and how its object is read."""

    path: str
    valid: Jmes
    #: from a whole answer to the task's object
    task: Jmes
    #: from a whole answer about one task to the id that it is about; left out, every answer is believed
    id: Jmes | None = None
    state: Jmes
    map: dict[str, Word]
    ignore_case: bool = False
    outputs: Jmes
    error: Jmes
    many: Many | None = None


class Listing(_Part):
    """The account's list of tasks, page by page."""

    path: str
    method: Literal["GET", "POST"]
    body: dict[str, Any] | None = None
    valid: Jmes
    items: Jmes
    id: Jmes
    #: when the provider made it, seconds since the epoch
    created: Jmes
    #: our reference in a row, where the provider keeps one
    reference: Jmes | None = None
    #: request parameter -> where a row echoes it
    echo: dict[str, Jmes] = {}
    #: parameters without which a row proves nothing
    proof: tuple[str, ...] = ()


class Billing(_Part):
    """What the account was charged for, page by page; `{start}`, `{end}` and `{page}` are filled in."""

    path: str
    method: Literal["GET", "POST"] = "POST"
    body: dict[str, Any]
    #: strftime format of the times, and the hours by which the provider's day is ahead of UTC
    times: str
    hours: float = 0.0
    valid: Jmes
    items: Jmes
    id: Jmes
    amount: Jmes


class LookUp(_Part):
    """What the provider offers to find a submit whose answer was lost (reliability.md section 5)."""

    #: path that takes our reference in place of the id
    by_reference: str | None = None
    listing: Listing | None = None


class Rule(_Part):
    """One line of the evidence table: the first that holds decides."""

    when: Jmes
    means: Meaning
    phase: Literal["submit", "query"] | None = None
    #: after a doubtful send it may mean that the reference exists
    maybe_taken: bool = False


class ImageLimits(_Part):
    """What a local picture must be like; what is left out is not looked at."""

    kinds: tuple[PictureKind, ...] | None = None
    max_bytes: int | None = Field(default=None, gt=0)
    #: pixels of the shorter side
    min_side: int | None = Field(default=None, gt=0)
    #: the longer side, in shorter ones, at most
    ratio: float | None = Field(default=None, ge=1)

    def with_(self, other: ImageLimits | None) -> ImageLimits:
        """These limits, and the other's in their place where it has some."""
        return self if other is None else ImageLimits(**{**dict(self), **other.model_dump(exclude_none=True)})


class Images(_Part):
    """Local pictures in the place of URLs: how they are sent, and what all of them must be like."""

    send: Literal["base64", "upload"]
    limits: ImageLimits


class Upload(_Part):
    """How a file is put where the provider finds it: ask for a place, PUT the bytes there, wait until it is ready.

    `id`, `put`, `media_type`, `headers` and `url` are read from the answer to the first question.
    """

    #: the first question, with `{name}`: a hash and an extension, nothing of a person's
    path: str
    valid: Jmes
    id: Jmes
    #: where the bytes go; nothing but them is sent there
    put: Jmes
    media_type: Jmes
    #: more headers of the PUT, where there are some; only `x-…` ones are sent
    headers: Jmes | None = None
    #: what a request holds in the picture's place
    url: Jmes
    #: the question about a file, with `{id}`
    detail: str
    ready: Jmes
    pending: Jmes
    #: the content is not taken, and never will be
    refused: Jmes
    #: seconds that one upload may take
    patience: float = 300.0
    #: after which a file is uploaded anew
    days: float = 25.0


class Parameter(_Part):
    """One parameter of a model, checked before anything is sent."""

    type: Literal["string", "integer", "number", "boolean", "list", "object", "image"] = "string"
    required: bool = False
    choices: tuple[Any, ...] | None = None
    min: float | None = None
    max: float | None = None
    max_length: int | None = None
    #: the names that work for every provider, in the order in which they fill a list
    common: tuple[str, ...] = ()
    #: sent when the manifest says nothing; part of the task's identity
    default: Any = None
    #: of its local pictures, where they are not those of the spec
    image: ImageLimits | None = None
    #: what it is, in one line
    about: str = ""


class Refusal(_Part):
    """A combination of parameters that the provider does not take."""

    when: Jmes
    say: str


class Price(_Part):
    """What one task costs, in the spec's unit: an amount, or one for each value of a parameter, times parameters."""

    amount: float | None = Field(default=None, ge=0)
    #: the parameter whose value chooses among `amounts`
    by: str | None = None
    amounts: dict[str, float] = {}
    #: parameters whose values multiply it, e.g. the number of images or the seconds
    times: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Price:
        if (self.amount is None) == (self.by is None) or (self.by is None) != (not self.amounts):
            raise ValueError("a price is an amount, or `by` a parameter with `amounts` for its values")
        return self


class Model(_Part):
    """One model of the catalogue."""

    operation: str
    parameters: dict[str, Parameter]
    refuse: tuple[Refusal, ...] = ()
    #: unknown where it is left out
    price: Price | None = None
    #: where its facts come from
    source: str = ""


class Limits(_Part):
    """The cautious rates this provider starts at, per endpoint, like `10/min`."""

    submit: Rate
    query: Rate
    #: of the questions about uploads
    upload: Rate = "30/min"
    #: downloads at once per host
    downloads: int = 4


class Spec(_Part):
    """How one API speaks."""

    name: str
    title: str
    #: prefix of its environment variables
    env: str
    base_url: str | None = None
    auth: Auth
    limits: Limits
    #: quiet time in seconds before a missing task is believed to be absent
    doubt: float
    #: what prices are in
    unit: str = "units"
    #: whether a task that was accepted and then failed costs its price
    failures_billed: bool = True
    #: seconds from acceptance to the first poll, at least, and to the next poll at most
    first_look: float = 2.0
    longest_look: float = 15.0
    operations: dict[str, Operation]
    #: left out, no local pictures are taken
    images: Images | None = None
    upload: Upload | None = None
    submit: Submit
    query: Query
    look_up: LookUp = LookUp()
    billing: Billing | None = None
    errors: tuple[Rule, ...]
    #: from any answer to what the provider's support will ask for
    trace: Jmes | None = None
    #: reasons of failed tasks, tried on the task's object; none: `provider`
    task_errors: tuple[Rule, ...] = ()
    #: hidden: only here for YAML anchors
    parts: Any = None
    models: dict[str, Model]
    not_established: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _operations_exist(self) -> Spec:
        for name, model in self.models.items():
            if model.operation not in self.operations:
                raise ValueError(f"model {name} names an operation that is not there: {model.operation}")
        return self

    @model_validator(mode="after")
    def _upload_is_told(self) -> Spec:
        if self.images is not None and (self.images.send == "upload") != (self.upload is not None):
            raise ValueError("`images: {send: upload}` and `upload` go together")
        return self

    @property
    def can_look_up(self) -> bool:
        """Whether a submit without an answer can be found again (class C1 or C2)."""
        return self.look_up.by_reference is not None or self.look_up.listing is not None

    @property
    def needs_claims(self) -> bool:
        """Whether jobs of one account see each other's tasks in one list that keeps no reference of ours (I7)."""
        return self.look_up.listing is not None and self.look_up.listing.reference is None


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """YAML with 1.2's plain scalars, so that `9:16` and `no` are text here as in manifests."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", "n~\0"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?", "-+0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), [*_first, ""])


def parse(text: str, origin: str) -> Spec:
    """The spec in this text; raises ConfigError that names every mistake."""
    try:
        return Spec.model_validate(yaml.load(text, Loader=_Loader))  # noqa: S506 - a safe loader of our own
    except yaml.YAMLError as error:
        said = [" ".join(str(error).split())]
    except ValidationError as error:
        said = list(told(error, _fields(Spec)))
    lines = "\n".join(f"{origin}: {line}" for line in said)
    raise ConfigError(f"not a provider spec\n{lines}", hint="docs/providers.md says what one holds.")


def _fields(part: type[BaseModel]) -> set[str]:
    """The names of a spec's fields, as they are written, on every level."""
    own = {field.alias or name for name, field in part.model_fields.items()}
    inner = [arg for field in part.model_fields.values() for arg in _parts(field.annotation)]
    return own.union(*(_fields(each) for each in inner))


def _parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _parts(each)]


def names(extra: Path | None = None) -> dict[str, Path]:
    """Every provider by name, with its file; those in `extra` win."""
    folders = [Path(str(resources.files("runner.providers") / "specs")), *([extra] if extra else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


@lru_cache(maxsize=32)
def load(name: str, extra: Path | None = None) -> Spec:
    """The spec of that name; raises UsageError for a name nobody knows, ConfigError for a broken file."""
    known = names(extra)
    if name not in known:
        raise UsageError(f"unknown provider {name!r}", hint=f"known are: {', '.join(sorted(known))}")
    spec = parse(known[name].read_text(encoding="utf-8"), str(known[name]))
    if spec.name != name:
        raise ConfigError(
            f"{known[name]}: it says `name: {spec.name}`, and the file is called {name}.yaml",
            hint="A spec is found by its file's name: let both be the same.",
        )
    return spec
