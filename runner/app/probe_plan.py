"""What a probe buys, at most: the cheapest model, the requests of its steps, and the job that holds them.

A probe is a job like any other. Its tasks are rows of a store of its own, so that no id is lost and nothing is bought
twice, whenever it ends.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from runner.app.job import LoadedJob, load_values
from runner.errors import DiskError, UsageError
from runner.files import atomic_write
from runner.manifest.identity import task_key
from runner.providers import spec as specs
from runner.providers.catalogue import Catalogue
from runner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runner.providers.catalogue import ModelSchema
    from runner.providers.spec import Model, Parameter, Spec
    from runner.tasks.models import Draft, MergedRow

#: a purchase of a probe, named after what it tries
Step = Literal["refusal", "task", "double", "cut", "picture", "other picture"]
#: the steps in the order in which they are sent; a refusal is judged by a task that is bought after it
ORDER: tuple[Step, ...] = ("refusal", "task", "double", "cut", "picture", "other picture")
PICTURES: tuple[Step, ...] = ("picture", "other picture")
#: characters of a prompt that a host may change: blanks, full-width letters, an emoji, a line end
_PROMPT = "a plain white  cup, 白い, Ｆｕｌｌ　ｗｉｄｔｈ ☕\nnothing else, {nonce} "
_CUT_PROMPT = "a plain white cup, cut {nonce}"
_REFUSAL_PROMPT = "a plain white cup, refused {nonce}"
_PICTURE_PROMPT = "the same in white, {nonce}"
#: an address that only shows whether a model takes pictures; it is never sent
_EXAMPLE = "https://example.com/cup.png"
#: sides of a picture in pixels, and the grey of each
_SIDE, _GREYS = 512, {"picture": 200, "other picture": 90}
#: a value that no parameter with choices has
_NO_CHOICE = "no-such-choice"


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What a probe of one provider may do: `steps` are sent in order, and at most `spend` tasks are bought."""

    spec: Spec
    #: catalogue name of the model
    model: str
    operation: str
    params: Mapping[str, Any]
    #: name of the parameter that holds the prompt
    prompt: str
    #: price of one task in the provider's unit, None if unknown
    cost: float | None
    spend: int
    steps: tuple[Step, ...]
    #: parameter that takes the pictures of a probe with pictures
    picture: str | None
    #: parameter that the invalid request has a wrong value for, and that value
    invalid: tuple[str, Any] | None

    @property
    def most(self) -> int:
        """Return how many tasks it buys at most."""
        return min(self.spend, len(self.steps))

    @property
    def highest_cost(self) -> float | None:
        """Return what it costs at most, None if the price is unknown."""
        return None if self.cost is None else self.cost * self.most


def make_plan(
    provider: str, settings: Settings, *, model: str | None = None, spend: int = 3, pictures: bool = False
) -> ProbePlan:
    """Return the plan of a probe. Sends and writes nothing. Raises UsageError and ConfigError.

    `model` is a catalogue name; without one the cheapest is taken, images before videos. With `pictures` it must take
    pictures too.
    """
    spec, catalogue = specs.load(provider, settings.providers), Catalogue(settings.providers)
    name, params, schema = _chosen_model(spec, catalogue, model, pictures=pictures)
    prompt = _prompt_parameter(spec.models[name])
    invalid = _invalid_value(spec.models[name], spec.operations[schema.operation].count)
    cost = schema.cost({prompt: "", **params})
    picture = _picture_parameter(spec.models[name], params, schema) if pictures else None
    steps = _useful_steps(spec, spend, has_invalid=invalid is not None, pictures=picture is not None)
    return ProbePlan(spec, name, schema.operation, params, prompt, cost, spend, steps, picture, invalid)


def _useful_steps(spec: Spec, spend: int, *, has_invalid: bool, pictures: bool) -> tuple[Step, ...]:
    """Return the steps that this provider can answer, in their order.

    An invalid request may be bought all the same. It is left out where that would leave nothing for a task.
    """
    listing = spec.reconcile.listing
    if not spec.can_reconcile or spend < 1:
        return ()
    useful: dict[Step, bool] = {
        "refusal": has_invalid and spend > 1,
        "task": True,
        "double": spec.submit.reference is not None and listing is not None and listing.reference is not None,
        "cut": True,
        **dict.fromkeys(PICTURES, pictures and listing is not None),
    }
    return tuple(step for step in ORDER if useful[step])


def _chosen_model(
    spec: Spec, catalogue: Catalogue, model: str | None, *, pictures: bool
) -> tuple[str, dict[str, Any], ModelSchema]:
    """Return the catalogue name of a model that makes something of a prompt alone, its other parameters, its schema."""
    found = []
    for at, (name, entry) in enumerate(spec.models.items()):
        schema = catalogue.find(spec.name, name)
        params = _fewest_params(entry, schema)
        if params is not None and (not pictures or _picture_parameter(entry, params, schema)):
            cost = schema.cost({_prompt_parameter(entry): "", **params})
            is_video = spec.operations[entry.operation].media == "video"
            found.append(((is_video, cost is None, cost or 0.0, at), name, params, schema))
    needs = "a prompt alone, and takes a picture too" if pictures else "a prompt alone"
    if model is not None:
        wanted = catalogue.find(spec.name, model)  # raises, with what was perhaps meant
        for _, name, params, schema in found:
            if (schema.operation, schema.code) == (wanted.operation, wanted.code):
                return name, params, schema
        hint = f"Name a model that makes something of {needs}; `runner models` lists them."
        raise UsageError(f"{model} is no model for this probe: it needs more, or takes less", hint=hint)
    if not found:
        raise UsageError(f"{spec.name} has no model that makes something of {needs}", hint="A probe needs one.")
    _, name, params, schema = min(found, key=lambda each: each[0])
    return name, params, schema


def _picture_parameter(model: Model, params: Mapping[str, Any], schema: ModelSchema) -> str | None:
    """Return the parameter that takes a picture beside the prompt, or None."""
    for name in schema.images:
        if "image" in model.parameters[name].common:
            _, diagnostics = schema.request({_prompt_parameter(model): "a cup", "image": _EXAMPLE, **params})
            return None if diagnostics else name
    return None


def _prompt_parameter(model: Model) -> str:
    return next((name for name, each in model.parameters.items() if "prompt" in each.common), "")


def _fewest_params(model: Model, schema: ModelSchema) -> dict[str, Any] | None:
    """Return the cheapest values of the parameters that must be given beside the prompt, None if that cannot be."""
    prompt = _prompt_parameter(model)
    if not prompt:
        return None
    priced = {model.price.by, *model.price.times} if model.price else set()
    params: dict[str, Any] = {}
    for name, each in model.parameters.items():
        if name == prompt or not (each.required or name in priced) or each.default is not None:
            continue
        value = _cheapest_value(model, name, each)
        if value is None:
            return None
        params[name] = value
    _, diagnostics = schema.request({prompt: "a cup", **params})
    return None if diagnostics else params


def _cheapest_value(model: Model, name: str, parameter: Parameter) -> Any:
    """Return the choice with the lowest price, or the smallest number; None if nothing can be said."""
    choices = parameter.choices
    if choices and model.price and model.price.by == name:
        amounts = model.price.amounts
        choices = tuple(sorted(choices, key=lambda each: amounts.get(str(each), float("inf"))))
    elif choices and all(str(each).isdecimal() for each in choices):
        choices = tuple(sorted(choices, key=lambda each: int(str(each))))
    if choices:
        return choices[0]
    return int(parameter.min or 1) if parameter.type == "integer" else None


def _invalid_value(model: Model, count: str | None) -> tuple[str, Any] | None:
    """Return a parameter and a value that it cannot have. A host that overlooks it must not make more for it."""
    numbers = [name for name, each in model.parameters.items() if each.type == "integer" and (each.min or 0) >= 1]
    if count in numbers or numbers:
        return (count if count in numbers else numbers[0]) or "", -1
    priced = {model.price.by, *model.price.times} if model.price else set()
    chosen = [
        name for name, each in model.parameters.items() if each.choices and each.type == "string" and name not in priced
    ]
    return (chosen[0], _NO_CHOICE) if chosen else None


@dataclass(frozen=True, slots=True)
class ProbeJob(LoadedJob):
    """The job of a probe: its rows are those of the steps."""

    rows: tuple[tuple[Step, Draft], ...] = ()

    def drafts(self, on_merged: Callable[[MergedRow], None] | None = None) -> Iterator[Draft]:  # noqa: ARG002 - none merge
        """Yield the drafts of all steps."""
        yield from (draft for _, draft in self.rows)

    def draft(self, step: Step) -> Draft:
        """Return the draft of a step."""
        return dict(self.rows)[step]


def make_job(plan: ProbePlan, nonce: str, directory: Path, settings: Settings) -> ProbeJob:
    """Return the job of a probe whose files lie in `directory`. `nonce` makes its prompts unlike all others.

    Raises ManifestError if the catalogue does not take its requests.
    """
    prompts = [text.format(nonce=nonce) for text in (_PROMPT, _CUT_PROMPT, _REFUSAL_PROMPT)]
    values: dict[str, Any] = {
        "name": "probe",
        "provider": plan.spec.name,
        "model": plan.model,
        "params": {plan.prompt: "{{ text }}", **plan.params},
        "items": [{"text": text} for text in prompts],
        "retry": {"attempts": 1, "patience": "2h"},
        "output": {"name": "{{ index }}"},
    }
    job = load_values(values, settings, out=directory)
    task, cut, refusal = job.drafts()
    double = _copy(task, task.request, repeat=2, index=4, name="2-again")
    if plan.invalid is not None:
        refusal = _copy(
            refusal, {**refusal.request, plan.invalid[0]: plan.invalid[1]}, repeat=1, index=3, name="refused"
        )
    rows: dict[Step, Draft] = {"refusal": refusal, "task": task, "double": double, "cut": cut}
    if plan.picture is not None:
        files = [_write_picture(directory, step) for step in PICTURES]
        text = _PICTURE_PROMPT.format(nonce=nonce)
        values["items"] = [{"text": text, "picture": str(path.resolve())} for path in files]
        values["params"] = {**values["params"], "image": "{{ picture }}"}
        allowed = os.pathsep.join(map(str, (directory.resolve(), *settings.images)))
        job = load_values(values, Settings({**settings.environ, "RUNNER_IMAGES": allowed}), out=directory)
        pictures = [replace(draft, index=len(rows) + draft.index, name=draft.name + "p") for draft in job.drafts()]
        rows |= dict(zip(PICTURES, pictures, strict=True))
    kept = {each.name: getattr(job, each.name) for each in fields(job)}
    return ProbeJob(**kept, rows=tuple((step, rows[step]) for step in ORDER if step in rows))


def _write_picture(directory: Path, step: Step) -> Path:
    """Make a grey PNG file, unless it is there, and return its path. Raises DiskError."""
    path = directory / f"{step.replace(' ', '-')}.png"
    row = b"\0" + bytes([_GREYS[step]] * _SIDE)
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(row * _SIDE)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    try:
        with atomic_write(path) as file:
            file.write(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", hint="Make room, then run the same command again.") from None
    return path


def _copy(draft: Draft, request: Mapping[str, Any], *, repeat: int, index: int, name: str) -> Draft:
    key = task_key(draft.provider, draft.operation, draft.model, request, repeat)
    return replace(draft, key=key, request=request, repeat=repeat, index=index, name=name)
