"""`runner providers` and `runner models`: list providers and models with their parameters and prices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.completion import provider_or_model
from runner.cli.options import as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.providers.spec import Model, Parameter, Spec


def _specs() -> list[Spec]:
    from runner.providers import spec  # noqa: PLC0415 - pydantic is slow to import
    from runner.settings import Settings  # noqa: PLC0415

    extra = Settings(os.environ).providers
    return [spec.load(known, extra) for known in sorted(spec.names(extra))]


@click.command()
@as_json
def providers(as_json: bool) -> None:
    """What can be called, where, and what its credentials are called."""
    from runner.report.text import many  # noqa: PLC0415

    for spec in _specs():
        entry = _provider(spec)
        if as_json:
            click.echo(orjson.dumps(entry))
            continue
        click.echo(f"{spec.name}  {spec.title}, {many(len(spec.models), 'model')}")
        click.echo(f"  at           {spec.base_url or f'set {spec.env}_BASE_URL'}")
        click.echo(f"  credentials  {entry['credentials']}")
        click.echo(f"  starts at    submit {spec.limits.submit}, query {spec.limits.query}")
        click.echo(f"  lost answer  {entry['lost_answer']}")


def _provider(spec: Spec) -> dict[str, Any]:
    from runner.app.lanes import credential_names  # noqa: PLC0415

    lost_answer = "looked up, adopted or bought once more" if spec.can_look_up else "held for a person (exit code 4)"
    return {
        "name": spec.name,
        "title": spec.title,
        "base_url": spec.base_url,
        "base_url_variable": f"{spec.env}_BASE_URL",
        "credentials": " or ".join(" + ".join(names) for names in credential_names(spec)),
        "limits": {"submit": spec.limits.submit, "query": spec.limits.query},
        "models": len(spec.models),
        "lost_answer": lost_answer,
    }


@click.command()
@click.argument("words", nargs=-1, metavar="[WORD]…", shell_complete=provider_or_model)
@as_json
def models(words: tuple[str, ...], as_json: bool) -> int:
    """Models with their parameters: of a provider, and with every WORD in what they are called or what they make.

    `runner models kling`, `runner models video`, `runner models chanjing seedream`.
    """
    chosen = list(_chosen([word.casefold() for word in words]))
    for spec, name, model in chosen:
        if as_json:
            click.echo(orjson.dumps(_model(spec, name, model)))
        else:
            facts = (model.operation, _price(model, spec.unit), model.source)
            click.echo(f"{spec.name} {name}  ({'; '.join(filter(None, facts))})")
            for key, parameter in model.parameters.items():
                click.echo(f"  {key}: {_shown(parameter)}")
    if not chosen:
        _nothing_fits(words)
    return 0


def _chosen(words: Sequence[str]) -> Iterator[tuple[Spec, str, Model]]:
    """Yield the models that match every word: exactly by provider, or as a part of a name, operation or media."""
    specs = _specs()
    named = {spec.name for spec in specs} & set(words)
    for spec in specs:
        for name, model in spec.models.items() if not named or spec.name in named else ():
            text = f"{spec.name} {name} {model.operation} {spec.operations[model.operation].media}".casefold()
            if all(word in named or word in text for word in words):
                yield spec, name, model


def _nothing_fits(words: Sequence[str]) -> None:
    from difflib import get_close_matches  # noqa: PLC0415

    from runner.errors import UsageError  # noqa: PLC0415

    specs = _specs()
    names = [name for spec in specs for name in (spec.name, *spec.models)]
    unknown = [word for word in words if word not in {spec.name for spec in specs}]
    suggestions = dict.fromkeys(hit for word in unknown for hit in get_close_matches(word, names, n=3, cutoff=0.5))
    question = f"Did you mean {' or '.join(suggestions)}? " if suggestions else ""
    raise UsageError(
        f"no model is called {' '.join(words)!r}",
        hint=f"{question}`runner models` lists all, `runner providers` whose.",
    )


def _model(spec: Spec, name: str, model: Model) -> dict[str, Any]:
    return {
        "provider": spec.name,
        "model": name,
        "operation": model.operation,
        "source": model.source,
        "price": model.price and model.price.model_dump(exclude_defaults=True),
        "unit": spec.unit or None,
        "parameters": {key: _shown(parameter) for key, parameter in model.parameters.items()},
    }


def _price(model: Model, unit: str) -> str:
    price = model.price
    if price is None:
        return "price unknown"
    amounts = ", ".join(f"{value}: {amount:g}" for value, amount in price.amounts.items())
    amount = f"{price.by} {amounts}" if price.amount is None else f"{price.amount:g}"
    return " × ".join([f"{amount} {unit}".rstrip(), *price.times])


def _shown(parameter: Parameter) -> str:
    facts: list[str] = (
        [", ".join(str(choice) for choice in parameter.choices)] if parameter.choices else [parameter.type]
    )
    low, high = parameter.min, parameter.max_length if parameter.max_length is not None else parameter.max
    if low is not None or high is not None:
        facts.append(f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}")
    facts += ["required"] if parameter.required else []
    facts += [f"default {parameter.default}"] if parameter.default is not None else []
    facts += [f"= {' + '.join(parameter.common)}"] if parameter.common else []
    return " ".join(facts)
