"""`runner providers` and `runner models`: list providers and models with their parameters and prices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli.completion import complete_provider_or_model
from runner.cli.parameters import as_json
from runner.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runner.app.account_state import AccountState
    from runner.providers.spec import Model, Parameter, Spec

#: columns of the output
_WIDTH = 80


def _specs() -> list[Spec]:
    from runner.providers import spec  # noqa: PLC0415 - pydantic is slow to import
    from runner.settings import Settings  # noqa: PLC0415

    extra = Settings(os.environ).providers
    return [spec.load(known, extra) for known in sorted(spec.spec_paths(extra))]


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=complete_provider_or_model)
@click.option("--account", is_flag=True, help="What is claimed, and what was measured on your account.")
@as_json
def providers(names: tuple[str, ...], account: bool, as_json: bool) -> None:
    """What can be called, where, what its credentials are called, and what is known of your account there.

    The class says what happens to a purchase whose answer is lost: 4 once, 3 fenced, 2 by reference, 1 by content,
    0 held for you. docs/reliability.md explains them.
    """
    from runner.app.account_state import account_state  # noqa: PLC0415
    from runner.report.guarantee_text import fact_dict, guarantee_dict  # noqa: PLC0415
    from runner.scheduler.clock import Clock  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    settings, now = Settings(os.environ), Clock().now()
    for spec in _chosen_specs(names):
        state = account_state(spec, settings)
        if as_json:
            entry = _provider_entry(spec)
            entry["account"] = None if state.problem else state.address
            entry["published"] = state.published.to_dict()
            entry["guarantees"] = [guarantee_dict(found, spec.name, now) for found in state.guarantees(now)]
            if account:
                entry["facts"] = [fact_dict(fact, now) for facts in state.facts.values() for fact in facts]
            click.echo(orjson.dumps(entry))
        else:
            click.echo("\n".join(_account_lines(state, now) if account else _provider_lines(state, now)))


def _chosen_specs(names: tuple[str, ...]) -> list[Spec]:
    """Return the specs of these names, all without a name. Raises UsageError for an unknown one."""
    from runner.providers import spec  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    return [spec.load(name, Settings(os.environ).providers) for name in dict.fromkeys(names)] if names else _specs()


def _provider_lines(state: AccountState, now: float) -> Iterator[str]:
    from runner.text import pluralize  # noqa: PLC0415

    spec = state.spec
    entry = _provider_entry(spec)
    yield f"{spec.name}  {spec.title}, {pluralize(len(spec.models), 'model')}"
    yield f"  at           {spec.base_url or f'set {spec.env}_BASE_URL'}"
    yield f"  credentials  {entry['credentials']}"
    yield f"  starts at    submit {spec.limits.submit}, query {spec.limits.query}"
    yield f"  lost answer  {entry['lost_answer']}"
    yield from _class_lines(state, now)
    if state.published.texts:
        yield from _wrapped("  others       ", state.published.summary())


def _class_lines(state: AccountState, now: float) -> Iterator[str]:
    """Yield what the provider claims, and the class of each operation now."""
    from runner.providers.guarantee import claimed_class  # noqa: PLC0415
    from runner.report.guarantee_text import claim_text, class_text, grouped  # noqa: PLC0415

    claimed = claimed_class(state.spec)
    if claimed:
        broken = state.published.contradicted
        doubt = f"; others saw that it does not: {', '.join(broken[:3])}" if broken else ""
        yield from _wrapped("  claimed      ", f"{claim_text(claimed)}{doubt}")
    if state.problem and claimed:
        yield from _wrapped("  now          ", f"nothing is known: {sanitize(state.problem)}")
        return
    yield from _labelled("now", grouped(list(state.guarantees(now)), lambda each: class_text(each, now)), claimed)


def _account_lines(state: AccountState, now: float) -> Iterator[str]:
    """Yield claims beside facts: a table for each list of which something is known."""
    from runner.providers.guarantee import advice, claimed_class  # noqa: PLC0415
    from runner.report.guarantee_text import fact_rows, grouped  # noqa: PLC0415
    from runner.text import pluralize  # noqa: PLC0415

    spec = state.spec
    yield f"{spec.name} at {sanitize(state.address, 60) or 'an address that is not known'}"
    yield from _class_lines(state, now)
    found = list(state.guarantees(now))
    if not state.problem:
        yield from _labelled("to raise it", grouped(found, lambda each: advice(each, spec.name)), claimed_class(spec))
    known = [operation for operation in spec.operations if state.facts_of(operation)]
    shown: set[int] = set()
    for operation in known:
        facts = state.facts_of(operation)
        if id(facts) in shown:
            continue
        shown.add(id(facts))
        same = ", ".join(each for each in known if state.facts_of(each) is facts)
        yield f"  {f'of {same}':<22}  {'claimed':<12}  measured"
        for name, claim, measured in fact_rows(spec, facts, now):
            yield from _wrapped(f"    {name:<21} {claim:<12}  ", measured)
    if state.published.texts:
        last = max(text.day for text in state.published.texts)
        yield f"  {pluralize(len(state.published.texts), 'probe')} by others, last {last}; nothing here rests on them"
        for name, seen in state.published.rows():
            yield from _wrapped(f"    {name:<34}  ", seen)


def _labelled(label: str, rows: Iterable[tuple[str, str]], claimed: int) -> Iterator[str]:
    """Yield a line for each text, with the operations that it is about; without them where nothing is claimed."""
    for names, text in rows:
        if text:
            yield from _wrapped(f"  {label:<11}  ", f"{names}: {text}" if claimed else text)
            label = ""


def _wrapped(head: str, text: str) -> Iterator[str]:
    """Yield a text behind its head, in lines that fit into a narrow terminal."""
    from textwrap import wrap  # noqa: PLC0415

    lines = wrap(text, max(30, _WIDTH - len(head)), break_on_hyphens=False, break_long_words=False) or [""]
    yield f"{head}{lines[0]}"
    yield from (f"{'':<{len(head)}}{line}" for line in lines[1:])


def _provider_entry(spec: Spec) -> dict[str, Any]:
    from runner.app.provider_config import credential_names  # noqa: PLC0415

    lost_answer = "looked up, adopted or bought once more" if spec.can_reconcile else "held for a person (exit code 4)"
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
@click.argument("words", nargs=-1, metavar="[WORD]…", shell_complete=complete_provider_or_model)
@as_json
def models(words: tuple[str, ...], as_json: bool) -> int:
    """Models with their parameters: of a provider, and with every WORD in what they are called or what they make.

    `runner models kling`, `runner models video`, `runner models chanjing seedream`.
    """
    chosen = list(_matching_models([word.casefold() for word in words]))
    for spec, name, model in chosen:
        if as_json:
            click.echo(orjson.dumps(_model_entry(spec, name, model)))
        else:
            facts = (model.operation, _price_text(model, spec.unit), model.source)
            click.echo(f"{spec.name} {name}  ({'; '.join(filter(None, facts))})")
            for key, parameter in model.parameters.items():
                click.echo(f"  {key}: {_parameter_text(parameter)}")
    if not chosen:
        _fail_without_match(words)
    return 0


def _matching_models(words: Sequence[str]) -> Iterator[tuple[Spec, str, Model]]:
    """Yield the models that match every word: exactly by provider, or as a part of a name, operation or media."""
    specs = _specs()
    named = {spec.name for spec in specs} & set(words)
    for spec in specs:
        for name, model in spec.models.items() if not named or spec.name in named else ():
            text = f"{spec.name} {name} {model.operation} {spec.operations[model.operation].media}".casefold()
            if all(word in named or word in text for word in words):
                yield spec, name, model


def _fail_without_match(words: Sequence[str]) -> None:
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


def _model_entry(spec: Spec, name: str, model: Model) -> dict[str, Any]:
    return {
        "provider": spec.name,
        "model": name,
        "operation": model.operation,
        "source": model.source,
        "price": model.price and model.price.model_dump(exclude_defaults=True),
        "unit": spec.unit or None,
        "parameters": {key: _parameter_text(parameter) for key, parameter in model.parameters.items()},
    }


def _price_text(model: Model, unit: str) -> str:
    price = model.price
    if price is None:
        return "price unknown"
    amounts = ", ".join(f"{value}: {amount:g}" for value, amount in price.amounts.items())
    amount = f"{price.by} {amounts}" if price.amount is None else f"{price.amount:g}"
    return " × ".join([f"{amount} {unit}".rstrip(), *price.times])


def _parameter_text(parameter: Parameter) -> str:
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
