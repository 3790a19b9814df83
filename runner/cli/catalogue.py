"""`runner providers` and `runner models`: what can be called, with which parameters."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.options import as_json

if TYPE_CHECKING:
    from runner.providers.spec import Parameter, Spec


def _specs(name: str | None = None) -> list[Spec]:
    from runner.providers import spec  # noqa: PLC0415 - pydantic is slow to import
    from runner.settings import Settings  # noqa: PLC0415

    extra = Settings(os.environ).providers
    return [spec.load(known, extra) for known in ([name] if name else sorted(spec.names(extra)))]


@click.command()
@as_json
def providers(as_json: bool) -> None:
    """What can be called, where, and what its credentials are called."""
    for spec in _specs():
        entry = _provider(spec)
        if as_json:
            click.echo(orjson.dumps(entry))
            continue
        click.echo(f"{spec.name}  {spec.title}, {len(spec.models)} models")
        click.echo(f"  at           {spec.base_url or f'set {spec.env}_BASE_URL'}")
        click.echo(f"  credentials  {entry['credentials']}")
        click.echo(f"  starts at    submit {spec.limits.submit}, query {spec.limits.query}")
        click.echo(f"  lost answer  {entry['lost_answer']}")


def _provider(spec: Spec) -> dict[str, Any]:
    from runner.app.lanes import credential_names  # noqa: PLC0415

    promise = "looked up, adopted or bought once more" if spec.can_look_up else "held for a person (exit code 4)"
    return {
        "name": spec.name,
        "title": spec.title,
        "base_url": spec.base_url,
        "base_url_variable": f"{spec.env}_BASE_URL",
        "credentials": " or ".join(" + ".join(names) for names in credential_names(spec)),
        "limits": {"submit": spec.limits.submit, "query": spec.limits.query},
        "models": len(spec.models),
        "lost_answer": promise,
    }


@click.command()
@click.argument("name", required=False)
@as_json
def models(name: str | None, as_json: bool) -> None:
    """Models of one provider, or of all, with their parameters."""
    for spec in _specs(name):
        for model, entry in spec.models.items():
            parameters = {own: _shown(parameter) for own, parameter in entry.parameters.items()}
            if as_json:
                line = {"provider": spec.name, "model": model, "operation": entry.operation, "source": entry.source}
                click.echo(orjson.dumps({**line, "price": None, "parameters": parameters}))
                continue
            click.echo(f"{spec.name} {model}  ({entry.operation}; price unknown; {entry.source})")
            for own, shown in parameters.items():
                click.echo(f"  {own}: {shown}")


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
